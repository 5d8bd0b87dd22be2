"""One metric or attack per file. A file offers one of

    measure(outputs) -> {name: value}               a number of one model's outputs,
    attack(subject) -> {name: value}                a number of one model, got at by trying, or
    compare(judged, reference) -> {name: value}     a distance between two models,
    alone(judged) -> {name: value}                  an estimate where there is no reference,
    over_models(judged, oracles) -> {name: value}   a distance between two families of models,

where ``compare`` and ``alone`` see what every ``measure`` found, and every ``attack`` on the judged
model. A name keeps its meaning in all tables, so two files may not give the same one. ``ABOUT``
says how to read each name.

What cannot be measured is absent, and ``absent`` names it: ``unmet(labels, forget_classes) ->
{name: why}`` of a file says which values it leaves out because they need other samples than there
are, and a file with ``NEEDS_HEAD`` is passed over for a network without a linear head.

A file is for classification, or for what its ``OBJECTIVE`` names, one or several. Those for
"language" measure ``Said`` in place of ``Outputs``, and say ``unmet(asked)`` of what ``Said.asked``
counts; those for "sequences" likewise ``Foretold``. "identification" has ``Found``, an ``Outputs``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import inf
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from imu import discovery
from imu.metrics._foretold import Foretold as Foretold
from imu.metrics._foretold import foretold_of as foretold_of
from imu.metrics._said import Asked as Asked
from imu.metrics._said import Said as Said
from imu.metrics._said import asked_of as asked_of
from imu.metrics._said import drawn as drawn
from imu.metrics._said import means as means
from imu.metrics._said import said_of as said_of

if TYPE_CHECKING:
    from torch import nn

    from imu.objectives import Objective, Samples

# Sections of the tables, in their order.
Group = Literal["outcome", "answers", "membership", "distance", "features", "survival", "samples"]
GROUPS: dict[str, str] = {
    "outcome": "Accuracies and their gap to the reference",
    "answers": "Answers about what was forgotten and what stays",
    "membership": "Membership attacks on outputs",
    "distance": "Distance of outputs to the reference",
    "features": "Attacks on features, which a mask on logits leaves as they are",
    "survival": "Whether what was forgotten comes back",
    "samples": "Per sample, over many models",
}


BATCH = 128  # images of a pass: on a CPU, what more of them make leaves its cache


class About(NamedTuple):
    """How to read a metric.

    aim: "reference" (the retrained model's value), "low" (0) or "high" (1).
    """

    group: Group
    aim: Literal["reference", "low", "high"]
    unit: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What one model says about each set.

    probabilities: set name -> float64 array (n, classes), rows sum to 1.
    features: set name -> float64 array (n, d), what enters the head; {} where there is none.
    labels: set name -> int64 array (n,).
    Sets: "forget", "retain" (training samples), "validation", "test" (the latter two with all
    classes). forget_classes: classes forgotten whole, empty for sample-wise forgetting.
    seed: of attacks that draw samples. Two models are compared under the same seed, so they are
    attacked with the same draws.
    """

    objective: ClassVar[str] = "classification"
    probabilities: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    forget_classes: tuple[int, ...]
    seed: int = 0

    def same_samples(self, other: "Outputs") -> bool:
        return self.labels.keys() == other.labels.keys() and all(
            np.array_equal(labels, other.labels[name]) for name, labels in self.labels.items()
        )

    def confidence(self, name: str) -> np.ndarray:
        """Probability of the true label, (n,)."""
        return self.probabilities[name][np.arange(len(self.labels[name])), self.labels[name]]

    def of_forgotten_class(self, name: str) -> np.ndarray:
        """Which samples of a set belong to a class that is forgotten whole, (n,) bool."""
        return np.isin(self.labels[name], self.forget_classes)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under attack: the network, what its inputs are, and what it says of them.

    samples: the sets of ``outputs``. original_accuracy: %, of the original model on the forget
    set, which relearning of images has to regain; by default nothing regains it. An attack leaves
    ``model`` as it was.
    """

    model: "nn.Module"
    objective: "Objective"
    samples: "Mapping[str, Samples]"
    outputs: Any  # Outputs, Said of a language model, or Foretold of sequences
    original_accuracy: float = inf


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model's outputs and the values of every ``measure``, and of every ``attack`` if made."""

    outputs: Any  # Outputs, Said of a language model, or Foretold of sequences
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Many models that differ in their seed alone, by what they say of each sample.

    margins: set name ("forget", "retain", "validation") -> float64 array (models, n), the margin
    log(p_y / (1 − p_y)) of the true label y. diverged: how many of the models have weights that
    are not finite; their margins are −inf.
    """

    margins: dict[str, np.ndarray]
    diverged: int = 0
    unfinished: int = 0


def outputs_of(
    model: "nn.Module",
    objective: "Objective",
    samples: "Mapping[str, Samples]",
    *,
    forget_classes: tuple[int, ...] = (),
    seed: int = 0,
) -> Outputs:
    """What ``model`` says of each set, in evaluation mode."""
    from imu.models import has_head
    from imu.objectives import features_and_logits, predictions

    features: dict[str, np.ndarray] = {}
    probabilities: dict[str, np.ndarray] = {}
    for name, of_set in samples.items():
        if has_head(model):
            entering, logits = features_and_logits(model, objective, of_set.inputs, BATCH)
            features[name] = entering.double().cpu().numpy()
        else:
            logits = predictions(model, objective, of_set.inputs, BATCH)
        probabilities[name] = logits.double().softmax(1).cpu().numpy()
    return Outputs(
        probabilities=probabilities,
        features=features,
        labels={name: s.targets.cpu().numpy() for name, s in samples.items()},
        forget_classes=forget_classes,
        seed=seed,
    )


@cache  # asked for thousands of times by a report
def about(objective: str | None = None) -> Mapping[str, About]:
    """Every name that a metric of the objective, or of any, gives, in the order of the tables."""
    found: dict[str, About] = {}
    for module in _all():
        repeated = found.keys() & module.ABOUT.keys()
        if repeated:
            raise ValueError(f"{module.__name__} repeats the metric {sorted(repeated)}")
        found |= module.ABOUT
    places = list(GROUPS)
    own = found if objective is None else {n for m in modules(objective) for n in m.ABOUT}
    ordered = sorted(found.items(), key=lambda item: places.index(item[1].group))
    return MappingProxyType({name: about for name, about in ordered if name in own})


def absent(objective: str, *given: Any, head: bool = True) -> dict[str, str]:
    """Name -> why it cannot be measured of one model on these samples.

    given: as ``unmet`` takes it; of images labels (set name -> int array (n,), the sets as in
    ``Outputs``) and classes that are forgotten whole, of others what their ``asked`` counts.
    head: whether the network has a linear head.
    """
    found: dict[str, str] = {}
    for module in modules(objective):
        if hasattr(module, "NEEDS_HEAD") and not head:
            found |= dict.fromkeys(module.ABOUT, "needs a network with a linear head")
        elif hasattr(module, "unmet"):
            found |= module.unmet(*given)
    return {name: found[name] for name in about(objective) if name in found}


def by_reason(absent: Mapping[str, str]) -> list[str]:
    """What ``absent`` found, a line per reason: "probe, probe_5: needs …"."""
    names: dict[str, list[str]] = {}
    for name, why in absent.items():
        names.setdefault(why, []).append(name)
    return [f"{', '.join(of)}: {why}" for why, of in names.items()]


def measure(subject: Subject) -> Measured:
    """Apply every metric and every attack of one model, but for what is ``absent``."""
    values = dict(of_outputs(subject.outputs).values)
    for module in modules(subject.outputs.objective, head=has_features(subject.outputs)):
        if hasattr(module, "attack"):
            values |= module.attack(subject)
    return Measured(outputs=subject.outputs, values=values)


def of_outputs(outputs: Outputs | Said | Foretold) -> Measured:
    """Apply every metric of one model's outputs: all that ``compare`` needs of a reference."""
    values: dict[str, float] = {}
    for module in modules(outputs.objective, head=has_features(outputs)):
        if hasattr(module, "measure"):
            values |= module.measure(outputs)
    return Measured(outputs=outputs, values=values)


def compare(judged: Measured, reference: Measured) -> dict[str, float]:
    """Values of ``judged``, and every distance to ``reference``, the retrained model.

    Raises ValueError when the two were not measured on the same samples, and FloatingPointError
    when a value is not finite.
    """
    objective = judged.outputs.objective
    if objective != reference.outputs.objective or not judged.outputs.same_samples(
        reference.outputs
    ):
        raise ValueError("the model and its reference were measured on different samples")
    values = dict(judged.values)
    for module in modules(objective):
        if hasattr(module, "compare"):
            values |= module.compare(judged, reference)
    return _checked(values, objective)


def alone(judged: Measured) -> dict[str, float]:
    """Values of ``judged``, and every estimate for those who have no retrained model.

    Raises FloatingPointError when a value is not finite.
    """
    values, objective = dict(judged.values), judged.outputs.objective
    for module in modules(objective):
        if hasattr(module, "alone"):
            values |= module.alone(judged)
    return _checked(values, objective)


def over_models(judged: Family, oracles: Family) -> dict[str, float]:
    """Every distance between unlearned models and oracles, which never saw the forget set.

    Raises ValueError when the families know different samples, and FloatingPointError when a
    value is not finite.
    """
    sizes = [{n: m.shape[1] for n, m in family.margins.items()} for family in (judged, oracles)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the families were measured on different samples: {sizes}")
    values: dict[str, float] = {}
    for module in modules():
        if hasattr(module, "over_models"):
            values |= module.over_models(judged, oracles)
    return _checked(values)


def modules(objective: str = "classification", *, head: bool = True) -> list[ModuleType]:
    """The files for an objective; without a linear head those that need none."""
    return [
        module
        for module in _all()
        if objective in _objectives(module) and (head or not hasattr(module, "NEEDS_HEAD"))
    ]


def _objectives(module: ModuleType) -> tuple[str, ...]:
    named = getattr(module, "OBJECTIVE", "classification")
    return (named,) if isinstance(named, str) else named


def _checked(values: dict[str, float], objective: str = "classification") -> dict[str, float]:
    """``values`` in the order of the tables."""
    order = [name for name in about(objective) if name in values]
    if unnamed := values.keys() - set(order):
        raise ValueError(f"no ABOUT for the metrics {sorted(unnamed)}")
    wrong = {name: value for name, value in values.items() if not np.isfinite(value)}
    if wrong:
        raise FloatingPointError(f"metrics are not finite: {wrong}")
    return {name: values[name] for name in order}


def has_features(outputs: Outputs | Said | Foretold) -> bool:
    return isinstance(outputs, Outputs) and bool(outputs.features)


def _all() -> list[ModuleType]:
    found = [discovery.load("imu.metrics", name) for name in discovery.names("imu.metrics")]
    return sorted(found, key=lambda module: (hasattr(module, "compare"), module.__name__))
