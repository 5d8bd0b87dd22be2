"""Probability of the true answer when the question has other words: was a fact forgotten, or one
way of asking for it?

P(a|q')^(1/|a|) as in ``answer_probability``, with a wording q' on which nothing was trained; mean
over the forget samples that have one. The question side of the paraphrases of Maini et al. 2024
(TOFU), arXiv 2401.06121; Patil et al. 2024, arXiv 2309.17410, extract forgotten facts with them.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About
from imu.metrics._said import Asked, Said, lacking
from imu.metrics.answer_probability import percent

OBJECTIVE = "language"
ABOUT = {
    "P_reworded": About(
        "answers",
        "reference",
        "%",
        "as P_forget, when the question has words that no model was trained on",
    )
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {"P_reworded": (("forget", "other_prompts", 1),)})


def measure(said: Said) -> dict[str, float]:
    """{"P_reworded": %}; nothing where it is ``unmet``."""
    if unmet(said.asked):
        return {}
    values = said.asked_otherwise["forget"]
    return {"P_reworded": percent(values[~np.isnan(values)])}
