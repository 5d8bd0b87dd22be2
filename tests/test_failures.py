"""What a user sees of a run that fails for a reason that we know: the reason."""

import logging
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from flows.running.children import ChildError, reason
from tasks.starting.ending import KILLED
from tests.conftest import change, processes_in, run, with_prefect

# The names of both runs are in the log that Prefect's page shows as well.
IMPOSSIBLE = """
from flows.pipeline import pipeline
from flows.running.requests import Request
for asked in (Request(settings={"train.epoch": 1}), Request(seed=1, settings={"seed": 2})):
    pipeline(request=asked, return_state=True)
"""
NO_CAT = "split.by_class.classes: unknown class 'cat', choose from 0, 1, 2, 3"


@pytest.mark.slow
def test_a_class_that_the_data_lack_is_named_and_no_traceback_is_around_it(
    workspace: Path, prefect_database: Path
) -> None:
    """Also the one run here that starts Prefect's server and stages as a user's does."""
    with_prefect(workspace, prefect_database)
    change(workspace, {"split": {"by_class": {"classes": ["cat"]}}})
    done = run(sys.executable, "-m", "flows.pipeline", cwd=workspace, check=False)
    assert done.returncode == 1
    assert f"pipeline failed: split: {NO_CAT}" in done.stdout
    assert done.stdout.count(NO_CAT) == 3  # by the stage, the flow and the command
    assert "Traceback" not in done.stdout
    assert "View at" not in done.stdout  # a page that ends with the run
    assert not psutil.wait_procs(processes_in(workspace), timeout=20)[1]
    # What Prefect's page shows later: the server has written it down before it ended.
    database = sqlite3.connect(workspace / ".prefect" / "prefect.db")
    with closing(database):
        tasks = database.execute("SELECT name, state_type FROM task_run").fetchall()
        said = "SELECT message FROM flow_run_state WHERE type = 'FAILED'"
        ((why,),) = database.execute(said).fetchall()
    assert f"ChildError: split: {NO_CAT}" in why
    assert tasks == [("split", "FAILED")]


@pytest.mark.slow
def test_runs_that_cannot_be_named_say_why(workspace: Path, served: None) -> None:
    done = run(sys.executable, "-c", IMPOSSIBLE, cwd=workspace)
    for why in (
        "params.yaml has no 'train.epoch' to change",
        "settings repeat seed, which has a field of its own here",
    ):
        assert done.stdout.count(f"Flow run 'not possible' - {why}") == 1


def test_a_stage_that_a_signal_ended_is_not_explained_by_its_last_line() -> None:
    said = (
        "ERROR: failed to reproduce 'train': failed to run: exec python -m tasks train, exited with"
    )
    progress = "epoch 372/4000: loss 0.0364, accuracy 98.75 %"
    assert reason([progress, f"{said} -9"]) == f"{KILLED} SIGKILL"
    assert reason(["train failed: no such class", f"{said} 1"]) == "no such class"
    assert progress in reason([progress, f"{said} 1"])


@pytest.mark.parametrize(
    ("error", "level", "traceback"),
    [
        (ChildError, logging.INFO, False),
        (ChildError, logging.DEBUG, True),
        (KeyError, logging.INFO, True),
    ],
)
def test_a_traceback_is_there_where_it_is_asked_for_or_nobody_knows_the_reason(
    error: type[Exception], level: int, traceback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("prefect.task_runs")
    monkeypatch.setattr(logger, "level", level)
    logger.manager._clear_cache()
    try:
        raise error("50 % is left")
    except error as raised:
        said, where = ("raised: %r", (raised,)), sys.exc_info()
    record = logger.makeRecord(logger.name, logging.ERROR, "", 1, *said, where)
    assert logger.filter(record)
    assert bool(record.exc_info) == traceback
    assert (record.getMessage() == "50 % is left") != traceback
