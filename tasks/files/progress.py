"""How far a stage is and how long it took. It lies beside the outputs, which are reproducible.

``runs/.progress/<stage>/<item>.csv`` grows by a line with every step of a stage that has steps;
``….json`` is written when the stage has ended: its seconds, and of which output they are, so that
times of an older output are never taken for those of this one.
"""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.files import artifacts
from tasks.files.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd


class Progress:
    """The lines of a stage that runs; ``columns`` begin with the one that counts."""

    def __init__(self, workspace: Workspace, producer: str, columns: Sequence[str]):
        self._file = _path(workspace, producer, "csv")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._columns = list(columns)
        with self._file.open("w", newline="") as file:
            csv.writer(file).writerow(self._columns)

    def add(self, *values: float) -> None:
        """One line, there to be read at once."""
        with self._file.open("a", newline="") as file:
            csv.writer(file).writerow(values)


def read(workspace: Workspace, producer: str, since: float = 0.0) -> "pd.DataFrame | None":
    """The lines so far; None where there are none, or none after ``since``, a time of the clock."""
    path = _path(workspace, producer, "csv")
    if not path.is_file() or path.stat().st_mtime < since:
        return None
    import io

    import pandas as pd

    whole, _, _ = path.read_text().rpartition("\n")  # the last line may be half written
    return pd.read_csv(io.StringIO(whole)) if whole.count("\n") else None


def ended(
    workspace: Workspace, producer: str, *, seconds: float | None, process_seconds: float
) -> None:
    """Note that a stage has ended. seconds: of what it computes, without reading and writing."""
    artifacts.write_json(
        _path(workspace, producer, "json"),
        {
            "seconds": seconds,
            "process_seconds": process_seconds,
            "output": _digest(workspace, producer),
            "lines": _sha256(_path(workspace, producer, "csv")),
        },
    )


def when_ended(workspace: Workspace, producer: str) -> int:
    """A number that differs after the stage has run again; 0 where it never ran here."""
    path = _path(workspace, producer, "json")
    return path.stat().st_mtime_ns if path.is_file() else 0


def took(workspace: Workspace, producer: str) -> dict[str, float]:
    """Seconds of the output that lies here; {} where it was made elsewhere."""
    path = _path(workspace, producer, "json")
    if not path.is_file():
        return {}
    found: dict[str, Any] = artifacts.read_json(path)
    output, _ = found.pop("output"), found.pop("lines")
    if output is None or output != _digest(workspace, producer):
        return {}
    return {name: value for name, value in found.items() if value is not None}


def course(workspace: Workspace, producer: str) -> "pd.DataFrame | None":
    """The lines of the output that lies here; None where they are of another try."""
    path = _path(workspace, producer, "json")
    if not took(workspace, producer):
        return None
    whole = artifacts.read_json(path)["lines"] == _sha256(_path(workspace, producer, "csv"))
    return read(workspace, producer) if whole else None


def _digest(workspace: Workspace, producer: str) -> str | None:
    """SHA-256 of a stage's model or table of influence; None where it makes neither."""
    path = workspace.influence if producer == "influence" else workspace.model(producer)
    return _sha256(path)


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _path(workspace: Workspace, producer: str, suffix: str) -> Path:
    return workspace.runs / ".progress" / f"{producer}.{suffix}"
