"""PrivLeak: the membership attack by Min-K %, beside the reference's, in %.

    PrivLeak = 100 · (U − U_ref) / U_ref,    U = 1 − AUC_min_k / 100

U is the chance that a forgotten sample looks *less* like a member than one that no model saw. Below
0 too little was forgotten; above it too much, which gives samples away as well, or the model
collapsed. U_ref is at least half a pair of samples. Source: Shi et al. 2024 (MUSE), arXiv
2407.06460, section 3.1, C4, whose members and non-members are ours.
"""

from collections.abc import Mapping

from imu.metrics import About, Measured, text_membership
from imu.metrics._said import Asked
from imu.metrics.text_membership import MEMBERS, OTHERS

OBJECTIVE = "language"
ABOUT = {
    "PrivLeak": About(
        "membership",
        "low",
        "%",
        "how much rarer the attack by Min-K takes a forgotten sample for a member than with the "
        "reference; below 0: more often",
    )
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return dict.fromkeys(ABOUT, why) if (why := _why(asked)) else {}


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"PrivLeak": %}; nothing where it is ``unmet``. KeyError when the reference lacks an AUC."""
    asked = judged.outputs.asked
    if unmet(asked):
        return {}
    own, other = (1 - model.values["AUC_min_k"] / 100 for model in (judged, reference))
    least = 0.5 / (asked[MEMBERS].samples * asked[OTHERS].samples)
    return {"PrivLeak": 100 * (own - other) / max(other, least)}


def _why(asked: Mapping[str, Asked]) -> str | None:
    return text_membership.unmet(asked).get("AUC_min_k")
