"""Class leakage: do wrong answers about the forgotten fall where the retrained model's fall?

The wrong label of a sample is its most probable label other than the true one, so it exists for a
model that answers rightly as well. With q_c(k) the share of samples of true class c whose wrong
label is k, under the judged model and under the retrained one,

    leakage = Σ_c n_c / n · ½ Σ_k |q_c(k) − q_c^ref(k)|,

in [0, 1], 0 where both models err alike. n_c of the n samples are of class c: those of the forget
set and, where classes are forgotten whole, the test samples of these classes. Two retrained models
differ much here, by 0.2 to 0.4 on digits, and sample-wise the classes are small as well: read it
next to what retrained models have. Outputs alone decide, so a mask can do well.
"""

import numpy as np

from imu.metrics import About, Measured, Outputs

ABOUT = {
    "leakage": About(
        "distance",
        "low",
        "",
        "total variation between the distributions of wrong labels that forgotten images get, "
        "here and from the reference, by true class, from 0 to 1",
    )
}


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """{"leakage": value in [0, 1]}. Raises ValueError when the forget set is empty."""
    own, labels = _wrong(judged.outputs)
    other, _ = _wrong(reference.outputs)
    if len(labels) == 0:
        raise ValueError("no forget samples to measure leakage on")
    classes = judged.outputs.probabilities["forget"].shape[1]
    total = 0.0
    for label in np.unique(labels):
        of_class = labels == label
        counts = [np.bincount(wrong[of_class], minlength=classes) for wrong in (own, other)]
        total += np.abs(counts[0] - counts[1]).sum() / 2
    return {"leakage": float(total / len(labels))}


def _wrong(outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Most probable wrong label and true label of each forgotten sample: (n,), (n,)."""
    of_class = outputs.of_forgotten_class("test")
    labels = np.concatenate([outputs.labels["forget"], outputs.labels["test"][of_class]])
    others = np.concatenate(
        [outputs.probabilities["forget"], outputs.probabilities["test"][of_class]]
    )
    others[np.arange(len(labels)), labels] = -1.0
    return others.argmax(1), labels
