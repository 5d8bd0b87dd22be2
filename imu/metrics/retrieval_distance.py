"""How differently two models find the same queries: mean |AP − AP of the reference|, in [0, 1].

Paired by query, so that a model does not pass that finds some of the forgotten better than
retraining leaves them and others worse. Groups and AP as in ``retrieval``.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Measured
from imu.metrics.retrieval import GROUPS, lacking

OBJECTIVE = "identification"
ABOUT = {
    f"dAP_{group}": About(
        "distance", "low", "", f"mean difference of average precision to the reference's; {queries}"
    )
    for group, queries in GROUPS.items()
}


def unmet(labels: Mapping[str, np.ndarray], forget_classes: tuple[int, ...]) -> dict[str, str]:
    """Name -> why it cannot be measured; labels as in ``retrieval.unmet``."""
    return {f"dAP_{group}": why for group, why in lacking(labels, forget_classes).items()}


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """The mean over the queries that the gallery answers, of every group that has some."""
    one, other = judged.outputs.searches, reference.outputs.searches
    return {
        f"dAP_{group}": float(np.nanmean(np.abs(ranked.precision - other[group].precision)))
        for group, ranked in one.items()
    }
