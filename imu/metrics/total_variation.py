"""TV: mean total variation between the softmax outputs of two models on the test images.

TV = mean_i ½ Σ_k |p_ik − q_ik|, paired by image, all classes, in [0, 1]. 0 means equal outputs.
"""

import numpy as np

from imu.metrics import About, Measured

ABOUT = {
    "TV": About(
        "low", "", "mean total variation to the reference's softmax on test images, from 0 to 1"
    )
}


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"TV": value in [0, 1]}."""
    difference = judged.outputs.probabilities["test"] - reference.outputs.probabilities["test"]
    return {"TV": float(np.abs(difference).sum(1).mean() / 2)}
