"""Stages that are killed, stopped, or cannot reach MLflow: nothing is lost or half done."""

import logging
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tasks.files.workspace import Workspace
from tasks.starting.warm import LINK
from tasks.tracking.store import Store, address
from tests.conftest import change, make_workspace, processes_in, run, start_cold, started

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


@pytest.mark.long
@pytest.mark.parametrize(("victim", "start"), [("stage", "warm"), ("dvc", "warm"), ("dvc", "cold")])
def test_kill_during_training(workspace: Path, trained: Path, victim: str, start: str) -> None:
    run("dvc", "repro", "split", cwd=workspace)
    before = (workspace / "params.yaml").read_bytes()
    change(workspace, {"train": {"epochs": 2000}})
    if start == "cold":
        start_cold(workspace)
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


def test_kill_during_a_write(workspace: Path, trained: Path, tmp_path: Path) -> None:
    run("dvc", "repro", "split", cwd=workspace)
    (tmp_path / "sitecustomize.py").write_text(DIE_WRITING)
    start_cold(workspace)  # a warm start has read what Python reads at its start
    done = run("dvc", "repro", "train", cwd=workspace, check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    folder = workspace / "runs" / "train"
    assert not (folder / "model.safetensors").exists()
    assert list(folder.glob(".model.safetensors.*"))
    run("dvc", "repro", "train", cwd=workspace)
    assert (workspace / "dvc.lock").read_bytes() == (trained / "dvc.lock").read_bytes()
    assert not list(folder.glob(".model.safetensors.*"))


@pytest.mark.long
def test_a_stopped_stage_ends_at_once(workspace: Path) -> None:
    change(workspace, {"train": {"epochs": 2000}})
    run("dvc", "repro", "split", cwd=workspace)
    process = started(workspace, sys.executable, "-m", "tasks", "train", until="epoch 2/2000")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert (
        "train failed: ended by signal SIGTERM"
        in (workspace.parent / f"{workspace.name}.log").read_text()
    )


def test_a_failed_run_is_closed_with_its_reason(workspace: Path, served: None) -> None:
    change(workspace, {"train": {"learning_rate": 1e30}})
    done = run(sys.executable, "-m", "flows.pipeline", cwd=workspace, check=False)
    assert done.returncode == 1
    (failed,) = Store(Workspace(workspace)).search("tags.`imu.kind` = 'pipeline'")
    assert failed.info.status == "FAILED"
    assert "training loss is nan in epoch 1, step" in failed.data.tags["reason"]
    assert not (workspace / "runs" / "train" / "model.safetensors").exists()


AWAY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def test_results_stay_when_mlflow_is_unreachable_and_are_logged_later(trained: Path) -> None:
    run("dvc", "repro", "report", cwd=trained)
    done = run("dvc", "repro", cwd=trained, check=False, **AWAY)
    assert done.returncode != 0
    assert "track failed: MLflow at http://127.0.0.1:9 failed" in done.stdout
    run("dvc", "repro", cwd=trained)
    (logged,) = Store(Workspace(trained)).search("tags.`imu.kind` = 'pipeline'")
    assert logged.info.status == "FINISHED"
    assert "didn't change" in run("dvc", "repro", cwd=trained).stdout


@pytest.mark.long
def test_an_experiment_in_a_folder_of_its_own_is_logged_where_its_clone_is(
    trained: Path, tmp_path: Path
) -> None:
    run("dvc", "repro", "report", cwd=trained)
    # As `dvc exp run --temp` sets them.
    experiment = {"DVC_ROOT": str(tmp_path), "DVC_EXP_NAME": "sunny-digs"}
    run(sys.executable, "-m", "tasks", "track", cwd=trained, **experiment)
    (logged,) = Store(Workspace(trained), address(tmp_path)).search("tags.`imu.kind` = 'pipeline'")
    assert logged.data.tags["dvc.experiment"] == "sunny-digs"


def test_a_flow_that_loses_mlflow_goes_on_and_says_how_to_log_later(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.running import tracking
    from tasks.graph.stages import Stage
    from tasks.tracking.store import TrackingError
    from tasks.tracking.tracker import Context, Tracker

    monkeypatch.setattr(tracking, "get_run_logger", lambda: logging.getLogger())
    filled = tracking.Tracking(Workspace(workspace), Context())

    def lost(*_: object) -> None:
        raise TrackingError("MLflow at x failed: it is away")

    monkeypatch.setattr(Tracker, "ended", lost)
    filled.ended(Stage("split", None, frozenset(), ""))
    with pytest.raises(TrackingError, match=r"it is away(.|\n)*log them with `dvc repro track`"):
        filled.finish({"split"})


def test_a_flow_stops_at_once_when_mlflow_is_unreachable(workspace: Path) -> None:
    from tasks.tracking.store import Store, TrackingError

    with pytest.raises(TrackingError, match=r"MLflow at http://127\.0\.0\.1:9 failed"):
        Store(Workspace(workspace), AWAY["MLFLOW_TRACKING_URI"])


@pytest.mark.parametrize(
    ("said", "way_out"),
    [
        ("autoflush\n(sqlite3.OperationalError) database or disk is full\n[SQL]", "make room"),
        ("[Errno 28] No space left on device: 'x'", "make room"),
        ("(sqlite3.DatabaseError) file is not a database", "move that file away"),
        ("(sqlite3.DatabaseError) database disk image is malformed", "move that file away"),
        ("(sqlite3.OperationalError) no such table: runs\n[SQL]", ""),
    ],
)
def test_an_error_of_mlflow_s_database_says_what_to_do(said: str, way_out: str) -> None:
    from tasks.tracking.store import Store, TrackingError

    store = Store.__new__(Store)  # no database is made: that takes seconds
    store.uri = "sqlite:///mlflow.db"
    with pytest.raises(TrackingError) as caught, store.reaching():
        raise RuntimeError(said)
    cause, _, advice = str(caught.value).partition(". The ")
    assert cause.split("RuntimeError: ")[1] in said
    assert "autoflush" not in cause
    assert way_out in advice
    assert bool(way_out) == bool(advice)


@pytest.mark.long
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


@pytest.mark.long
def test_stages_end_with_the_process_that_starts_them_warm(workspace: Path) -> None:
    from flows.running.children import warm

    change(workspace, {"train": {"epochs": 2000}})
    run("dvc", "repro", "split", cwd=workspace)
    with warm(workspace):
        process = started(workspace, sys.executable, "-m", "tasks", "train", until="epoch 2/2000")
        stages = processes_in(workspace, "tasks")
    assert process.wait(timeout=20) == 1
    _, alive = psutil.wait_procs(stages, timeout=20)
    assert not alive


def test_where_nothing_starts_stages_warm_they_start_cold(workspace: Path) -> None:
    run("dvc", "repro", "split", cwd=workspace)
    (workspace / LINK).unlink()
    (workspace / LINK).symlink_to("/nowhere/warm")
    assert len(run("python", "-m", "tasks", "key", cwd=workspace).stdout.strip()) == 64
