"""What every distance between two families of margins asks of them."""

import numpy as np

from imu.metrics import Family

LIMIT = 100.0  # a masked class has the margin −1e9 or −∞, which no mean survives


def clipped(judged: Family, oracles: Family, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Margins of one set, within ±LIMIT: two arrays (models, n).

    Raises ValueError when there are no samples, fewer than two models a side, or a margin is NaN.
    """
    both = judged.margins[name], oracles.margins[name]
    for whose, margins in zip(("judged models", "oracles"), both, strict=True):
        if margins.shape[1] == 0:
            raise ValueError(f"there are no samples in the set {name!r}")
        if len(margins) < 2:
            raise ValueError(f"{whose} must be at least 2, got {len(margins)}")
        if np.isnan(margins).any():
            raise ValueError(f"margins of the {whose} on the set {name!r} hold NaN")
    return both[0].clip(-LIMIT, LIMIT), both[1].clip(-LIMIT, LIMIT)
