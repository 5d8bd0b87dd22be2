"""A server, a DVC remote, two workers in two clones: one runs flows, one plays the GPU host."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from ruamel.yaml import YAML

from benchmarks.orchestration import free_port
from flows import deploy
from flows.running.cells import Cell
from flows.running.children import end
from tests.conftest import commit, keep, make_workspace, processes_in, run, started

pytestmark = [pytest.mark.slow, pytest.mark.long]


class Site(NamedTuple):
    """environment: of everything that talks to the server. processes: server, cpu and gpu."""

    here: Path
    elsewhere: Path
    remote: Path
    environment: dict[str, str]
    processes: dict[str, "subprocess.Popen[str]"]
    told: list[str]  # what the webhook was told

    @property
    def api(self) -> str:
        return self.environment["PREFECT_API_URL"]

    def start_server(self) -> None:
        port = self.environment["PREFECT_SERVER_API_PORT"]
        command = ("python", "-m", "flows.running.sqlite", "server", "start", "--port", port)
        self._start("server", self.here, "dashboard", *command)
        deadline = monotonic() + 120
        while True:
            try:
                httpx.get(f"{self.api}/health").raise_for_status()
                return
            except httpx.HTTPError:
                assert monotonic() < deadline, self.log("server")
                sleep(0.5)

    def start_worker(self, pool: str, clone: Path) -> None:
        """pool: its name before a hyphen, where there are several workers."""
        call = ("prefect", "worker", "start", "--pool", pool.split("-")[0], "--limit", "1")
        self._start(pool, clone, "started!", *call)

    def log(self, process: str) -> str:
        return (self.here.parent / f"{process}.log").read_text()

    def _start(self, name: str, clone: Path, until: str, *command: str) -> None:
        self.processes[name] = started(
            clone,
            *command,
            until=until,
            log=self.here.parent / f"{name}.log",
            **self.environment,
            IMU_CLONE=str(clone),
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[Site]:
    top = tmp_path_factory.mktemp("agents")
    here, elsewhere, remote = top / "here", top / "elsewhere", top / "remote"
    make_workspace(here)
    keep(here, {"retrain": ("reference",), "unlearn": ("nothing", "imu")})
    run("dvc", "remote", "add", "-q", "-d", "storage", str(remote), cwd=here)
    commit(here)
    run("git", "clone", "-q", str(here), str(elsewhere), cwd=top)
    shutil.copytree(prefect_database.parent, top / "prefect")
    port = free_port()
    environment = {
        "PREFECT_HOME": str(top / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
    }
    told: list[str] = []
    site = Site(here, elsewhere, remote, environment, {}, told)
    with webhook(told) as address:
        try:
            site.start_server()
            run("python", "-m", "flows.deploy", cwd=here, **environment, IMU_WEBHOOK=address)
            run("prefect", "--no-prompt", "deploy", "--all", cwd=here, **environment)
            site.start_worker("cpu", here)
            site.start_worker("gpu", elsewhere)
            yield site
        finally:
            end(list(site.processes.values()))


@contextmanager
def webhook(told: list[str]) -> Iterator[str]:
    """An address whose posts end in ``told``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(json.loads(body)["text"])
            self.send_response(204)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()


def ask(site: Site, deployment: str, **parameters: Any) -> str:
    """Start a run and return its id."""
    found = asked(site, f"deployments/name/{deployment}")["id"]
    made = asked(site, f"deployments/{found}/create_flow_run", parameters=parameters)
    return str(made["id"])


def ended(site: Site, flow_run: str, seconds: float = 300) -> dict[str, Any]:
    """The state in which the run ended."""
    deadline = monotonic() + seconds
    while True:
        state: dict[str, Any] = asked(site, f"flow_runs/{flow_run}")["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return state
        assert monotonic() < deadline, (state, site.log("cpu")[-3000:])
        sleep(0.5)


def asked(site: Site, path: str, **body: Any) -> Any:
    url = f"{site.api}/{path}"
    found = httpx.post(url, json=body, timeout=70) if body else httpx.get(url, timeout=70)
    return found.raise_for_status().json()


def stages(site: Site, flow_run: str) -> dict[str, str]:
    """Stage -> what became of it, as the run's page has it."""
    found = asked(
        site,
        "artifacts/filter",
        artifacts={"flow_run_id": {"any_": [flow_run]}, "key": {"any_": ["stages"]}},
    )
    return {row["stage"]: row["outcome"] for row in json.loads(found[0]["data"])}


def locked(clone: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((clone / "dvc.lock").read_text())["stages"]
    return found


REFERENCE = "retrain-reference/retrain-reference"


def test_the_gpu_host_trains_and_the_flow_goes_on_here(site: Site) -> None:
    flow_run = ask(site, REFERENCE, force=False)
    assert ended(site, flow_run)["type"] == "COMPLETED"
    assert set(stages(site, flow_run).values()) == {"computed"}
    (cell,) = [folder for folder in (site.elsewhere / ".cells").iterdir() if folder.is_dir()]
    assert locked(cell).keys() == {"split", "train", "retrain@reference"}
    assert locked(cell).items() <= locked(site.here).items()
    runs = asked(site, "flow_runs/filter", flows={"name": {"any_": ["stage"]}})
    assert {r["name"] for r in runs} == {
        f"{name} · retrained · digits · class 8 · seed 0"
        for name in locked(cell)
        if name != "split"
    }


def test_the_same_run_again_by_the_command_line_does_nothing(site: Site) -> None:
    call = ("prefect", "deployment", "run", REFERENCE, "--param", "force=false")
    said = run(*call, cwd=site.here, **site.environment).stdout
    (flow_run,) = re.findall(r"flow-run/([0-9a-f-]{36})", said)
    assert ended(site, flow_run)["type"] == "COMPLETED"
    assert set(stages(site, flow_run).values()) == {"unchanged"}


def test_without_its_results_the_same_run_restores_them_from_the_remote(site: Site) -> None:
    before = locked(site.here)
    for folder in ("runs", ".dvc/cache"):
        shutil.rmtree(site.here / folder)
    (site.here / "dvc.lock").unlink()
    flow_run = ask(site, REFERENCE, force=False)
    assert ended(site, flow_run)["type"] == "COMPLETED"
    said = stages(site, flow_run)
    assert {said[name] for name in said if name.startswith(("train", "retrain"))} == {"restored"}
    assert locked(site.here) == before


def test_a_third_clone_pulls_everything(site: Site, tmp_path: Path) -> None:
    run("dvc", "push", "-q", cwd=site.here)
    run("git", "clone", "-q", str(site.here), str(tmp_path / "third"), cwd=tmp_path)
    shutil.copyfile(site.here / "dvc.lock", tmp_path / "third" / "dvc.lock")
    run("dvc", "pull", "-q", "data.dvc", *locked(site.here), cwd=tmp_path / "third")
    for name in ("train", "retrain/reference"):
        path = Path("runs") / name / "model.safetensors"
        assert (tmp_path / "third" / path).read_bytes() == (site.here / path).read_bytes()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"request": {"seed": -1}}, "-1 is less than the minimum of 0"),
        ({"request": {"forget": {"clas": ["8"]}}}, "is not valid under any of the given schemas"),
        ({"jobs": "many"}, "'many' is not of type 'integer'"),
        ({"job": 1}, "job"),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(
    site: Site, parameters: dict[str, Any], message: str
) -> None:
    call = ["prefect", "deployment", "run", REFERENCE]
    for name, value in parameters.items():
        call += ["--param", f"{name}={json.dumps(value)}"]
    done = run(*call, cwd=site.here, check=False, **site.environment)
    assert done.returncode == 1
    assert message in done.stdout


def trains(site: Site, seed: int, epochs: int) -> str:
    """A run whose GPU worker is training."""
    before = site.log("gpu").count(f"epoch 2/{epochs}")
    flow_run = ask(
        site, REFERENCE, force=False, request={"seed": seed, "settings": {"train.epochs": epochs}}
    )
    waited(lambda: site.log("gpu").count(f"epoch 2/{epochs}") > before, 120)
    return flow_run


def waited(until: Callable[[], object], seconds: float) -> None:
    deadline = monotonic() + seconds
    while not until():
        assert monotonic() < deadline
        sleep(0.1)


def kill(site: Site, name: str) -> None:
    """A worker with everything it started, as when its host dies."""
    worker = psutil.Process(site.processes[name].pid)
    for process in [*worker.children(recursive=True), worker]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    site.processes[name].wait()


def processes_of(clone: Path) -> list[psutil.Process]:
    """Everything that computes in the clone's cells."""
    return processes_in(clone / ".cells")


def test_a_cancelled_run_ends_what_it_started_elsewhere(site: Site) -> None:
    flow_run = trains(site, seed=11, epochs=200)
    assert processes_of(site.elsewhere)
    run("prefect", "flow-run", "cancel", flow_run, cwd=site.here, **site.environment)
    assert ended(site, flow_run, seconds=60)["type"] == "CANCELLED"
    left = psutil.wait_procs(processes_of(site.elsewhere) + processes_of(site.here), timeout=20)[1]
    assert not left
    cell = next(f for f in (site.elsewhere / ".cells").iterdir() if not (f / "dvc.lock").is_file())
    assert not (cell / "runs" / "train").exists()


def test_a_remote_that_cannot_be_reached_is_said_and_the_next_run_goes_on(site: Site) -> None:
    """A file lies where the remote was: as root a missing permission is none."""
    away = site.remote.with_name("away")
    site.remote.rename(away)
    site.remote.write_text("no folder")
    request = {"seed": 12}
    try:
        state = ended(site, ask(site, REFERENCE, force=False, request=request))
        assert state["type"] == "FAILED"
        assert "the DVC remote did not take the results of data.dvc, split" in state["message"]
        assert "Not a directory" in state["message"]
        waited(lambda: "retrained · digits · class 8 · seed 12: Failed" in site.told, 30)
    finally:
        site.remote.unlink()
        away.rename(site.remote)
    flow_run = ask(site, REFERENCE, force=False, request=request)
    state = ended(site, flow_run)
    assert state["type"] == "COMPLETED", state["message"]


def test_a_verdict_that_was_not_wanted_is_told(site: Site) -> None:
    code = (
        "from prefect import flow\nfrom flows.running import pages\n"
        "@flow(flow_run_name='trial')\n"
        "def judged():\n    pages.tell(['imu: masked only'], 'indistinguishable')\n"
        "judged()"
    )
    run("python", "-c", code, cwd=site.here, **site.environment)
    said = "trial: wanted indistinguishable, got imu: masked only"
    waited(lambda: said in site.told, 30)


def test_a_server_that_is_restarted_during_a_run_is_waited_for(site: Site) -> None:
    flow_run = trains(site, seed=13, epochs=300)
    end([site.processes["server"]])
    sleep(3)
    site.start_server()
    assert ended(site, flow_run)["type"] == "COMPLETED"


def test_a_worker_that_is_killed_is_noticed_and_another_one_goes_on(site: Site) -> None:
    flow_run = trains(site, seed=14, epochs=201)
    kill(site, "gpu")
    assert not psutil.wait_procs(processes_of(site.elsewhere), timeout=20)[1]
    site.start_worker("gpu", site.elsewhere)
    # The server looks every few seconds who has been silent for so long.
    waited(lambda: "its worker died" in site.log("cpu"), deploy.SILENCE.total_seconds() + 60)
    assert ended(site, flow_run)["type"] == "COMPLETED"


def test_two_workers_may_take_the_same_stage(site: Site) -> None:
    """In two clones, at the same time: both compute it, and store the same."""
    commit = run("git", "rev-parse", "HEAD", cwd=site.here).stdout.strip()
    site.start_worker("gpu-2", site.here)
    parameters = {"stage": "train", "commit": commit, "changes": {"seed": 15}}
    runs = [ask(site, "stage/gpu", title=f"twin {n}", **parameters) for n in (1, 2)]
    assert [ended(site, flow_run)["type"] for flow_run in runs] == ["COMPLETED"] * 2
    cell = Cell(name="", changes=parameters["changes"], commit=commit)
    assert locked(cell.folder(site.here)) == locked(cell.folder(site.elsewhere))


def test_a_pool_that_loses_its_worker_gives_its_stages_back(site: Site) -> None:
    """One of two stages runs there, the other waits, and nobody comes back."""
    flow_run = trains(site, seed=16, epochs=202)
    for name in ("gpu", "gpu-2"):
        if name in site.processes and site.processes[name].poll() is None:
            kill(site, name)
    assert (
        ended(site, flow_run, seconds=deploy.SILENCE.total_seconds() + 240)["type"] == "COMPLETED"
    )
    assert "the pool gpu has no worker any more" in site.log("cpu")
