"""Prior divergence: does the model choose among the true and the wrong answers, or answer as one
who never saw the person?

    c_0 = P(a'|q)^(1/|a'|),  c_k = P(w_k|q)^(1/|w_k|),  p = c / Σ c,
    choice   = p_0
    prior_KL = KL(p ‖ uniform) = Σ_k p_k log((K + 1) p_k)

means over the forget samples with wrong answers. choice, in %, is the share of the true answer: by
chance 100 / (K + 1). prior_KL, in nats, is 0 where all K + 1 answers are equally probable and
log(K + 1) where one is certain. a' is the true answer in the form of the wrong ones, as in
``truth_ratio``. Where attributes were drawn uniformly and independently, as in ``biographies``,
uniform is what can be known of a person never seen (Allen-Zhu & Li 2023, arXiv 2309.14316). The
divergence does not ask which answer is chosen: a model that is sure of a wrong one, as retrained
ones often are, is not ignorant either. Probabilities are per token, else short answers would win.
Both are ours.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About
from imu.metrics._said import Asked, Said, lacking

OBJECTIVE = "language"
ABOUT = {
    "choice": About(
        "answers",
        "reference",
        "%",
        "probability of the true answer where it and the wrong ones are all there is to choose "
        "from, forget set",
    ),
    "prior_KL": About(
        "answers",
        "reference",
        "nats",
        "divergence of the choice between the true and the wrong answers, forget set, from a "
        "uniform one: 0 where the model prefers none",
    ),
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, dict.fromkeys(ABOUT, (("forget", "wrong", 1),)))


def measure(said: Said) -> dict[str, float]:
    """{"choice": %, "prior_KL": nats}; nothing where they are ``unmet``."""
    from scipy.special import entr, softmax

    if unmet(said.asked):
        return {}
    candidates = np.column_stack([said.in_form("forget"), said.wrong["forget"]])
    candidates = candidates[np.isfinite(candidates[:, 1:]).any(1)]  # (m, K + 1)
    there = np.isfinite(candidates)
    p = softmax(np.where(there, candidates, -np.inf), axis=1)
    return {
        "choice": float(100 * p[:, 0].mean()),
        "prior_KL": float((np.log(there.sum(1)) - entr(p).sum(1)).mean()),
    }
