"""Exact memorisation: the share of an answer's tokens that are the most probable ones.

    EM = 1/|a| Σ_t [argmax_v p(v | q, a_<t) = a_t]

after the true tokens before each, mean over samples, in %. Source: Tirumala et al. 2022, arXiv
2205.10770, equation 1.
"""

from collections.abc import Mapping

from imu.metrics import About
from imu.metrics._said import IN_FULL, Asked, Said, lacking, means

OBJECTIVE = "language"
OF = "share of the true answer's tokens that are the most probable ones, mean over what"
ABOUT = {
    "EM_forget": About("answers", "reference", "%", f"{OF} was to be forgotten"),
    "EM_retain": About("answers", "reference", "%", f"{OF} stays"),
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {f"EM_{name}": ((name, "samples", 1),) for name in IN_FULL})


def measure(said: Said) -> dict[str, float]:
    """{"EM_forget": %, "EM_retain": %}, those that are not ``unmet``."""
    missing = unmet(said.asked)
    return {
        f"EM_{name}": float(100 * means(said.right[name]).mean())
        for name in IN_FULL
        if f"EM_{name}" not in missing
    }
