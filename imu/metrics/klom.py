"""KLoM: per sample, how far unlearned models' margins are from those of models retrained.

For one sample, p and q are histograms of the margin over the judged models and over the oracles,
in 20 equal bins between the smallest and the largest margin of both, and two for the margins at
or beyond ±100; then

    KLoM = Σ_b p_b · log(p_b / max(q_b, 1e-5)).

A mean over the samples of a set; of the forget set also the 95th percentile. Where all margins are
equal, all are in one bin and the divergence is 0. Margins of −∞, which a mask and a destroyed
network give, would as ends of the range put all others in one bin: one destroyed network in 16
would bring a method below what retraining has.

Few models leave bins empty by chance, and each of these costs about log 1e5 / models. So equal
families do not give 0, but, with Gaussian margins, 6.4 nats at 8 models a side, 3.9 at 16, 1.7 at
32, 0.6 at 64. A value means something beside that of as many retrained networks alone; values for
other oracles or other numbers of models cannot be compared. The largest value is 11.5 nats.
Source: Georgiev et al. 2024, arXiv 2410.23232, appendix E.1, and the authors' program. There ±100
are ends of the range, and the models with the largest margin of both families are left out.
"""

import numpy as np

from imu.metrics import About, Family
from imu.metrics._margins import LIMIT, clipped

BINS = 20
SMALLEST = 1e-5  # probability of a bin that no oracle is in
SETS = ("forget", "retain", "validation")

ABOUT = {
    **{
        f"KLoM_{name}": About(
            "samples",
            "low",
            "nats",
            f"divergence of the margins from the oracles', mean over the {name} set",
        )
        for name in SETS
    },
    "KLoM_forget_95": About(
        "samples",
        "low",
        "nats",
        "divergence of the margins from the oracles', 95th percentile over the forget set",
    ),
}


def over_models(judged: Family, oracles: Family) -> dict[str, float]:
    found = {name: divergences(*clipped(judged, oracles, name)) for name in SETS}
    values = {f"KLoM_{name}": float(each.mean()) for name, each in found.items()}
    return values | {"KLoM_forget_95": float(np.percentile(found["forget"], 95))}


def divergences(judged: np.ndarray, oracles: np.ndarray) -> np.ndarray:
    """KLoM of each sample: (n,). judged, oracles: margins (models, n)."""
    both = np.concatenate([judged, oracles])
    inside = np.abs(both) < LIMIT
    low = both.min(0, where=inside, initial=LIMIT)  # (n,)
    high = both.max(0, where=inside, initial=-LIMIT)
    p, q = _histograms(judged, low, high), _histograms(oracles, low, high)
    terms = np.zeros_like(p)
    np.log(p / np.maximum(q, SMALLEST), out=terms, where=p > 0)
    return (p * terms).sum(1)


def _histograms(margins: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Share of the models in each bin, sample by sample: (n, BINS + 2), the limits at the ends."""
    models, n = margins.shape
    widths = np.where(high > low, high - low, 1.0)
    # The largest margin ends the last bin and belongs to it.
    bins = 1 + np.clip((BINS * (margins - low) / widths).astype(int), 0, BINS - 1)  # (models, n)
    bins[margins <= -LIMIT], bins[margins >= LIMIT] = 0, BINS + 1
    counts = np.bincount((bins + (BINS + 2) * np.arange(n)).ravel(), minlength=(BINS + 2) * n)
    return counts.reshape(n, BINS + 2) / models
