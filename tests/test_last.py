"""The last run of a clone, told again where nothing has changed."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.running import last
from tasks.tracking.store import LAST
from tasks.tracking.tracker import Page

PAGE = Page(run="a1", uri="sqlite:///x", link="/#/runs/a1", times={"imu": 0.5})


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone in which a run was whole and logged."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "dvc.lock").write_text("stages: {}")
    (tmp_path / "mlflow").mkdir()
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as database:
        database.execute("CREATE TABLE runs (name)")
    assert last.run(tmp_path) is None
    last.remember(tmp_path, PAGE)
    return tmp_path


def test_it_is_known_where_it_is_shown(told: Path) -> None:
    assert last.run(told) == PAGE


def test_results_of_another_lock_are_not_those_of_the_last_run(told: Path) -> None:
    (told / "dvc.lock").write_text("stages: {split: {}}")
    assert last.run(told) is None


def test_what_mlflow_has_lost_is_logged_again(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert last.run(told) is None
    (told / "mlflow" / "mlflow.db").unlink()
    assert last.run(told) is None


@pytest.mark.parametrize("content", [b"", b"SQLite", b"no database, but as long as one"])
def test_a_file_that_is_no_database_counts_as_lost(told: Path, content: bytes) -> None:
    (told / "mlflow" / "mlflow.db").write_bytes(content)
    assert last.run(told) is None


def test_a_note_of_another_version_counts_for_nothing(told: Path) -> None:
    (told / LAST).write_text('{"page": {"address": "x"}}')
    assert last.run(told) is None


@pytest.mark.parametrize("gone", ["lock", "store", "page"])
def test_a_note_that_lacks_something_counts_for_nothing(told: Path, gone: str) -> None:
    known = json.loads((told / LAST).read_text())
    del known[gone]
    (told / LAST).write_text(json.dumps(known))
    assert last.run(told) is None
