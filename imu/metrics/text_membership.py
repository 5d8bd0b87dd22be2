"""Membership attacks on texts: is what was to be forgotten told from texts that no model saw?

AUC in % of telling forget samples from validation samples, whose subjects are new to every model,
by one score of each answer, higher for members: the chance that a forget sample's is higher than a
validation sample's, ties counting half. 50 tells nothing.

    AUC_loss        1/|a| Σ_t log p_t                                        arXiv 1709.01604
    AUC_zlib        the same over the bytes of the zlib-compressed answer    arXiv 2012.07805, 5
    AUC_min_k       mean of the 20 % least log p_t                           arXiv 2310.16789
    AUC_min_k_pp    mean of the 20 % least (log p_t − μ_t) / σ_t             arXiv 2404.02936

p_t is the probability of answer token t after the question and the true tokens before, μ_t and σ_t
are mean and deviation of log p under p itself. Of n tokens ⌈n/5⌉ are the least.
After Yeom et al. 2018, Carlini et al. 2021, Shi et al. 2024 and Zhang et al. 2024, in this order.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from imu.metrics import About
from imu.metrics._said import Asked, Said, lacking

OBJECTIVE = "language"
SHARE = 5  # of the tokens one in so many is looked at
OF = "chance that an attack ranks a forgotten sample above one that no model saw, by"
ABOUT = {
    "AUC_loss": About("membership", "reference", "%", f"{OF} the probability of the answer"),
    "AUC_zlib": About(
        "membership", "reference", "%", f"{OF} that per byte of the compressed answer"
    ),
    "AUC_min_k": About(
        "membership", "reference", "%", f"{OF} the fifth of its tokens that are least probable"
    ),
    "AUC_min_k_pp": About(
        "membership", "reference", "%", f"{OF} the same, beside the other tokens possible there"
    ),
}
MEMBERS, OTHERS = "forget", "validation"


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, dict.fromkeys(ABOUT, ((MEMBERS, "samples", 1), (OTHERS, "samples", 1))))


def measure(said: Said) -> dict[str, float]:
    """{"AUC_loss", "AUC_zlib", "AUC_min_k", "AUC_min_k_pp"}, in %; nothing where ``unmet``."""
    if unmet(said.asked):
        return {}
    both = [scores(said, name) for name in (MEMBERS, OTHERS)]
    return {name: area(both[0][name], both[1][name]) for name in ABOUT}


def scores(said: Said, name: str) -> dict[str, np.ndarray]:
    """Name of the attack -> its score of each sample of a set, (n,)."""
    loss = said.log_probability(name)
    sizes = [len(zlib.compress(answer.encode())) for answer in said.answers[name]]
    return {
        "AUC_loss": loss,
        "AUC_zlib": loss / sizes,
        "AUC_min_k": _least(said.token_log_probabilities[name]),
        "AUC_min_k_pp": _least(said.standardised[name]),
    }


def area(members: np.ndarray, others: np.ndarray) -> float:
    """Chance in % that a member's score is the higher one."""
    above = members[:, None] - others  # (members, others)
    return float(100 * np.heaviside(above, 0.5).mean())


def _least(tokens: np.ndarray) -> np.ndarray:
    found = [np.sort(row[~np.isnan(row)]) for row in tokens]
    return np.array([row[: -(-len(row) // SHARE)].mean() for row in found])
