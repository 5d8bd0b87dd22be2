"""One pipeline run at a time in a workspace."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock


class WorkspaceBusyError(RuntimeError):
    """Another pipeline run uses the workspace."""


@contextmanager
def only_run(root: Path) -> Iterator[None]:
    """Hold the workspace; raises WorkspaceBusyError, naming the holder, when it is taken.

    The same process may hold the workspace more than once. A folder that was not there before goes
    again where nothing was put into it.
    """
    new = not root.exists()
    path = root / ".dvc" / "tmp" / "pipeline.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".pid")
    lock = filelock.FileLock(path, timeout=0, thread_local=False, is_singleton=True)
    try:
        lock.acquire()
    except filelock.Timeout:
        who = holder.read_text() if holder.is_file() else "unknown"
        raise WorkspaceBusyError(
            f"another pipeline run (process {who}) uses {root}: wait for it, or stop it; "
            "nothing was changed"
        ) from None
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()
        if new and {*root.rglob("*")} == {path.parents[1], path.parent, path, holder}:
            shutil.rmtree(root)
