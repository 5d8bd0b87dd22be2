"""One metric or attack per file. A file offers one of

    measure(outputs) -> {name: value}             a number of one model, or
    compare(judged, reference) -> {name: value}   a distance between two models,

where ``compare`` sees what every ``measure`` found. A name keeps its meaning in all tables, so two
files may not give the same one. ``ABOUT`` says how to read each name.
"""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np

from imu import discovery


class About(NamedTuple):
    """How to read a metric. aim: "reference" (the retrained model's value) or "low" (0)."""

    aim: Literal["reference", "low"]
    unit: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What one model says about each set.

    probabilities: set name -> float64 array (n, classes), rows sum to 1.
    labels: set name -> int64 array (n,).
    Sets: "forget", "retain" (training samples), "validation", "test" (the latter two with all
    classes). forget_classes: classes forgotten whole, empty for sample-wise forgetting.
    seed: of attacks that draw samples.
    """

    probabilities: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    forget_classes: tuple[int, ...]
    seed: int = 0

    def confidence(self, name: str) -> np.ndarray:
        """Probability of the true label, (n,)."""
        return self.probabilities[name][np.arange(len(self.labels[name])), self.labels[name]]

    def of_forgotten_class(self, name: str) -> np.ndarray:
        """Which samples of a set belong to a class that is forgotten whole, (n,) bool."""
        return np.isin(self.labels[name], self.forget_classes)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model's outputs and the values of every ``measure``."""

    outputs: Outputs
    values: dict[str, float] = field(default_factory=dict)


def about() -> dict[str, About]:
    """Every name that a metric can give, in the order of the tables."""
    found: dict[str, About] = {}
    for module in _modules():
        repeated = found.keys() & module.ABOUT.keys()
        if repeated:
            raise ValueError(f"{module.__name__} repeats the metric {sorted(repeated)}")
        found |= module.ABOUT
    return found


def measure(outputs: Outputs) -> Measured:
    """Apply every metric of one model."""
    values: dict[str, float] = {}
    for module in _modules():
        if hasattr(module, "measure"):
            values |= module.measure(outputs)
    return Measured(outputs=outputs, values=values)


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """Values of ``judged``, and every distance to ``reference``, the retrained model.

    Raises ValueError when the two were not measured on the same samples, and FloatingPointError
    when a value is not finite.
    """
    if judged.outputs.labels.keys() != reference.outputs.labels.keys() or any(
        not np.array_equal(labels, reference.outputs.labels[name])
        for name, labels in judged.outputs.labels.items()
    ):
        raise ValueError("the model and its reference were measured on different samples")
    values = dict(judged.values)
    for module in _modules():
        if hasattr(module, "compare"):
            values |= module.compare(judged, reference)
    order = [name for name in about() if name in values]
    if unnamed := values.keys() - set(order):
        raise ValueError(f"no ABOUT for the metrics {sorted(unnamed)}")
    wrong = {name: value for name, value in values.items() if not np.isfinite(value)}
    if wrong:
        raise FloatingPointError(f"metrics are not finite: {wrong}")
    return {name: values[name] for name in order}


def _modules() -> list[ModuleType]:
    found = [discovery.load("imu.metrics", name) for name in discovery.names("imu.metrics")]
    return sorted(found, key=lambda module: (hasattr(module, "compare"), module.__name__))
