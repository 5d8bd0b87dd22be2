"""Where the values stand that a run has in place of those of ``params.yaml``: errors name that."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tasks.files import params

REQUEST = "the request"  # of a form, or of a sweep
_STATED: ContextVar[tuple[str, Collection[str]]] = ContextVar("stated", default=("", ()))


@contextmanager
def stated_in(file: Path | None) -> Iterator[dict[str, Any]]:
    """What ``file`` changes of ``params.yaml``, by dotted path; errors about it in this block name
    the file. None: nothing.
    """
    if file is None:
        yield {}
        return
    changes = params.read_changes(Path.cwd(), file, str(file))
    with stated(changes, str(file)):
        yield changes


@contextmanager
def stated(paths: Collection[str], where: str = REQUEST) -> Iterator[None]:
    """Errors about ``paths`` in this block name ``where``, or what a block around it says."""
    around = _STATED.get()
    mark = _STATED.set(around if around[0] else (where, paths))
    try:
        yield
    except params.ParameterError as error:
        raise params.ParameterError(named(str(error))) from error
    finally:
        _STATED.reset(mark)


def named(text: str) -> str:
    """``text``; in lines about values that stand elsewhere it says where in place of FILE."""
    where, paths = _STATED.get()

    def stands(line: str) -> bool:
        path = line.partition(f"{params.FILE}: ")[2].replace(": ", ".")
        return any(re.search(rf"(?<![\w.]){re.escape(known)}\b", path) for known in paths)

    return "\n".join(
        line.replace(params.FILE, where, 1) if stands(line) else line for line in text.split("\n")
    )
