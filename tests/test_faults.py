"""Stages that are killed, stopped, or cannot reach MLflow: nothing is lost or half done."""

import signal
import sys
from pathlib import Path

import psutil
import pytest

from flows.running.children import warm
from tasks.files.workspace import Workspace
from tasks.tracking.runs import Tracker
from tests.conftest import change, make_workspace, processes_in, run, started

pytestmark = pytest.mark.slow

# Read by Python at start-up from PYTHONPATH: dies in the middle of writing the model.
DIE_WRITING = """
import os, pathlib, signal
whole = pathlib.Path.replace
def replace(self, target):
    if str(target).endswith("model.safetensors"):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, target)
pathlib.Path.replace = replace
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that was trained without a fault: the hashes to agree with."""
    root = make_workspace(tmp_path_factory.mktemp("faults") / "workspace")
    run("dvc", "repro", "train", cwd=root)
    return root


def runs(root: Path, name: str) -> list:
    return Tracker(Workspace(root))._search(f"tags.`dvc.stage` = '{name}'")


@pytest.mark.parametrize(("victim", "start"), [("stage", "warm"), ("dvc", "warm"), ("dvc", "cold")])
def test_kill_during_training(
    workspace: Path, trained: Path, victim: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("dvc", "repro", "split", cwd=workspace)
    before = (workspace / "params.yaml").read_bytes()
    change(workspace, {"train": {"epochs": 2000}})
    with monkeypatch.context() as patch:
        if start == "cold":
            patch.delenv("IMU_WARM")
        process = started(workspace, "dvc", "repro", "train", until="epoch 2/2000")
    stages = processes_in(workspace, "tasks")
    assert stages
    if victim == "stage":
        for stage in stages:
            stage.kill()
    else:
        process.kill()
    _, alive = psutil.wait_procs(stages, timeout=20)
    assert not alive, f"left behind: {alive}"
    assert process.wait(timeout=20) != 0
    assert not (workspace / "runs" / "train" / "model.safetensors").exists()
    (workspace / "params.yaml").write_bytes(before)
    run("dvc", "repro", "train", cwd=workspace)
    assert (workspace / "dvc.lock").read_bytes() == (trained / "dvc.lock").read_bytes()


def test_kill_during_a_write(
    workspace: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("dvc", "repro", "split", cwd=workspace)
    (tmp_path / "sitecustomize.py").write_text(DIE_WRITING)
    with monkeypatch.context() as patch:
        patch.delenv("IMU_WARM")  # a warm start has read what Python reads at its start
        done = run("dvc", "repro", "train", cwd=workspace, check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    folder = workspace / "runs" / "train"
    assert not (folder / "model.safetensors").exists()
    assert list(folder.glob(".model.safetensors.*"))
    run("dvc", "repro", "train", cwd=workspace)
    assert (workspace / "dvc.lock").read_bytes() == (trained / "dvc.lock").read_bytes()
    assert not list(folder.glob(".model.safetensors.*"))


def test_a_stopped_stage_is_closed_in_mlflow(workspace: Path) -> None:
    change(workspace, {"train": {"epochs": 2000}})
    run("dvc", "repro", "split", cwd=workspace)
    process = started(workspace, sys.executable, "-m", "tasks", "train", until="epoch 2/2000")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    (stopped,) = runs(workspace, "train")
    assert stopped.info.status == "KILLED"


def test_a_failed_stage_is_closed_with_its_reason(workspace: Path) -> None:
    change(workspace, {"train": {"learning_rate": 1e30}})
    run("dvc", "repro", "train", cwd=workspace, check=False)
    (failed,) = runs(workspace, "train")
    assert failed.info.status == "FAILED"
    assert "training loss is nan in epoch 1, step" in failed.data.tags["reason"]
    assert not (workspace / "runs" / "train" / "model.safetensors").exists()


def test_results_stay_when_mlflow_is_unreachable_and_are_logged_later(
    workspace: Path, trained: Path
) -> None:
    run("dvc", "repro", "split", cwd=workspace)
    away = {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    done = run("dvc", "repro", "train", cwd=workspace, check=False, **away)
    assert done.returncode != 0
    assert "MLflow at http://127.0.0.1:9 failed" in done.stdout
    assert "The results of train are complete in" in done.stdout
    remedy = "python -m tasks log train && dvc commit -f train"
    assert remedy in done.stdout
    assert (workspace / "runs" / "train" / "model.safetensors").exists()
    run("bash", "-c", remedy, cwd=workspace)
    assert (workspace / "dvc.lock").read_bytes() == (trained / "dvc.lock").read_bytes()
    assert "didn't change" in run("dvc", "repro", "train", cwd=workspace).stdout
    (logged,) = runs(workspace, "train")
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["test_accuracy"] > 0


def test_outputs_of_other_parameters_are_not_logged_later(trained: Path) -> None:
    before = (trained / "params.yaml").read_bytes()
    try:
        change(trained, {"train": {"epochs": 4}})
        done = run("python", "-m", "tasks", "log", "train", cwd=trained, check=False)
        assert done.returncode == 1
        assert "computed from other code, data or parameters" in done.stdout
    finally:
        (trained / "params.yaml").write_bytes(before)


def test_the_flow_stops_at_once_when_mlflow_is_unreachable(workspace: Path) -> None:
    done = run(
        "python", "-m", "tasks", "open", cwd=workspace, check=False,
        MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )  # fmt: skip
    assert done.returncode == 1
    assert "open failed: MLflow at http://127.0.0.1:9 failed" in done.stdout


def test_two_dvc_runs_at_once(workspace: Path) -> None:
    before = (workspace / "params.yaml").read_bytes()
    change(workspace, {"train": {"epochs": 2000}})
    first = started(workspace, "dvc", "repro", "train", until="epoch 2/2000")
    second = run("dvc", "repro", "train", cwd=workspace, check=False)
    assert second.returncode != 0
    assert "is busy" in second.stdout
    stages = processes_in(workspace, "tasks")
    first.terminate()
    first.wait(timeout=20)
    assert not psutil.wait_procs(stages, timeout=20)[1]
    (workspace / "params.yaml").write_bytes(before)
    run("dvc", "repro", "train", cwd=workspace)


def test_stages_end_with_the_process_that_starts_them_warm(workspace: Path) -> None:
    change(workspace, {"train": {"epochs": 2000}})
    run("dvc", "repro", "split", cwd=workspace)
    with warm(workspace) as environment:
        process = started(
            workspace, sys.executable, "-m", "tasks", "train", until="epoch 2/2000", **environment
        )
        stages = processes_in(workspace, "tasks")
    assert process.wait(timeout=20) == 1
    _, alive = psutil.wait_procs(stages, timeout=20)
    assert not alive


def test_without_a_warm_start_stages_start_cold(workspace: Path) -> None:
    done = run("python", "-m", "tasks", "key", cwd=workspace, IMU_WARM="/nowhere/warm")
    assert "no warm start at /nowhere/warm: starting cold" in done.stdout
