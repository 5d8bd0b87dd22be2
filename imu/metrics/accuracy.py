"""Accuracies in %: the share of samples whose most probable class is the label.

FA: forget set. RA: retain set. TA: test set without the classes forgotten whole. TFA: test samples
of these classes; absent when no class is forgotten whole. arXiv 2508.01620, section 4.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Outputs

OBJECTIVE = ("classification", "identification")
ABOUT = {
    "FA": About("outcome", "reference", "%", "accuracy on the forget set"),
    "RA": About(
        "outcome", "reference", "%", "accuracy on the retain set: training samples that stay"
    ),
    "TFA": About("outcome", "reference", "%", "accuracy on test samples of the forgotten classes"),
    "TA": About(
        "outcome", "reference", "%", "accuracy on test samples, without the classes forgotten whole"
    ),
}


def unmet(labels: Mapping[str, np.ndarray], forget_classes: tuple[int, ...]) -> dict[str, str]:
    """Name -> why it cannot be measured on samples of these labels."""
    return {} if forget_classes else {"TFA": "needs a class that is forgotten whole"}


def measure(outputs: Outputs) -> dict[str, float]:
    """{"FA", "RA", "TA"} and, class-wise, "TFA". Raises ValueError when a set is empty."""
    forgotten = outputs.of_forgotten_class("test")
    correct = {name: _correct(outputs, name) for name in ("forget", "retain", "test")}
    values = {
        "FA": _percent(correct["forget"], "forget"),
        "RA": _percent(correct["retain"], "retain"),
        "TA": _percent(correct["test"][~forgotten], "test, retained classes"),
    }
    if outputs.forget_classes:
        values["TFA"] = _percent(correct["test"][forgotten], "test, forgotten classes")
    return values


def _correct(outputs: Outputs, name: str) -> np.ndarray:
    return outputs.probabilities[name].argmax(1) == outputs.labels[name]


def _percent(correct: np.ndarray, name: str) -> float:
    if len(correct) == 0:
        raise ValueError(f"no samples to measure accuracy on: {name}")
    return float(100 * correct.mean())
