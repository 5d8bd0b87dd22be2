"""ToW, "tug of war": one number for forgetting and keeping at once, in [0, 1].

ToW = (1 − |ΔFA|) (1 − |ΔRA|) (1 − |ΔTA|), Δ = model − retrained, accuracies as fractions. 1 means
the accuracies of the retrained model; one accuracy that is off by 1 makes the product 0.
Source: Zhao et al. 2024, arXiv 2406.01257; surgical_plugins/analysis.py in
github.com/kairanzhao/RUM. There the test set is whole; here TA leaves out the classes forgotten
whole (see ``accuracy``), so that class-wise forgetting does not count twice.
"""

from imu.metrics import About, Measured

ABOUT = {
    "ToW": About(
        "outcome", "high", "", "product of 1 − |model − reference| over FA, RA and TA, from 0 to 1"
    )
}
OVER = ("FA", "RA", "TA")


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"ToW": value in [0, 1]}. Raises KeyError when either lacks an accuracy."""
    value = 1.0
    for name in OVER:
        value *= 1 - abs(judged.values[name] - reference.values[name]) / 100
    return {"ToW": value}
