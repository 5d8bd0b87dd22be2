"""What every form of influence insists on."""

from typing import NoReturn

from torch import Tensor

from imu.bounds import require


def check(samples: int, damping: float) -> None:
    """Raises ValueError for an empty set or a damping that is not > 0."""
    if samples == 0:
        raise ValueError("the forget set is empty: influence needs at least one sample")
    require("damping", damping, "> 0")


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
