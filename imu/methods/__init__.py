"""One unlearning method per file.

A file offers
    ``NEEDS``: what the method may see, a subset of {"forget", "influence", "retain"};
    ``Config``: a frozen dataclass;
    ``unlearn(model, objective, config, generator, **given)``: changes ``model`` in place and
    yields a ``Step`` before the first update, then at its own pace, at least once per epoch.
    ``given`` holds exactly what ``NEEDS`` names;
and may offer
    ``SEARCH``: parameter -> candidates, from which ``make tune`` chose the defaults;
    ``VARIANTS``: name -> Config, where the tables show more than the defaults.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imu import discovery
from imu.bounds import require
from imu.objectives import IGNORED, Answered, Objective, Samples
from imu.unseen import Unseen


@dataclass(frozen=True, kw_only=True)
class ForgetSet:
    """All that a forget-only method is given besides the original model.

    classes: the classes to be forgotten whole; empty for sample-wise forgetting.
    Where forgetting stops, all of which must hold, measured on the set:
    target_accuracy: %; 0 for whole classes.
    target_margin: of the mean margin log(p_y / (1 − p_y)); for samples that of unseen ones of the
    same labels, and least_fall how far it must fall at least (``imu.unseen``: numbers kept with the
    original model).
    own_tokens: of the inputs of texts, those that no unseen text has, kept likewise.

    Raises ValueError when there is no sample, none with anything to predict, a class that is no
    label of the set, a target that is not a number in its range, or none at all for samples.
    """

    samples: Samples
    classes: tuple[int, ...]
    target_accuracy: float = 100.0
    target_margin: float = inf  # logits
    least_fall: float = 0.0  # logits
    own_tokens: frozenset[int] = frozenset()

    @classmethod
    def whole(cls, samples: Samples, classes: Sequence[int]) -> "ForgetSet":
        """Classes that are forgotten until no sample of theirs is answered right."""
        return cls(samples=samples, classes=tuple(classes), target_accuracy=0.0)

    @classmethod
    def as_unseen(cls, samples: Samples, unseen: Unseen) -> "ForgetSet":
        """Samples that are forgotten until they are answered as ``unseen`` ones are."""
        targets, inputs = unseen.remembered(samples.targets), samples.inputs
        return cls(
            samples=Samples(inputs, targets),
            classes=(),
            target_margin=unseen.target(targets),
            least_fall=max(unseen.excess, 0.0),
            own_tokens=unseen.own(inputs) if isinstance(inputs, Tensor) else frozenset(),
        )

    def __post_init__(self) -> None:
        if len(self.samples) == 0:
            raise ValueError("the forget set is empty: there is nothing to unlearn")
        if bool((self.samples.targets == IGNORED).all()):
            raise ValueError("every target of the forget set is IGNORED: nothing to unlearn")
        require_labels(self.classes, self.samples)
        if not self.target_accuracy <= 100:
            raise ValueError(f"target_accuracy must be <= 100, got {self.target_accuracy}")
        if not self.target_margin > -inf:
            raise ValueError(f"target_margin must be a number or inf, got {self.target_margin}")
        require("least_fall", self.least_fall, ">= 0")
        if not self.classes and self.target_margin == inf and self.least_fall == 0:
            raise ValueError("samples need a target_margin or a least_fall, got neither")

    def wanted_margin(self, first: "Step") -> float:
        """The mean margin at which a method stops that began at ``first``."""
        return min(self.target_margin, first.margin - self.least_fall)

    def reached(self, first: "Step", now: "Step") -> bool:
        """Whether a method that began at ``first`` is at its target."""
        return now.accuracy <= self.target_accuracy and now.margin <= self.wanted_margin(first)

    def ended(self, first: "Step", last: "Step") -> str:
        """Where a method ended that began at ``first``, and whether that is its target."""
        if self.classes:
            where = f"forget accuracy {last.accuracy:.2f} %, target {self.target_accuracy:.2f} %"
        else:
            where = (
                f"mean margin {last.margin:.3f}, at first {first.margin:.3f}, "
                f"target {self.wanted_margin(first):.3f}"
            )
        if not self.reached(first, last):
            return f"ended short of the target: {where}"
        return f"{'at the target' if last.step else 'nothing to do, at the target'}: {where}"


def require_labels(classes: Sequence[int], forget: Samples) -> None:
    """Raises ValueError for a class that is no label of the forget set."""
    labels = set(forget.targets.unique().tolist()) - {IGNORED}
    if unknown := [label for label in classes if label not in labels]:
        raise ValueError(
            f"classes must be labels of the forget set, {sorted(labels)}, got {unknown[0]!r}"
        )


class UnlearningError(RuntimeError):
    """A method could not do what it was asked, for want of steps or of what it works with."""


class Step(NamedTuple):
    step: int  # updates made so far
    loss: float  # mean loss on the forget set, evaluation mode
    accuracy: float  # % right, mean over samples of the share of their positions, likewise
    margin: float  # log(p_y / (1 − p_y)), mean over samples of that over their positions, likewise
    seconds: float = 0.0  # spent by the method so far, measuring included; filled in by ``run``


def names() -> tuple[str, ...]:
    return discovery.names("imu.methods")


def needs(method: str) -> frozenset[str]:
    """What a method may see besides the original model, a subset of forget, influence, retain."""
    return frozenset(discovery.load("imu.methods", method).NEEDS)


def variants(method: str) -> dict[str, Any]:
    """Name -> Config of what the tables show of a method; its defaults, unless it has VARIANTS."""
    module = discovery.load("imu.methods", method)
    return dict(getattr(module, "VARIANTS", {method: module.Config()}))


def run(
    method: str,
    model: nn.Module,
    objective: Objective,
    config: Any,
    *,
    seed: int,
    available: Mapping[str, Callable[[], Any]],
) -> Iterator[Step]:
    """Unlearn with ``method``, handing it only what its ``NEEDS`` declare.

    available: how to load each kind of data; a loader that is not needed is never called.
    Raises ValueError for an unknown method, a need that ``available`` lacks, an empty retain set,
    or influence weights that are not one number >= 0 per sample; and FloatingPointError, naming
    the step, when the forget loss or a weight is not finite.
    """
    module = discovery.load("imu.methods", method)
    for part in ("NEEDS", "Config", "unlearn"):
        if not hasattr(module, part):
            raise ValueError(f"imu/methods/{method}.py lacks {part}")
    missing = module.NEEDS - available.keys()
    if missing:
        raise ValueError(f"{method} needs {sorted(missing)}, which this run does not provide")
    given = {need: available[need]() for need in sorted(module.NEEDS)}
    _check(given)
    generator = torch.Generator().manual_seed(seed)
    progress = module.unlearn(model, objective, config, generator, **given)
    seconds = 0.0
    while True:
        begin = perf_counter()
        try:
            step = next(progress, None)
        except FloatingPointError as error:
            raise FloatingPointError(f"{method}: {error}") from error
        if step is None:
            return
        seconds += perf_counter() - begin
        finite = all(p.isfinite().all() for p in model.state_dict().values())
        if not (finite and isfinite(step.loss)):
            raise FloatingPointError(
                f"{method}: forget loss is {step.loss} and weights are "
                f"{'finite' if finite else 'not finite'} after step {step.step}"
                + (f"; {REMEDY}" if step.step else ", before any update: inputs or model are bad")
            )
        yield step._replace(seconds=seconds)


REMEDY = "a smaller learning rate or step may help"


def _check(given: Mapping[str, Any]) -> None:
    if "retain" in given and len(given["retain"]) == 0:
        raise ValueError("the retain set is empty")
    if "influence" in given:
        weights, count = given["influence"], len(given["forget"].samples)
        if weights.shape != (count,):
            raise ValueError(
                f"influence must be one weight for each of {count} samples, got {weights.shape}"
            )
        if not (weights.isfinite() & (weights >= 0)).all():
            raise ValueError("influence must be finite weights >= 0: see ascent_weights")


def measured(step: int, found: Answered) -> Step:
    """The ``Step`` of the forget set, from how well its samples are answered."""
    means = (values.mean().item() for values in found)
    loss, right, margin = means
    return Step(step, loss, 100 * right, margin)
