"""What a few training seeds tell: a mean with its interval, and two models in paired comparison.

Of values x₁ … xₙ, one per seed, with mean x̄ and sample standard deviation s, the 95 % interval is

    x̄ ± t(0.975; n − 1) · s / √n

with the quantile of Student's t. It covers the true mean in 95 % of repetitions where the xᵢ are
independent and normal, for any n ≥ 2 (Student 1908, https://doi.org/10.1093/biomet/6.1.1;
https://www.itl.nist.gov/div898/handbook/eda/section3/eda352.htm). Models of one seed share their
data order and their reference, so two models are compared by the n differences within seeds.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
ROUNDING = 1e-12  # relative; float64 sums of equal numbers in another order differ by less
Outcome = Literal["better", "worse", "equal", "undecided"]


class Estimate(NamedTuple):
    """std: sample standard deviation. It and the interval are None for one seed."""

    mean: float
    n: int
    std: float | None
    interval: tuple[float, float] | None


class Comparison(NamedTuple):
    """difference: of distances, model − yardstick. constant: the same in each of several seeds."""

    difference: Estimate
    outcome: Outcome
    constant: bool


def estimate(values: Sequence[float] | np.ndarray) -> Estimate | None:
    """Mean, spread and 95 % interval over seeds; None where every value is absent (NaN).

    Raises ValueError when some are absent and some are not, or when a value is infinite: a mean
    over the rest would be one over other seeds than its neighbour's.
    """
    x = np.asarray(values, dtype=np.float64)  # (n,)
    if x.ndim != 1 or not len(x):
        raise ValueError(f"values must be a non-empty list, got shape {x.shape}")
    if np.isnan(x).all():
        return None
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).sum()} of {len(x)} values are absent or infinite")
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, 1, None, None)
    std = float(x.std(ddof=1))
    half = critical(len(x)) * std / len(x) ** 0.5
    return Estimate(mean, len(x), std, (mean - half, mean + half))


def compare(
    model: Sequence[float] | np.ndarray, yardstick: Sequence[float] | np.ndarray
) -> Comparison | None:
    """Two models' distances to the reference, seed by seed; the smaller one is better.

    "better" or "worse" where the 95 % interval of the mean difference excludes zero, "equal" where
    the two are the same in every seed, else "undecided". None where a model has no such distance.

    A difference that is not zero and the same in every seed is undecided as well. Its interval is
    a point, so it would exclude zero however small it were; but s = 0 says that the values are
    too coarse to show a spread (one sample more or less is a step of an accuracy), not that there
    is none. By its sign alone such a result has p = 2 · 2⁻ⁿ, 0.25 for three seeds.

    Raises ValueError when the two have another number of seeds, or as ``estimate`` does.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (model, yardstick))
    if a.shape != b.shape:
        raise ValueError(f"differences need the same seeds, got {len(a)} and {len(b)} values")
    if None in (estimate(a), estimate(b)):
        return None
    rounding = ROUNDING * max(np.abs(a).max(), np.abs(b).max())
    differences = a - b
    differences[np.abs(differences) <= rounding] = 0.0
    constant = len(a) > 1 and bool(np.ptp(differences) <= 2 * rounding)
    found = estimate(differences)
    assert found is not None
    return Comparison(found, _outcome(found, differences, constant), constant)


def critical(n: int, comparisons: int = 1) -> float:
    """Half the width of an interval in standard errors, t(1 − 0.05 / 2m; n − 1).

    m = ``comparisons`` > 1 is what Holm's correction (https://www.jstor.org/stable/4615733) asks
    of the clearest of m comparisons.
    """
    if n < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got {n}")
    return float(stats.t.ppf(1 - (1 - LEVEL) / (2 * comparisons), n - 1))


def _outcome(found: Estimate, differences: np.ndarray, constant: bool) -> Outcome:
    if not differences.any():
        return "equal"
    if found.interval is None or constant:
        return "undecided"
    low, high = found.interval
    return "better" if high < 0 else "worse" if low > 0 else "undecided"
