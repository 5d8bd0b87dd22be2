"""Distance to the reference in what is foretold, over all positions and in the worst state.

    KL_S       mean_{i, t} KL(r(· | x_{i,≤t}) ‖ p(· | x_{i,≤t})),  S = forget, retain
    KL_worst_S max_s of the same mean over the positions with x_{i,t} = s

r is the reference, retrained without the forget set, p the model. By state, as a mean hides one
state of ten that is foretold wrongly; r stands first as in SimNPO's program (Fan et al. 2024,
arXiv 2410.07163), which has the mean alone.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Measured
from imu.metrics._foretold import by_state, divergences, lacking

OBJECTIVE = "sequences"
SETS = ("forget", "retain")
ABOUT = {
    **{
        f"KL_{name}": About(
            "distance", "low", "nats", f"divergence from what the reference foretells, {name} set"
        )
        for name in SETS
    },
    **{
        f"KL_worst_{name}": About(
            "distance", "low", "nats", f"as KL_{name}, after that state where it is largest"
        )
        for name in SETS
    },
}


def unmet(asked: Mapping[str, int]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {name: (name.rpartition("_")[2], 1) for name in ABOUT})


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """Every name of ``ABOUT`` in nats, those that are not ``unmet``."""
    found, missing, values = judged.outputs, unmet(judged.outputs.asked), {}
    for name in SETS:
        if f"KL_{name}" not in missing:
            true = np.exp(reference.outputs.log_probabilities[name])
            apart = divergences(true, found.log_probabilities[name])
            values[f"KL_{name}"] = float(apart.mean())
            values[f"KL_worst_{name}"] = max(by_state(apart, found.states[name]).values())
    return values
