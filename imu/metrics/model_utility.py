"""Model utility: harmonic mean of P_retain, ROUGE_retain and TR_retain, in %.

    MU = 3 / (1/P + 1/ROUGE + 1/TR),    0 where one of them is 0

As of Maini et al. 2024 (TOFU), arXiv 2401.06121, section 2.2.1, whose nine values are these three
on retained, real authors and world facts; here they are of the retain set alone.
"""

from collections.abc import Mapping

from imu.metrics import About
from imu.metrics import truth_ratio as ratio
from imu.metrics._said import Asked, Said, lacking
from imu.metrics.answer_probability import percent
from imu.metrics.rouge import mean_recall

OBJECTIVE = "language"
ABOUT = {
    "MU": About(
        "answers",
        "reference",
        "%",
        "model utility: harmonic mean of P_retain, ROUGE_retain and TR_retain",
    )
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {"MU": (("retain", "wrong", 1),)})


def measure(said: Said) -> dict[str, float]:
    """{"MU": %}; nothing where it is ``unmet``."""
    if unmet(said.asked):
        return {}
    values = [
        percent(said.log_probability("retain")),
        mean_recall(said, "retain"),
        ratio.measure(said)["TR_retain"],
    ]
    return {"MU": len(values) / sum(1 / v for v in values) if all(values) else 0.0}
