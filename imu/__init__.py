"""Influence-guided machine unlearning: make a trained network forget chosen training samples.

Method: IMU, arXiv 2508.01620. The names below are most of what a user needs (``imu.api``);
``imu.methods``, ``imu.influences``, ``imu.metrics`` and ``imu.verdicts`` are what they call. The
pipeline around the library lives in ``tasks`` and ``flows``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imu.api import Unlearned, evaluate, influence, unlearn, verdict
    from imu.objectives import Samples
    from imu.objectives.classification import Classification

__all__ = [
    "Classification",
    "Samples",
    "Unlearned",
    "evaluate",
    "influence",
    "unlearn",
    "verdict",
]


def __getattr__(name: str) -> Any:
    """One of ``__all__``: imported when it is asked for, as torch takes seconds (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from imu import api

    return getattr(api, name)
