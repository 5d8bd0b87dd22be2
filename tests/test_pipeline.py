"""The whole pipeline: killed, run, repeated, changed, forced; what MLflow remembers of it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from tasks import report
from tasks.files.workspace import Workspace
from tasks.graph import lineage
from tasks.tracking.runs import Tracker
from tests.conftest import change, make_workspace, processes_in, run, started

pytestmark = pytest.mark.slow


def flow(root: Path) -> str:
    return run(sys.executable, "-m", "flows.pipeline", cwd=root).stdout


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, served: None) -> Path:
    """A workspace in which the flow was killed while it trained, and then run to its end.

    What DVC writes in place is as a kill in that moment leaves it.
    """
    root = make_workspace(tmp_path_factory.mktemp("pipeline") / "workspace")
    killed = started(root, sys.executable, "-m", "flows.pipeline", until="epoch 1/3")
    killed.kill()
    killed.wait()
    left = psutil.wait_procs(processes_in(root, "tasks"), timeout=20)[1]
    assert not left, f"left behind: {left}"
    lock = (root / "dvc.lock").read_text()
    (root / "dvc.lock").write_text(lock[: lock.rindex("md5: ")])
    output = flow(root)
    assert "report   " in output
    assert not processes_in(root)
    return root


def parents(root: Path) -> list:
    tracker = Tracker(Workspace(root))
    return tracker._search("tags.`imu.kind` = 'pipeline'")


def stages_of(root: Path) -> dict:
    return YAML(typ="safe").load((root / "dvc.lock").read_text())["stages"]


def nested(root: Path, parent: str) -> dict:
    tracker = Tracker(Workspace(root))
    runs = tracker._search(f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.data.tags["dvc.stage"]: run for run in runs}


def test_a_killed_run_is_closed_and_the_next_one_completes(ran: Path) -> None:
    complete, killed = parents(ran)[-2:]
    assert killed.info.status == "KILLED"
    assert complete.info.status == "FINISHED"
    assert run("dvc", "status", "-q", cwd=ran).returncode == 0


def test_mlflow_shows_every_stage_below_the_pipeline_run(ran: Path) -> None:
    parent = parents(ran)[-2]
    stages = nested(ran, parent.info.run_id)
    keys = lineage.locked_keys(ran)
    assert stages.keys() == keys.keys()
    for name, stage in stages.items():
        assert stage.info.status == "FINISHED"
        assert stage.data.tags["dvc.key"] == keys[name]
        assert (
            stage.data.tags["git.commit"] == run("git", "rev-parse", "HEAD", cwd=ran).stdout.strip()
        )
        assert stage.data.tags["prefect.flow_run_id"] in stage.data.tags["imu.parent"]
        assert stage.inputs.dataset_inputs
    assert parent.data.tags["dvc.pipeline_key"] == lineage.pipeline_key(keys)
    printed = run("python", "-m", "tasks", "key", cwd=ran).stdout.strip()
    assert parent.data.tags["dvc.pipeline_key"] == printed


def test_mlflow_and_the_disk_tell_the_same_numbers(ran: Path) -> None:
    parent = parents(ran)[-2]
    stages = nested(ran, parent.info.run_id)
    for item in ("imu", "nothing", "floor"):
        group = "evaluate_retrain" if item == "floor" else "evaluate"
        producer = f"{'retrain' if item == 'floor' else 'unlearn'}/{item}"
        path = Workspace(ran).evaluation(producer) / "metrics.json"
        logged, values = stages[f"{group}@{item}"].data.metrics, json.loads(path.read_text())
        for name, value in values.items():
            assert logged[name] == pytest.approx(value, rel=1e-12)
            assert parent.data.metrics[f"{item}/{name}"] == pytest.approx(value, rel=1e-12)
    assert stages["evaluate@imu"].data.metrics["RTE_time"] > 0
    assert stages["train"].data.params["train.epochs"] == "3"
    assert parent.data.params["unlearn.imu.method"] == "imu"


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
    stages = nested(ran, parent.info.run_id)
    said = report.read_verdicts(Workspace(ran))
    assert said.keys() == {"imu", "fine_tune", "nothing", "logit_mask", "floor", "floor_2"}
    for item, verdict in said.items():
        group = "evaluate_retrain" if item.startswith("floor") else "evaluate"
        tags = stages[f"{group}@{item}"].data.tags
        assert tags["verdict"] == verdict["words"] == parent.data.tags[f"verdict.{item}"]
        assert tags["verdict.decided"] == "; ".join(verdict["decided"])
    tracker = Tracker(Workspace(ran))
    run_id = stages["evaluate@imu"].info.run_id
    assert stages["evaluate@imu"].info.run_name == f"evaluate@imu · {said['imu']['outcome']}"
    listed = {file.path for file in tracker.client.list_artifacts(run_id, "slices")}
    tables = {f"slices/{name}.json" for name in ("by_class", "least_forgotten", "got_worse")}
    assert listed == tables
    path = tracker.client.download_artifacts(run_id, "slices/least_forgotten.json", str(tmp_path))
    content = json.loads(Path(path).read_text())
    shown = pd.DataFrame(content["data"], columns=content["columns"])
    assert shown["remembered"].is_monotonic_decreasing
    assert len({cell["filepath"] for cell in shown["image"]}) == len(shown) == 16


def test_mlflow_shows_what_many_networks_say(ran: Path) -> None:
    stages = nested(ran, parents(ran)[-2].info.run_id)
    for name, judged in (("per_sample@imu", "unlearn/imu"), ("per_sample_floor", "ensemble/floor")):
        values = json.loads((Workspace(ran).per_sample(judged) / "metrics.json").read_text())
        logged = stages[name].data.metrics
        assert {metric: logged[metric] for metric in values} == pytest.approx(values, rel=1e-12)
        assert {"U_LiRA", "KLoM_forget", "diverged"} <= values.keys()


def test_a_logged_model_serves_the_probabilities_of_the_stored_one(ran: Path) -> None:
    import mlflow
    import torch

    from tasks.files.workspace import load_model

    tracker = Tracker(Workspace(ran))
    stage = nested(ran, parents(ran)[-2].info.run_id)["unlearn@imu"]
    (logged,) = stage.outputs.model_outputs
    mlflow.set_tracking_uri(tracker.uri)
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


def test_a_run_without_changes_computes_nothing_and_is_shown_whole(ran: Path) -> None:
    before = (ran / "dvc.lock").read_bytes()
    assert "didn't change" in run("dvc", "repro", cwd=ran).stdout
    count = len(parents(ran))
    output = flow(ran)
    assert f"{{'unchanged': {len(lineage.locked_keys(ran))}}}" in output
    assert (ran / "dvc.lock").read_bytes() == before
    newest, original, *_ = parents(ran)
    assert len(parents(ran)) == count + 1
    stages = nested(ran, newest.info.run_id)
    made = nested(ran, original.info.run_id)
    assert stages.keys() == made.keys()
    for name, stage in stages.items():
        assert stage.data.tags["restored"] == "true"
        # A stage that the killed run had finished was restored by its successor already.
        computed = made[name].data.tags.get("restored.from", made[name].info.run_id)
        assert stage.data.tags["restored.from"] == computed
        assert {k: v for k, v in stage.data.metrics.items() if "seconds" not in k} == {
            k: v for k, v in made[name].data.metrics.items() if "seconds" not in k
        }
    assert newest.data.metrics == original.data.metrics


def test_a_stage_that_comes_out_otherwise_than_the_lock_has_it_is_named(ran: Path) -> None:
    lock = ran / "dvc.lock"
    before = lock.read_bytes()
    (curve,) = [
        out["md5"]
        for out in stages_of(ran)["unlearn@nothing"]["outs"]
        if out["path"].endswith("curve.csv")
    ]
    try:
        lock.write_bytes(before.replace(curve.encode(), b"f" * 32))
        output = flow(ran)
        assert "unlearn@nothing came out otherwise than dvc.lock had it, from the same" in output
        assert output.count("came out otherwise") == 1
        assert ", other results': 1" in output
        assert stages_of(ran) == YAML(typ="safe").load(before)["stages"]
    finally:
        lock.write_bytes(before)


def test_one_parameter_reruns_only_what_depends_on_it(ran: Path) -> None:
    before, params = (ran / "dvc.lock").read_bytes(), (ran / "params.yaml").read_bytes()
    try:
        change(ran, {"unlearn": {"imu": {"step": 0.4}}})
        output = run("dvc", "repro", cwd=ran).stdout
        ran_stages = {line.split("'")[1] for line in output.splitlines() if "Running" in line}
        assert ran_stages == {"unlearn@imu", "evaluate@imu", "per_sample@imu", "report"}
        newest = parents(ran)[0]
        assert newest.info.status == "FINISHED"
        assert newest.data.tags["imu.parent"].startswith("dvc-")
        stages = nested(ran, newest.info.run_id)
        assert stages.keys() == lineage.locked_keys(ran).keys()
        assert {n for n, s in stages.items() if "restored" not in s.data.tags} == ran_stages
        assert stages["unlearn@imu"].data.metrics["seconds"] > 0
        assert newest.data.tags["dvc.pipeline_key"] == lineage.pipeline_key(
            lineage.locked_keys(ran)
        )
    finally:
        (ran / "params.yaml").write_bytes(params)
    # What was computed before comes back from DVC's cache.
    assert "is cached - skipping run" in run("dvc", "repro", cwd=ran).stdout
    assert (ran / "dvc.lock").read_bytes() == before


def test_a_fresh_run_elsewhere_agrees_to_the_last_bit(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = make_workspace(tmp_path / "other" / "place")
    run("dvc", "repro", cwd=fresh)
    # The order of the entries is that in which stages ended the first time.
    assert stages_of(fresh) == stages_of(ran)
    # A cold start computes what a warm one does, where outputs lie already.
    monkeypatch.delenv("IMU_WARM")
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
    assert found["runs/evaluate/unlearn/imu/metrics.json"]["data"]["gap"] >= 0
    run("dvc", "plots", "show", cwd=ran)
    page = (ran / "dvc_plots" / "index.html").read_text()
    assert "distance.png" in page
