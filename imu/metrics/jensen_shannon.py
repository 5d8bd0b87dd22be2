"""JS: mean Jensen-Shannon divergence between two models on the test images, in nats.

JS = mean_i ½ KL(p_i ‖ m_i) + ½ KL(q_i ‖ m_i), m = (p + q) / 2, p and q the softmax outputs, paired
by image, all classes. In [0, ln 2]: 0 means equal outputs, ln 2 disjoint ones. Symmetric, and
finite without a floor where a probability is 0. Source: Lin 1991, "Divergence measures based on
the Shannon entropy", IEEE Transactions on Information Theory 37(1), with equal weights.
"""

import numpy as np

from imu.metrics import About, Measured

ABOUT = {
    "JS": About(
        "distance",
        "low",
        "nats",
        "mean Jensen-Shannon divergence to the reference's softmax on test images, from 0 to ln 2",
    )
}


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"JS": nats in [0, ln 2]}."""
    p, q = (model.outputs.probabilities["test"] for model in (judged, reference))
    return {"JS": float(divergence(p, q).mean())}


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """JS of distributions along the last axis, in nats: (..., classes) -> (...)."""
    from scipy.special import rel_entr

    # Half of the least positive float is 0, and a divergence from 0 infinite.
    middle = np.maximum((p + q) / 2, np.nextafter(0, 1))
    terms = rel_entr(p, middle) + rel_entr(q, middle)  # (..., classes)
    return np.asarray(terms.sum(-1) / 2)
