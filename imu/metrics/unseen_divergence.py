"""JSD_unseen: how differently forgotten and unseen samples of one class are answered, in nats.

For a class c of the forget set, P_c is the mean softmax output over its forget samples and Q_c that
over test samples of c, which the model has never seen. JSD_unseen = Σ_c n_c JS(P_c ‖ Q_c) / Σ_c n_c
with n_c the forget samples of c, and JS as in ``jensen_shannon``. In [0, ln 2]: at 0 the model
treats on average what it was to forget as it treats what it never saw.

It needs no retrained model, and says less than one: a model that never memorised its samples has
it near 0 without forgetting, and so has one that forgot a class together with its test samples. An
estimate for those who cannot retrain; compare with the value of the original model.
"""

import numpy as np

from imu.metrics import About, Measured, jensen_shannon

ABOUT = {
    "JSD_unseen": About(
        "distance",
        "low",
        "nats",
        "Jensen-Shannon divergence between the mean outputs on forget and on test samples of one "
        "class, mean over forget samples; given where nothing was retrained",
    )
}


def alone(judged: Measured) -> dict[str, float]:
    """{"JSD_unseen": nats in [0, ln 2]}. Raises ValueError where a class has no test sample."""
    outputs = judged.outputs
    total = 0.0
    for label, count in zip(*np.unique(outputs.labels["forget"], return_counts=True), strict=True):
        means = {}
        for name in ("forget", "test"):
            chosen = outputs.labels[name] == label
            if not chosen.any():
                raise ValueError(f"class {label} has no {name} sample to compare with")
            means[name] = outputs.probabilities[name][chosen].mean(0)
        total += count * jensen_shannon.divergence(means["forget"], means["test"])
    return {"JSD_unseen": float(total / len(outputs.labels["forget"]))}
