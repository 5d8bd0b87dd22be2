"""The whole pipeline: killed, run, repeated, changed, forced; what MLflow remembers of it."""

import json
import os
import re
import sys
from pathlib import Path
from time import monotonic, sleep

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from flows.running import last
from tasks import report
from tasks.files.workspace import Workspace
from tasks.pages import findings
from tasks.tracking.store import LAST, Store
from tests.conftest import (
    MANY,
    change,
    make_workspace,
    processes_in,
    run,
    start_cold,
    started,
)

pytestmark = pytest.mark.slow
TOLD = 60  # seconds in which MLflow, which is told beside the stages, must know of a run
MODELS = {"original", "reference", "retrain_2", "retrain_3", "nothing", "logit_mask", "imu"}


def flow(root: Path) -> str:
    return run(sys.executable, "-m", "flows.pipeline", cwd=root).stdout


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, served: None) -> Path:
    """A workspace in which the flow was killed while it trained, and then run to its end.

    What DVC writes in place is as a kill in that moment leaves it.
    """
    root = make_workspace(tmp_path_factory.mktemp("pipeline") / "workspace", {"ensemble": MANY})
    assert not parents(root)  # and the experiment is there, so that two do not make it at once
    killed = started(root, sys.executable, "-m", "flows.pipeline", until="epoch 1/3")
    deadline = monotonic() + TOLD
    while not parents(root):
        assert killed.poll() is None
        assert monotonic() < deadline
        sleep(0.05)
    killed.kill()
    killed.wait()
    left = psutil.wait_procs(processes_in(root, "tasks"), timeout=20)[1]
    assert not left, f"left behind: {left}"
    torn = (root / "dvc.lock").read_text()
    (root / "dvc.lock").write_text(torn[: torn.rindex("md5: ")])
    output = flow(root)
    assert "put back dvc.lock, of which DVC could write a part only" in output
    assert "report   " in output
    assert not processes_in(root)
    return root


def parents(root: Path) -> list:
    return Store(Workspace(root)).search("tags.`imu.kind` = 'pipeline'")


def models(root: Path, parent: str) -> dict:
    """Runs of the models of a pipeline run, by name."""
    found = Store(Workspace(root)).search(f"tags.`pipeline.{parent}` = 'true'")
    return {run.data.tags["model"]: run for run in found}


def stages_of(root: Path) -> dict:
    return YAML(typ="safe").load((root / "dvc.lock").read_text())["stages"]


def test_a_killed_run_is_closed_and_the_next_one_completes(ran: Path) -> None:
    complete, killed = parents(ran)[-2:]
    assert killed.info.status == "KILLED"
    assert complete.info.status == "FINISHED"
    assert run("dvc", "status", "-q", cwd=ran).returncode == 0
    assert not Store(Workspace(ran)).search("attributes.status = 'RUNNING'")


def test_mlflow_shows_every_model_once_below_the_pipeline_run(ran: Path) -> None:
    parent = parents(ran)[-2]
    found = models(ran, parent.info.run_id)
    assert found.keys() == MODELS
    for made in found.values():
        assert made.info.status == "FINISHED"
        assert made.data.tags["mlflow.parentRunId"] == parent.info.run_id
        commit = run("git", "rev-parse", "HEAD", cwd=ran).stdout.strip()
        assert made.data.tags["git.commit"] == commit
        assert made.inputs.dataset_inputs
    assert "prefect.flow_run_id" in parent.data.tags
    printed = run("python", "-m", "tasks", "key", cwd=ran).stdout.strip()
    assert parent.data.tags["imu.key"] == printed


def test_mlflow_and_the_disk_tell_the_same_numbers(ran: Path) -> None:
    parent = parents(ran)[-2]
    found = models(ran, parent.info.run_id)
    for item in ("imu", "nothing", "retrain_2"):
        producer = f"{'retrain' if item == 'retrain_2' else 'unlearn'}/{item}"
        path = Workspace(ran).evaluation(producer) / "metrics.json"
        for name, value in json.loads(path.read_text()).items():
            printed = findings.shown(name, value) if name != findings.UNCHANGED else value
            assert found[item].data.metrics[name] == float(printed)
    judged = json.loads((Workspace(ran).per_sample("imu") / "metrics.json").read_text())
    assert {"U_LiRA", "KLoM_forget", "diverged"} <= judged.keys()
    for name, value in judged.items():
        assert found["imu"].data.metrics[name] == float(findings.shown(name, value))
    assert found["imu"].data.metrics["RTE_time"] > 0
    assert found["imu"].data.params["unlearn.method"] == "imu"
    assert found["original"].data.params["train.epochs"] == "3"
    assert parent.data.params["unlearn.imu.method"] == "imu"


def test_the_curve_of_a_stage_is_logged_once(ran: Path) -> None:
    client = Store(Workspace(ran)).client
    trained = models(ran, parents(ran)[-2].info.run_id)["original"]
    points = client.get_metric_history(trained.info.run_id, "curve/loss")
    assert [point.step for point in points] == [1, 2, 3]


def test_a_course_begins_at_the_original_and_ends_at_the_judged_model(ran: Path) -> None:
    def measured(producer: str) -> list[float]:
        path = Workspace(ran).evaluation(producer) / "metrics.json"
        return [json.loads(path.read_text())[name] for name in ("FA", "RA")]

    course = pd.read_csv(Workspace(ran).evaluation("unlearn/imu") / "trajectory.csv")
    assert len(course) > 2  # those between are computed on their own
    first, *_, last = course[["forget", "retain"]].to_numpy().tolist()
    assert first == pytest.approx(measured("unlearn/nothing"), rel=1e-12)
    assert last == pytest.approx(measured("unlearn/imu"), rel=1e-12)
    assert first != last


def test_mlflow_holds_the_verdicts_and_the_slices(ran: Path, tmp_path: Path) -> None:
    parent = parents(ran)[-2]
    found = models(ran, parent.info.run_id)
    said = report.read_verdicts(Workspace(ran))
    assert said.keys() == MODELS - {"original", "reference"}
    for item, verdict in said.items():
        tags = found[item].data.tags
        assert tags["verdict"] == verdict["outcome"]
        assert tags["verdict.words"] == verdict["words"]
        assert tags["verdict.decided"] == "; ".join(verdict["decided"])
        assert tags["mlflow.note.content"].startswith(f"**{verdict['words']}**: ")
    store = Store(Workspace(ran))
    run_id = found["imu"].info.run_id
    assert found["imu"].info.run_name == f"imu — {said['imu']['outcome']}"
    listed = {file.path for file in store.client.list_artifacts(run_id, "slices")}
    tables = {f"slices/{name}.json" for name in ("by_class", "least_forgotten", "got_worse")}
    assert listed == tables
    path = store.client.download_artifacts(run_id, "slices/least_forgotten.json", str(tmp_path))
    content = json.loads(Path(path).read_text())
    shown = pd.DataFrame(content["data"], columns=content["columns"])
    assert shown["remembered"].is_monotonic_decreasing
    assert len({cell["filepath"] for cell in shown["image"]}) == len(shown) == 16


def test_a_logged_model_serves_the_probabilities_of_the_stored_one(
    ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import torch

    from tasks.files.workspace import load_model

    (logged,) = models(ran, parents(ran)[-2].info.run_id)["imu"].outputs.model_outputs
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Store(Workspace(ran)).uri)
    served = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    data = Workspace(ran).dataset()
    model, _ = load_model(ran / "runs" / "unlearn" / "imu" / "model.safetensors")
    model.eval()
    (mean,), (std,) = data.mean, data.std
    pixels = (torch.from_numpy(data.images[:5]).float() / data.scale - mean) / std
    with torch.inference_mode():
        expected = model(pixels).softmax(1).numpy()
    np.testing.assert_allclose(served.predict(data.images[:5]), expected, rtol=1e-6)
    assert str(served.metadata.signature.inputs.inputs[0].type) == "uint8"


def test_a_run_without_changes_computes_nothing_and_adds_one_row(ran: Path) -> None:
    before = (ran / "dvc.lock").read_bytes()
    assert "didn't change" in run("dvc", "repro", cwd=ran).stdout
    rows = len(Store(Workspace(ran)).search(""))
    (ran / LAST).unlink()  # a clone that does not know where its results are shown
    output = flow(ran)
    assert f"{{'unchanged': {len(stages_of(ran)) - 1}}}" in output  # but `track`, which logs
    assert (ran / "dvc.lock").read_bytes() == before
    assert len(Store(Workspace(ran)).search("")) == rows + 1
    newest, original, *_ = parents(ran)
    made = models(ran, original.info.run_id)
    shown = models(ran, newest.info.run_id)
    assert {name: run.info.run_id for name, run in shown.items()} == {
        name: run.info.run_id for name, run in made.items()
    }
    tags = newest.data.tags
    assert tags["imu.key"] == original.data.tags["imu.key"]
    page = f"{os.environ['PREFECT_API_URL']}/flow_runs/{tags['prefect.flow_run_id']}"
    told = httpx.get(page).json()
    assert told["name"] == newest.info.run_name
    assert told["name"].endswith(" · again")
    assert re.fullmatch(r"Use [^`*]+\.", told["state"]["message"])
    again = flow(ran)
    assert f"Prefect  make prefect, then {tags['prefect.flow_run_url']}\n" in again
    assert "nothing has changed" in again
    assert f"viewStateShareKey={newest.info.run_id}" in again
    assert output[output.index("\nmodel ") : output.index("MLflow ")] in again  # the table
    assert len(Store(Workspace(ran)).search("")) == rows + 1


def test_a_stage_that_comes_out_otherwise_than_the_lock_has_it_is_named(ran: Path) -> None:
    file = ran / "dvc.lock"
    before = file.read_bytes()
    (made,) = stages_of(ran)["unlearn@nothing"]["outs"]
    try:
        file.write_bytes(before.replace(made["md5"].encode(), b"f" * 32 + b".dir"))
        output = flow(ran)
        assert "unlearn@nothing came out otherwise than dvc.lock had it, from the same" in output
        assert output.count("came out otherwise") == 1
        assert ", other results': 1" in output
        assert stages_of(ran) == YAML(typ="safe").load(before)["stages"]
    finally:
        file.write_bytes(before)


def test_one_parameter_reruns_only_what_depends_on_it(ran: Path) -> None:
    before, params = (ran / "dvc.lock").read_bytes(), (ran / "params.yaml").read_bytes()
    before_run = parents(ran)[0].info.run_id
    earlier = models(ran, before_run)
    try:
        change(ran, {"unlearn": {"imu": {"step": 0.4}}})
        output = run("dvc", "repro", cwd=ran).stdout
        ran_stages = {line.split("'")[1] for line in output.splitlines() if "Running" in line}
        assert ran_stages == {"unlearn@imu", "evaluate@imu", "per_sample@imu", "report", "track"}
        newest = parents(ran)[0]
        assert newest.info.status == "FINISHED"
        now = models(ran, newest.info.run_id)
        assert now.keys() == MODELS
        others = [name for name in MODELS if now[name].info.run_id != earlier[name].info.run_id]
        assert others == ["imu"]
        assert now["imu"].data.metrics["seconds"] > 0
        assert now["imu"].data.params["unlearn.step"] == "0.4"
    finally:
        (ran / "params.yaml").write_bytes(params)
    # What was computed before comes back from DVC's cache, and is what MLflow's registry follows.
    assert "is cached - skipping run" in run("dvc", "repro", cwd=ran).stdout
    shown = models(ran, parents(ran)[0].info.run_id)
    assert {made.info.run_id for made in shown.values()} == {
        made.info.run_id for made in earlier.values()
    }
    assert parents(ran)[0].info.run_id not in (newest.info.run_id, before_run)
    assert last.run(ran) is None  # what the flow would show is not the last run any more
    assert stages_of(ran).keys() == YAML(typ="safe").load(before)["stages"].keys()


def test_a_fresh_run_elsewhere_agrees_to_the_last_bit(ran: Path, tmp_path: Path) -> None:
    fresh = make_workspace(tmp_path / "other" / "place", {"ensemble": MANY})
    run("dvc", "repro", cwd=fresh)
    # The order of the entries is that in which stages ended the first time.
    assert stages_of(fresh) == stages_of(ran)
    # MLflow shows the same after either.
    (made_there,) = parents(fresh)
    key = made_there.data.tags["imu.key"]
    made_here = next(p for p in parents(ran) if p.data.tags.get("imu.key") == key)
    here, there = models(ran, made_here.info.run_id), models(fresh, made_there.info.run_id)
    assert here.keys() == there.keys()
    for name, made in here.items():
        assert {k: v for k, v in made.data.metrics.items() if "seconds" not in k}.keys() == {
            k: v for k, v in there[name].data.metrics.items() if "seconds" not in k
        }.keys()
        assert made.data.params == there[name].data.params
        assert made.data.tags["imu.key"] == there[name].data.tags["imu.key"]
    # A cold start computes what a warm one does, where outputs lie already.
    start_cold(fresh)
    run("dvc", "repro", "--force", "--single-item", "train", cwd=fresh)
    run("dvc", "repro", "--force", "--single-item", "evaluate@imu", cwd=fresh)
    assert stages_of(fresh) == stages_of(ran)


def test_a_second_run_in_the_workspace_is_refused(ran: Path) -> None:
    from flows.running.holding import only_run

    before = (ran / "dvc.lock").read_bytes()
    with only_run(ran):
        done = run(sys.executable, "-m", "flows.pipeline", cwd=ran, check=False)
    assert done.returncode == 1
    assert f"another pipeline run (process {os.getpid()}) uses {ran}" in done.stdout
    assert "Traceback" not in done.stdout
    assert (ran / "dvc.lock").read_bytes() == before


def test_dvc_metrics_and_plots_are_shown(ran: Path) -> None:
    shown = run("dvc", "metrics", "show", "--json", cwd=ran).stdout
    found = json.loads(shown)[""]["data"]
    assert {"verdict", "FA", "work"} <= found["runs/report/models/imu.json"]["data"].keys()
    assert all(path.startswith("runs/report/models/") for path in found)
    run("dvc", "plots", "show", "-o", "runs/shown", cwd=ran)
    page = (ran / "runs" / "shown" / "index.html").read_text()
    assert page.count("vegaEmbed('#") == 3
    assert '"model": "imu"' in page
    assert "<script src=" not in page  # in whatever folder it lies, and without a network
    assert ".vegaEmbed=" in page
