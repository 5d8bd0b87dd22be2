"""U-LiRA: can an attacker who knows the method tell an unlearned model from one that never saw x?

For one sample x of the forget set, two Gaussians are fitted to the margin of x: f over models that
had x and then unlearned it (judged), n over models that never saw it (oracles). A model with the
margin m has the score

    s = N_f(m) / (N_f(m) + N_n(m)),

and is called unlearned where s > 1/2; a tie counts half. Model i of either side is scored by
Gaussians fitted without model i of both sides. So both fits have as many models and neither has
seen the one in question: two families of equal distribution give 0 on average, however few models
there are.

Margins at or beyond ±100, which a mask and a destroyed network give, enter no Gaussian: a single
one would make it so wide that it hides the others. N is then a mixture of the Gaussian and two
points, each with its share of the models.

"U_LiRA" is the attacker's advantage, 2 · balanced accuracy − 100 in points: 0 is a coin, 100 tells
every model; below 0 is chance. "U_LiRA_score" is 2s − 1, mean over the judged models and samples.
A σ below 0.001 becomes 0.001; "U_LiRA_degenerate" counts the samples where one did, or where fewer
than two margins were left for a Gaussian.
Source: Hayes et al. 2024, arXiv 2403.01218; there the attacker's accuracy is reported.
"""

import numpy as np
from scipy.special import expit

from imu.metrics import About, Family
from imu.metrics._margins import LIMIT, clipped

SMALLEST = 1e-3  # σ: below it, margins of float32 networks differ by rounding

ABOUT = {
    "U_LiRA": About(
        "samples",
        "low",
        "points",
        "advantage over a coin in telling unlearned models from models that never saw the sample",
    ),
    "U_LiRA_score": About(
        "samples",
        "low",
        "",
        "2s − 1 for the mean score s that an unlearned model is called unlearned",
    ),
    "U_LiRA_degenerate": About(
        "samples",
        "low",
        "%",
        "samples on which the models of a side agree, so that its Gaussian is a point",
    ),
}


def over_models(judged: Family, oracles: Family) -> dict[str, float]:
    """Raises ValueError when the sides differ in number or have fewer than three models."""
    ours, theirs = clipped(judged, oracles, "forget")
    if len(ours) != len(theirs):
        raise ValueError(
            f"there must be as many judged models as oracles, got {len(ours)} and {len(theirs)}"
        )
    if len(ours) < 3:
        raise ValueError(f"judged models must be at least 3 to leave one out, got {len(ours)}")
    score, called, other_called, narrow = scored(ours, theirs)
    return {
        "U_LiRA": 100 * float(called.mean() - other_called.mean()),
        "U_LiRA_score": 2 * float(score.mean()) - 1,
        "U_LiRA_degenerate": 100 * float(narrow.any(0).mean()),
    }


def scored(
    judged: np.ndarray, oracles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the attacker makes of every model, each left out once: four arrays (models, n).

    judged, oracles: margins (models, n). Returns the scores of the judged models; how far a judged
    model and how far an oracle is called unlearned (0, 1/2 or 1); where a σ was raised.
    """
    scores, called, other_called, narrow = (np.empty(judged.shape) for _ in range(4))
    for i in range(len(judged)):
        f, n = (_Mixtures(np.delete(side, i, 0)) for side in (judged, oracles))
        ratio = _difference(f.log_density(judged[i]), n.log_density(judged[i]))  # (n,)
        scores[i] = expit(ratio)
        called[i] = np.heaviside(ratio, 0.5)
        ratio = _difference(f.log_density(oracles[i]), n.log_density(oracles[i]))
        other_called[i] = np.heaviside(ratio, 0.5)
        narrow[i] = f.narrow | n.narrow
    return scores, called, other_called, narrow


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """0 where both sides hold a margin for impossible: nothing speaks for either."""
    impossible = np.isneginf(one) & np.isneginf(other)
    return np.subtract(one, other, out=np.zeros_like(one), where=~impossible)


class _Mixtures:
    """Per sample a Gaussian, fitted to margins (models, n), and a point at either limit."""

    def __init__(self, margins: np.ndarray):
        inside = np.abs(margins) < LIMIT  # (models, n)
        count = inside.sum(0)  # (n,)
        self.mean = np.where(inside, margins, 0).sum(0) / np.maximum(count, 1)
        squares = np.where(inside, (margins - self.mean) ** 2, 0).sum(0)
        deviation = np.sqrt(squares / np.maximum(count - 1, 1))
        self.narrow = deviation < SMALLEST
        self.deviation = np.maximum(deviation, SMALLEST)
        with np.errstate(divide="ignore"):  # log 0 = −∞ is meant
            self.log_share = np.log(inside.mean(0))
            self.log_low = np.log((margins <= -LIMIT).mean(0))
            self.log_high = np.log((margins >= LIMIT).mean(0))

    def log_density(self, margins: np.ndarray) -> np.ndarray:
        """Up to a constant, margins at a limit and others each for themselves: (n,)."""
        z = (margins - self.mean) / self.deviation
        gaussian = self.log_share - 0.5 * z**2 - np.log(self.deviation)
        points = np.where(margins < 0, self.log_low, self.log_high)
        return np.where(np.abs(margins) < LIMIT, gaussian, points)
