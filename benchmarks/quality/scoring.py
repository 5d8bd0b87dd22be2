"""Estimators against the truth, with intervals: a table of one row per setting and estimator.

    Spearman   rank correlation with memorisation over the training samples
    AUC        of telling flipped labels from others
    LDS        linear datamodeling score (Park et al. 2023, arXiv 2303.14186, section 2): rank
               correlation, over the networks k of the truth, of the margin of a query with what
               the training part S_k is said to be worth to it, Σ_{i in S_k} s_iq; mean over queries

Intervals are from the bootstrap: samples, or queries, and networks are drawn again together
(Efron & Tibshirani 1993, chapter 13, percentiles). Networks that are drawn twice make the truth
noisier and every correlation with it smaller, so the draws are moved to have the mean that was
measured.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from benchmarks.quality.truth import Setting, Truth

DRAWS = 200
YARDSTICK = "loss"
Found = dict[str, np.ndarray]  # what is kept of one network, by kind and name


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Share of pairs in which the positive one has the larger score (Mann & Whitney)."""
    k = positive.sum()
    above = rankdata(scores)[positive].sum() - k * (k + 1) / 2
    return float(above / (k * (len(scores) - k)))


def interval(draws: list[float], measured: float) -> tuple[float, float]:
    low, high = np.percentile(draws, (2.5, 97.5)) - np.mean(draws) + measured
    return float(low), float(high)


def ceiling(truth: Truth, *, of_margin: bool) -> float:
    """What a perfect estimator would reach: the root of the truth's reliability.

    That is 2r / (1 + r) of the correlation r of two halves (Spearman & Brown), mean of 20.
    """
    draw, found = np.random.default_rng(0), []
    for _ in range(20):
        order = draw.permutation(len(truth.margins))
        half = len(order) // 2
        one, other = (
            truth.of(part).memorisation(of_margin=of_margin)
            for part in (order[:half], order[half:])
        )
        known = np.isfinite(one) & np.isfinite(other)
        found.append(spearman(one[known], other[known]))
    r = max(float(np.mean(found)), 0.0)
    return float((2 * r / (1 + r)) ** 0.5)


def agreement(
    truth: Truth, together: np.ndarray, scores: dict[str, list[np.ndarray]], *, of_margin: bool
) -> dict[str, dict[str, float]]:
    """Estimator -> Spearman, its interval, and that of the difference to the yardstick's.

    scores: by estimator and network (n,). The same draws for all, of samples that belong
    ``together`` all or none.
    """
    places = [np.flatnonzero(together == one) for one in np.unique(together)]
    draw = np.random.default_rng(1)
    whole = truth.memorisation(of_margin=of_margin)
    known = np.isfinite(whole)
    point = {
        name: float(np.mean([spearman(each[known], whole[known]) for each in of]))
        for name, of in scores.items()
    }
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    for number in range(DRAWS):
        part = truth.of(draw.integers(0, len(truth.margins), len(truth.margins)))
        again = part.memorisation(of_margin=of_margin)
        rows = np.concatenate([places[k] for k in draw.integers(0, len(places), len(places))])
        rows = rows[np.isfinite(again[rows])]
        # The networks that are estimated take turns.
        said = np.stack([of[number % len(of)][rows] for of in scores.values()], 1)
        ranks, right = rankdata(said, axis=0), rankdata(again[rows])[:, None]
        every = _correlations(ranks, np.broadcast_to(right, ranks.shape), np.ones(len(rows)))
        for name, value in zip(scores, every.tolist(), strict=True):
            drawn[name].append(value)
    found = {}
    for name, value in point.items():
        low, high = interval(drawn[name], value)
        apart = np.subtract(drawn[name], drawn[YARDSTICK]).tolist()
        worse, better = interval(apart, value - point[YARDSTICK])
        found[name] = {
            "value": value,
            "low": low,
            "high": high,
            "over": value - point[YARDSTICK],
            "over_low": worse,
            "over_high": better,
        }
    return found


def flips(wrong: np.ndarray, scores: dict[str, list[np.ndarray]]) -> dict[str, dict[str, float]]:
    draw, n, found = np.random.default_rng(3), len(wrong), {}
    draws = [draw.integers(0, n, n) for _ in range(DRAWS)]
    for name, of in scores.items():
        value = float(np.mean([auc(each, wrong) for each in of]))
        again = [float(np.mean([auc(each[at], wrong[at]) for each in of])) for at in draws]
        low, high = interval(again, value)
        found[name] = {"value": value, "low": low, "high": high}
    return found


def datamodels(truth: Truth, pairs: dict[str, list[np.ndarray]]) -> dict[str, dict[str, float]]:
    """pairs: by estimator and network (n, m)."""
    parts = truth.with_it.astype(float)  # (k, n)
    right = rankdata(truth.asked, axis=0)  # (k, m)
    ranks = {
        name: [rankdata(parts @ each, axis=0) for each in of]  # (k, m)
        for name, of in pairs.items()
    }
    draw = np.random.default_rng(2)
    k, m = right.shape
    found = {}
    draws = [
        (np.bincount(draw.integers(0, k, k), minlength=k), draw.integers(0, m, m))
        for _ in range(DRAWS)
    ]
    for name, of in ranks.items():
        value = float(np.mean([_correlations(each, right, np.ones(k)).mean() for each in of]))
        again = [
            float(np.mean([_correlations(each[:, q], right[:, q], w).mean() for each in of]))
            for w, q in draws
        ]
        low, high = interval(again, value)
        found[name] = {"value": value, "low": low, "high": high}
    return found


def _correlations(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's, column by column, of rows with weights: (m,)."""
    share = (weights / weights.sum())[:, None]
    a, b = (x - (share * x).sum(0) for x in (one, other))
    spread = ((share * a * a).sum(0) * (share * b * b).sum(0)) ** 0.5
    return np.divide((share * a * b).sum(0), spread, out=np.zeros(len(spread)), where=spread > 0)


def scored(
    setting: Setting, truth: Truth, wrong: np.ndarray, together: np.ndarray, estimates: list[Found]
) -> pd.DataFrame:
    """estimates: of several networks, see ``estimators.estimated``."""

    def of(kind: str) -> dict[str, list[np.ndarray]]:
        start = f"{kind}/"
        # Those that were asked of all networks.
        names = [n for n in estimates[0] if n.startswith(start) and all(n in e for e in estimates)]
        return {name.removeprefix(start): [e[name] for e in estimates] for name in names}

    samples, pairs = of("samples"), of("pairs")
    measured = {
        "memorisation": agreement(truth, together, samples, of_margin=False),
        "memorisation of margin": agreement(truth, together, samples, of_margin=True),
        "LDS": datamodels(truth, pairs),
    }
    if wrong.any():
        measured["flipped, AUC"] = flips(wrong, samples)
    rows = []
    for measure, found in measured.items():
        for name, values in found.items():
            kind = "pairs" if measure == "LDS" else "samples"
            seconds = float(np.mean([e[f"seconds/{kind}/{name}"] for e in estimates]))
            about = {"setting": setting.name, "measure": measure, "name": name}
            rows.append(about | values | {"seconds": seconds, "networks": len(estimates)})
    for measure, of_margin in (("memorisation", False), ("memorisation of margin", True)):
        reached = ceiling(truth, of_margin=of_margin)
        about = {"setting": setting.name, "measure": measure, "name": "ceiling"}
        rows.append(about | {"value": reached})
    return pd.DataFrame(rows)
