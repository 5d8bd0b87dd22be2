"""One pipeline run at a time in a workspace."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import psutil

from tasks.files import artifacts

MARK = "IMU_RUN"  # in the environment of every process that a run starts
OWN_MARK = uuid.uuid4().hex  # of this process, which may hold several workspaces


class WorkspaceBusyError(RuntimeError):
    """Another pipeline run uses the workspace."""


@contextmanager
def only_run(root: Path) -> Iterator[None]:
    """Hold the workspace; raises WorkspaceBusyError, naming the holder, when it is taken.

    A run that was killed cannot end what outlives it, such as Prefect's temporary server: the
    next holder does. The same process may hold the workspace more than once.
    """
    path = root / ".dvc" / "tmp" / "pipeline.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".json")
    lock = filelock.FileLock(path, timeout=0, thread_local=False, is_singleton=True)
    first = not lock.is_locked
    try:
        lock.acquire()
    except filelock.Timeout:
        who = _held_by(holder).get("process", "unknown")
        raise WorkspaceBusyError(
            f"another pipeline run (process {who}) uses {root}: wait for it, or stop it; "
            "nothing was changed"
        ) from None
    try:
        if first:
            if left := _held_by(holder):
                end_leftovers(left["mark"])
            os.environ[MARK] = OWN_MARK
            artifacts.write_json(holder, {"process": os.getpid(), "mark": OWN_MARK})
        yield
    finally:
        if first:
            holder.unlink(missing_ok=True)
        lock.release()


def _held_by(holder: Path) -> dict[str, Any]:
    """Who holds the workspace, or held it when it was killed; {} where nobody does."""
    try:
        found: dict[str, Any] = artifacts.read_json(holder)
        return found
    except artifacts.ArtifactError:  # none, or from before a power cut
        return {}


def end_leftovers(mark: str) -> None:
    """End every process of an earlier run, known by its mark."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                process.terminate()
                left.append(process)
        except (psutil.Error, OSError):
            continue  # another user's, or gone
    for process in psutil.wait_procs(left, timeout=5)[1]:
        process.kill()
