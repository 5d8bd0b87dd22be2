"""TV: mean total variation between the softmax outputs of two models.

TV = mean_i ½ Σ_k |p_ik − q_ik|, paired by image, all classes, in [0, 1]. 0 means equal outputs.
"TV" is taken on the test images, "TV_forget" on the forget set.
"""

import numpy as np

from imu.metrics import About, Measured

ABOUT = {
    name: About(
        "distance",
        "low",
        "",
        f"mean total variation to the reference's softmax on {images}, from 0 to 1",
    )
    for name, images in (("TV", "test images"), ("TV_forget", "the forget set"))
}


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"TV", "TV_forget"}, each in [0, 1]."""

    def over(name: str) -> float:
        difference = judged.outputs.probabilities[name] - reference.outputs.probabilities[name]
        return float(np.abs(difference).sum(1).mean() / 2)

    return {"TV": over("test"), "TV_forget": over("forget")}
