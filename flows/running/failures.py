"""Failures that explain themselves: their message is shown, once, not where they were raised.

Prefect logs a traceback for every exception, once for the task, for each flow around it and for the
process. Around the one line that says what to do they are all that a reader sees.
"""

import logging

from flows.running.cells import CommitError, LinkError
from flows.running.children import ChildError
from flows.running.holding import WorkspaceBusyError
from tasks.erasing import ErasureError
from tasks.files.artifacts import ArtifactError
from tasks.files.params import ParameterError
from tasks.graph.lock import LockError
from tasks.tracking.store import TrackingError


class UnchangedError(RuntimeError):
    """A request was to be served by the model that was to forget."""


EXPLAINED = (
    ArtifactError,
    ChildError,
    CommitError,
    LinkError,
    ErasureError,
    LockError,
    ParameterError,
    TrackingError,
    UnchangedError,
    WorkspaceBusyError,
)
# Through these Prefect tells what a flow, a task and the process of a run raised.
LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


def say_plainly() -> None:
    """Have Prefect log such failures as their message alone.

    PREFECT_LOGGING_LEVEL=DEBUG has it log them as it usually does.
    """
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_plain)


def _plain(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
        return True
    if isinstance(error, EXPLAINED):
        record.msg, record.args, record.exc_info = str(error), (), None
    # The line before has said why.
    return not record.getMessage().startswith("Finished in state Failed(")
