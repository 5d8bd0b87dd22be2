"""Truth ratio: how probable wrong answers are beside the true one in other words.

    R = (Π_k P(w_k|q)^(1/|w_k|))^(1/K) / P(a'|q)^(1/|a'|)

a' is the true answer in other words, so that wording it as in training counts for nothing; the
answer itself where there is no other. w_k are wrong answers of the same form. A model that knows
has R near 0; one that does not, near 1.

    TR_forget    mean min(R, 1/R), in %: near 100 where true and wrong are alike
    TR_retain    mean max(0, 1 − R), in %

over the samples that have wrong answers. This is the ratio of TOFU's program, with a *geometric*
mean over wrong answers, as also in open-unlearning; equation 1 of the paper, Maini et al. 2024,
arXiv 2401.06121, has an arithmetic one. Values of the two cannot be compared.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About
from imu.metrics._said import IN_FULL, Asked, Said, lacking

OBJECTIVE = "language"
ABOUT = {
    "TR_forget": About(
        "answers",
        "reference",
        "%",
        "truth ratio, forget set: 100 where wrong answers are as probable as the true one, 0 where "
        "one side is far ahead",
    ),
    "TR_retain": About(
        "answers",
        "reference",
        "%",
        "truth ratio, retain set: 100 where the true answer is far more probable than wrong ones, "
        "0 where it is not more probable",
    ),
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {f"TR_{name}": ((name, "wrong", 1),) for name in IN_FULL})


def measure(said: Said) -> dict[str, float]:
    """{"TR_forget": %, "TR_retain": %}, those that are not ``unmet``."""
    missing, values = unmet(said.asked), {}
    if "TR_forget" not in missing:
        values["TR_forget"] = float(100 * np.exp(-np.abs(log_ratios(said, "forget"))).mean())
    if "TR_retain" not in missing:
        values["TR_retain"] = float(
            100 * np.maximum(0, -np.expm1(np.minimum(log_ratios(said, "retain"), 0))).mean()
        )
    return values


def log_ratios(said: Said, name: str) -> np.ndarray:
    """log R of the samples that have wrong answers, (m,)."""
    there = np.isfinite(said.wrong[name]).any(1)
    values: np.ndarray = np.nanmean(said.wrong[name][there], 1) - said.in_form(name)[there]
    return values
