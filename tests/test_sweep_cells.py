"""Cells of a sweep that run side by side, fail, and are asked for again."""

from pathlib import Path

import pandas as pd
import pytest

from tasks.files.workspace import Workspace
from tasks.tracking.store import Store
from tests.conftest import keep, make_workspace, run

# Two cells at a time, of which one cannot be: its class is none of the digits.
ASKED = """
from flows.running.requests import Forgetting
from flows.sweep import sweep
requests = [Forgetting(forget={"classes": [name]}) for name in ("8", "eight")]
sweep(name="trial", requests=requests, methods=["imu"], seeds=[0], in_flight=2, jobs=1)
"""


@pytest.mark.slow
def test_a_cell_that_fails_is_told_at_the_end_and_the_others_are_not_repeated(
    tmp_path: Path, served: None
) -> None:
    root = make_workspace(tmp_path / "workspace")
    keep(root, {"retrain": ("reference", "retrain_2")})
    first = run("python", "-c", ASKED, cwd=root, check=False)
    assert first.returncode == 1
    assert "1 of 2 cells failed:\ndigits · class eight · seed 0: " in first.stdout
    folder = root / ".cells" / "trial-results"
    page = (folder / "results.md").read_text()
    assert "## class: class 8 (1 seed)" in page
    assert "- digits · class eight · seed 0: " in page
    assert "<td>imu</td>" in (folder / "results.html").read_text()
    assert set(pd.read_csv(folder / "results.csv")["forget"]) == {"class 8"}
    models = {path: path.stat().st_mtime_ns for path in root.glob(".cells/*/runs/**/*.safetensors")}
    again = run("python", "-c", ASKED, cwd=root, check=False)
    assert "epoch " not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert (folder / "results.md").read_text() == page
    group, *_ = Store(Workspace(root)).search("tags.`imu.kind` = 'sweep'")
    nested = Store(Workspace(root)).search(
        f"tags.`mlflow.parentRunId` = '{group.info.run_id}' AND tags.`imu.kind` = 'pipeline'"
    )
    assert "digits · class 8 · seed 0 · again" in {run.info.run_name for run in nested}
    assert group.info.status == "FAILED"
