"""Forget quality: are the truth ratios on the forget set those of the reference?

    KS = sup_r |F(r) − F_ref(r)|,    FQ = log10 of its two-sample p-value

over the ratios R of ``truth_ratio``, of which F is the share at most r. 0 where they cannot be told
apart; the more samples, the lower FQ for the same difference, which is why KS stands beside it. FQ
is not below −300. Source: Maini et al. 2024 (TOFU), arXiv 2401.06121, section 2.2.2.
Caution: a model that answers with nonsense can have a high FQ.
"""

from collections.abc import Mapping

from imu.metrics import About, Measured
from imu.metrics._said import Asked, lacking
from imu.metrics.truth_ratio import log_ratios

OBJECTIVE = "language"
LEAST = 1e-300  # p-value, of which a logarithm is taken
ABOUT = {
    "FQ": About(
        "distance",
        "low",
        "log10 p",
        "forget quality: p-value of the test that the truth ratios on the forget set are the "
        "reference's; negative, 0 is best",
    ),
    "KS": About(
        "distance",
        "low",
        "",
        "largest distance between the shares of truth ratios up to a value, here and from the "
        "reference, forget set, from 0 to 1",
    ),
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, dict.fromkeys(ABOUT, (("forget", "wrong", 2),)))


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"FQ": log10 p, "KS": value in [0, 1]}; nothing where they are ``unmet``."""
    import math

    from scipy.stats import ks_2samp

    if unmet(judged.outputs.asked):
        return {}
    found = ks_2samp(*(log_ratios(model.outputs, "forget") for model in (judged, reference)))
    return {"FQ": math.log10(max(found.pvalue, LEAST)), "KS": float(found.statistic)}
