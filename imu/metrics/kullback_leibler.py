"""KL: mean Kullback-Leibler divergence of a model from the reference on the test images, in nats.

KL = mean_i Σ_k r_ik log(r_ik / q_ik), r the reference's softmax, q the judged model's, paired by
image, all classes. 0 means equal outputs.

A logit mask gives q = 0 exactly, where one image would make the mean infinite. Probabilities are
therefore at least 1e-8, and each row is divided by its sum, so that KL stays ≥ 0: an image counts
for at most 18.4 nats. The value of a model that never gives a class, but for this floor, is
a property of the floor: JS and TV need none.
"""

import numpy as np

from imu.metrics import About, Measured, Outputs

ABOUT = {
    "KL": About(
        "distance",
        "low",
        "nats",
        "mean KL(reference ‖ model) of the softmax on test images, probabilities at least 1e-8",
    )
}
FLOOR = 1e-8


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"KL": nats, ≥ 0 up to rounding}."""
    from scipy.special import rel_entr

    terms = rel_entr(_floored(reference.outputs), _floored(judged.outputs))  # (n, classes)
    return {"KL": float(terms.sum(1).mean())}


def _floored(outputs: Outputs) -> np.ndarray:
    raised = np.maximum(outputs.probabilities["test"], FLOOR)
    shares: np.ndarray = raised / raised.sum(1, keepdims=True)
    return shares
