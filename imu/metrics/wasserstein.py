"""W1 as published: Wasserstein distance between the class numbers that two models predict.

W1 = ∫ |F(c) − G(c)| dc, F and G the distribution functions of argmax_k p_ik over the test images
under either model, all classes; in units of class numbers, from 0 to classes − 1.
Source: the "W1" of arXiv 2508.01620.

Caution: it takes the numbers of the classes for quantities, so another order of the same classes
gives another value, and it is unpaired, so two models that disagree on every image can be at
distance 0. Given for comparison with published tables; TV, JS and KL are paired.
"""

from imu.metrics import About, Measured

ABOUT = {
    "W1_published": About(
        "distance",
        "low",
        "class numbers",
        "Wasserstein distance between the class numbers predicted on test images, as published: "
        "unpaired, and dependent on the order of the classes",
    )
}


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"W1_published": class numbers, ≥ 0}. Raises ValueError when there are no test images."""
    from scipy.stats import wasserstein_distance

    predicted = (model.outputs.probabilities["test"].argmax(1) for model in (judged, reference))
    return {"W1_published": float(wasserstein_distance(*predicted))}
