"""Average gap: mean |method − retrained| over FA, RA, TFA (class-wise), TA and MIA, in points.

TFA is added for class-wise forgetting, so that it counts forgetting on unseen images as well.
``gap_acc`` leaves MIA out, whose value flips between 0 and 100 where a model is not confident.
Source: Fan et al. 2024 (SalUn), arXiv 2310.12508, section 5; arXiv 2508.01620, section 4.
"""

from imu.metrics import About, Measured

ABOUT = {
    "gap": About(
        "outcome",
        "low",
        "points",
        "mean |model − reference| over FA, RA, TFA (class-wise), TA and MIA",
    ),
    "gap_acc": About("outcome", "low", "points", "the same without MIA"),
}
OVER = ("FA", "RA", "TFA", "TA", "MIA")


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"gap": points, "gap_acc": points}. Raises KeyError when the reference lacks a value."""
    gaps = {
        name: abs(judged.values[name] - reference.values[name])
        for name in OVER
        if name in judged.values
    }
    accuracies = [gap for name, gap in gaps.items() if name != "MIA"]
    return {
        "gap": sum(gaps.values()) / len(gaps),
        "gap_acc": sum(accuracies) / len(accuracies),
    }
