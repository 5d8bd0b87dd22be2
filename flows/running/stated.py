"""Files of settings that a command is given with ``--with``: errors name them."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tasks.files import params

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
    mark = _STATED.set((str(file), changes.keys()))
    try:
        yield changes
    except params.ParameterError as error:
        raise params.ParameterError(named(str(error))) from error
    finally:
        _STATED.reset(mark)


def named(text: str) -> str:
    """``text``; of values that stand in the file it says so, in place of ``params.yaml``."""
    file, paths = _STATED.get()

    def stands(line: str) -> bool:
        path = line.partition(f"{params.FILE}: ")[2].replace(": ", ".")
        return any(re.search(rf"(?<![\w.]){re.escape(known)}\b", path) for known in paths)

    return "\n".join(
        line.replace(params.FILE, file, 1) if stands(line) else line for line in text.split("\n")
    )
