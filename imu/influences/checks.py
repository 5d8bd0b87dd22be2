"""What every form of influence insists on."""

from math import inf
from typing import NoReturn

from torch import Tensor


def check(samples: int, damping: float) -> None:
    """Raises ValueError for an empty set or a damping that is not > 0."""
    if samples == 0:
        raise ValueError("the forget set is empty: influence needs at least one sample")
    if not 0 < damping < inf:
        raise ValueError(f"damping must be > 0, got {damping}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError when ``value`` is not one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_share(name: str, value: float) -> None:
    """Raises ValueError when ``value`` is not in (0, 1]."""
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {value}")


def finite(scores: Tensor) -> Tensor:
    """The scores (n,); FloatingPointError names the first sample whose score is not finite."""
    if not scores.isfinite().all():
        first = int((~scores.isfinite()).nonzero()[0])
        raise FloatingPointError(f"influence of sample {first} is {scores[first].item()}")
    return scores


def raise_for(sizes: Tensor) -> NoReturn:
    """FloatingPointError that names the sample to blame, given every |g_i|² (n,)."""
    bad = (~sizes.isfinite()).nonzero()
    worst = int(bad[0] if len(bad) else sizes.argmax())
    raise FloatingPointError(
        f"influence of sample {worst} is nan: its squared gradient is not finite"
    )
