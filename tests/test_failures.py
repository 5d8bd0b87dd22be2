"""What a user sees of a run that fails for a reason that we know: the reason."""

import logging
import sys
from pathlib import Path

import pytest

from flows.children import ChildError
from tests.conftest import change, run

# The names of both runs are in the log that Prefect's page shows as well.
ASKED = """
from flows.pipeline import pipeline
from flows.requests import Request
pipeline(request=Request(%s))
"""
NO_CAT = "split failed: split.by_class.classes: unknown class 'cat', choose from 0, 1, 2, 3"


@pytest.mark.slow
def test_a_class_that_the_data_lack_is_named_and_no_traceback_is_around_it(workspace: Path) -> None:
    run("prefect", "server", "database", "upgrade", "-y", cwd=workspace)
    change(workspace, {"split": {"by_class": {"classes": ["cat"]}}})
    done = run(sys.executable, "-m", "flows.pipeline", cwd=workspace, check=False)
    assert done.returncode == 1
    assert f"pipeline failed: split: {NO_CAT}" in done.stdout
    # What Prefect's page says.
    assert f'Failed("Flow run encountered an exception: ChildError: split: {NO_CAT}' in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ('settings={"train.epoch": 1}', "params.yaml has no 'train.epoch' to change"),
        ('classes=["3"]', "classes belongs to the scenario class"),
    ],
)
def test_a_run_that_cannot_be_named_says_why(workspace: Path, asked: str, why: str) -> None:
    done = run(sys.executable, "-c", ASKED % asked, cwd=workspace, check=False)
    assert f"Flow run 'not possible' - {why}" in done.stdout
    assert "Finished in state Failed(" in done.stdout


@pytest.mark.parametrize(
    ("error", "wanted", "traceback"),
    [(ChildError, "", False), (ChildError, "1", True), (KeyError, "", True)],
)
def test_a_traceback_is_there_where_it_is_asked_for_or_nobody_knows_the_reason(
    error: type[Exception], wanted: str, traceback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMU_TRACEBACK", wanted)
    logger = logging.getLogger("prefect.task_runs")
    try:
        raise error("50 % is left")
    except error as raised:
        said, where = ("raised: %r", (raised,)), sys.exc_info()
    record = logger.makeRecord("x", logging.ERROR, "", 1, *said, where)
    assert logger.filter(record)
    assert bool(record.exc_info) == traceback
    assert (record.getMessage() == "50 % is left") != traceback
