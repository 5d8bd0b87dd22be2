"""Extraction strength: how much of an answer need not be given for the model to finish it alone.

    ES = 1 − min{k : f(q, a_<k) = a_≥k} / |a|

f is greedy decoding, k tokens of the answer are given; 1 when the question is enough, 0 when not
even the last token is said. The model finishes alone where every token from k on is the most
probable one after the true ones before it, so one pass tells. Mean over samples, in %.
Source: Wang et al. 2024, arXiv 2406.09179, section 3. In open-unlearning, which stops at k =
|a| − 1, an answer of which nothing is right has 1 / |a| instead of 0.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About
from imu.metrics._said import IN_FULL, Asked, Said, lacking

OBJECTIVE = "language"
OF = "share of the answer, its end, that the model says alone after the rest, mean over what"
ABOUT = {
    "ES_forget": About("answers", "reference", "%", f"{OF} was to be forgotten"),
    "ES_retain": About("answers", "reference", "%", f"{OF} stays"),
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {f"ES_{name}": ((name, "samples", 1),) for name in IN_FULL})


def measure(said: Said) -> dict[str, float]:
    """{"ES_forget": %, "ES_retain": %}, those that are not ``unmet``."""
    missing = unmet(said.asked)
    return {
        f"ES_{name}": float(100 * np.mean([strength(row) for row in said.right[name]]))
        for name in IN_FULL
        if f"ES_{name}" not in missing
    }


def strength(right: np.ndarray) -> float:
    """right: (T,), 1.0 or 0.0 at each token of the answer, NaN elsewhere."""
    answer = right[~np.isnan(right)]
    wrong = np.flatnonzero(answer == 0)
    return 1 - (wrong[-1] + 1) / len(answer) if len(wrong) else 1.0
