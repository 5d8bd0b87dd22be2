"""A server, a DVC remote, two workers in two clones: one runs flows, one plays the GPU host."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import httpx
import pytest
from ruamel.yaml import YAML

from flows.children import end
from tests.conftest import MODELS, make_workspace, run, started

pytestmark = pytest.mark.slow


class Site(NamedTuple):
    """environment: of everything that talks to the server."""

    here: Path
    elsewhere: Path
    remote: Path
    environment: dict[str, str]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    top = tmp_path_factory.mktemp("agents")
    here, elsewhere, remote = top / "here", top / "elsewhere", top / "remote"
    make_workspace(here)
    run("dvc", "remote", "add", "-q", "-d", "storage", str(remote), cwd=here)
    commit = ("git", "-c", "user.name=t", "-c", "user.email=t", "commit", "-qam", "remote")
    run(*commit, cwd=here)
    run("git", "clone", "-q", str(here), str(elsewhere), cwd=top)
    port = free_port()
    environment = {
        "PREFECT_HOME": str(top / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
    }
    processes: list[subprocess.Popen[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("IMU_WARM")  # a worker of its own starts its own
        try:
            processes.append(server(here, port, environment))
            run("python", "-m", "flows.deploy", cwd=here, **environment)
            run("prefect", "--no-prompt", "deploy", "--all", cwd=here, **environment)
            for clone, pool in ((here, "cpu"), (elsewhere, "gpu")):
                processes.append(worker(clone, pool, environment))
            yield Site(here, elsewhere, remote, environment)
        finally:
            end(processes)


def server(clone: Path, port: int, environment: dict[str, str]) -> "subprocess.Popen[str]":
    call = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    log = clone.parent / "server.log"
    process = started(clone, *call, until="dashboard", log=log, **environment)
    deadline = monotonic() + 120
    while True:
        try:
            return (
                httpx.get(f"{environment['PREFECT_API_URL']}/health").raise_for_status() and process
            )
        except httpx.HTTPError:
            assert monotonic() < deadline, log.read_text()
            sleep(0.5)


def worker(clone: Path, pool: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    call = ("prefect", "worker", "start", "--pool", pool, "--type", "process", "--limit", "1")
    log = clone.parent / f"{pool}.log"
    return started(clone, *call, until="started!", log=log, **environment, IMU_CLONE=str(clone))


def ask(site: Site, deployment: str, **parameters: Any) -> str:
    """Start a run and return its id."""
    call = ["prefect", "deployment", "run", deployment]
    for name, value in parameters.items():
        call += ["--param", f"{name}={json.dumps(value)}"]
    said = run(*call, cwd=site.here, **site.environment).stdout
    return re.search(r"flow-run/([0-9a-f-]{36})", said)[1]  # type: ignore[index]


def ended(site: Site, flow_run: str, seconds: float = 300) -> dict[str, Any]:
    """The state in which the run ended."""
    deadline = monotonic() + seconds
    while True:
        state: dict[str, Any] = asked(site, f"flow_runs/{flow_run}")["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return state
        assert monotonic() < deadline, (state, (site.here.parent / "cpu.log").read_text()[-3000:])
        sleep(0.5)


def asked(site: Site, path: str, **body: Any) -> Any:
    url = f"{site.environment['PREFECT_API_URL']}/{path}"
    return (httpx.post(url, json=body) if body else httpx.get(url)).raise_for_status().json()


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
    assert locked(cell).keys() == {"split", "train", *(f"retrain@{r}" for r in MODELS["retrain"])}
    assert locked(cell).items() <= locked(site.here).items()
    runs = asked(site, "flow_runs/filter", flows={"name": {"any_": ["stage"]}})
    assert {r["name"] for r in runs} == {
        f"{name} · retrained · digits · class 8 · seed 0"
        for name in locked(cell)
        if name != "split"
    }


def test_the_same_run_again_does_nothing(site: Site) -> None:
    flow_run = ask(site, REFERENCE, force=False)
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
        ({"request": {"scenario": "clas"}}, "'clas' is not"),
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
