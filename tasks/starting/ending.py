"""A process that ends with the one that started it."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
FAILED = " failed: "  # in the line in which a stage says why it ended
KILLED = "ended by signal"  # so begins that reason where the stage could say nothing


def end_with_parent() -> None:
    """End cleanly on SIGTERM, and receive it when the process that started this one dies.

    Without it a stage outlives a killed DVC and goes on writing beside its successor.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
