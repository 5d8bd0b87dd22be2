"""Distance to the reference on the tokens of true answers.

    dP = mean over samples of 1/|a| Σ_t |p(a_t | q, a_<t) − p_ref(a_t | q, a_<t)|

in [0, 1], 0 where both give every true token the same probability. At each token it is at most the
total variation between the two models' distributions, of which it looks at one entry.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Measured
from imu.metrics._said import IN_FULL, Asked, lacking, means

OBJECTIVE = "language"
OF = "mean |p − p of the reference| at the tokens of the true answers about what"
ABOUT = {
    "dP_forget": About("distance", "low", "", f"{OF} was to be forgotten, from 0 to 1"),
    "dP_retain": About("distance", "low", "", f"{OF} stays, from 0 to 1"),
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {f"dP_{name}": ((name, "samples", 1),) for name in IN_FULL})


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"dP_forget", "dP_retain"}, those that are not ``unmet``."""
    missing, values = unmet(judged.outputs.asked), {}
    for name in IN_FULL:
        if f"dP_{name}" not in missing:
            p, q = (np.exp(m.outputs.token_log_probabilities[name]) for m in (judged, reference))
            values[f"dP_{name}"] = float(means(np.abs(p - q)).mean())
    return values
