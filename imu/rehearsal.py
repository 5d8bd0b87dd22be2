"""All that will be asked of a network, once and on a few samples, before anything is trained.

A network of the user's may fail where it is used last, after hours. Here it is asked for
everything in seconds: what its predictions are, a step of training, influence, one step of every
method, every attack. What fails is named, with the way on.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from imu import influences, methods, metrics
from imu.models import evaluating
from imu.objectives import Objective, Samples, predictions

ONCE = ("epochs", "max_epochs", "max_steps", "attack_steps", "draws")  # fields that say how often
CLOSE = 1e-3  # of two passes: batches of another size round differently
CLASSES = 4  # labels that take part in a rehearsal
EACH = 8  # samples of each: half to train on, a quarter to validate, a quarter to test
NEVER = -1e9  # % or logits, a target that no method reaches, so that each makes its step
T = TypeVar("T")


class Trial(NamedTuple):
    what: str
    seconds: float
    fault: str = ""  # why it fails, and how to go on


class Method(NamedTuple):
    method: str  # a file in imu/methods
    config: Any  # its Config


class _Fault(Exception):
    """What is wrong with a network that runs."""


def rehearse(
    model: nn.Module,
    objective: Objective,
    sets: Mapping[str, Samples],
    *,
    influence: influences.Config,
    methods: Mapping[str, Method],
    classes: tuple[int, ...] = (),
    also: Mapping[str, Callable[[nn.Module], object]] | None = None,
    attacked: Callable[[nn.Module], metrics.Subject],
) -> Iterator[Trial]:
    """Try everything in turn; ``model`` stays as it is.

    sets: a few samples each of "forget" (two at least), "retain", "validation" and "test"; every
    label of the first in "validation". classes: those of "forget" that are to be forgotten whole;
    none: samples. methods: by the name of their entry; they make one step. also: by name, what
    else a copy of the network is to go through, such as a step of training. attacked: makes a copy
    of the network the subject of metrics and attacks.

    A network whose predictions are not what they should be, or that cannot be copied, is asked no
    more: the rest would fail of the same.
    """
    for what, check in CHECKS.items():
        yield (trial := _tried(what, partial(check, model, objective, sets["retain"])))
        if trial.fault:
            return
    for what, step in (also or {}).items():
        yield _tried(what, partial(step, copy.deepcopy(model)))
    yield _tried(
        "influence",
        lambda: influences.influence(copy.deepcopy(model), objective, sets["forget"], influence),
    )
    for name, method in methods.items():
        yield _tried(
            f"unlearn.{name}",
            partial(_unlearn, copy.deepcopy(model), objective, sets, method, classes),
        )
    yield from _attacks(partial(attacked, copy.deepcopy(model)))


def few(labels: np.ndarray, classes: tuple[int, ...] = ()) -> dict[str, list[int]]:
    """Rows for each set that ``rehearse`` takes, of at most ``CLASSES`` labels, ``classes`` first.

    Of a label with few samples some are taken several times.
    """
    others = [label for label in np.unique(labels).tolist() if label not in classes]
    rows: dict[str, list[int]] = {n: [] for n in ("forget", "retain", "validation", "test")}
    for label in [*classes, *others][:CLASSES]:
        own = np.resize(np.flatnonzero(labels == label)[:EACH], EACH).tolist()
        half, quarter = EACH // 2, EACH // 4
        forgotten = half if label in classes else 0 if classes else 1
        rows["forget"] += own[:forgotten]
        rows["retain"] += own[forgotten:half]
        rows["validation"] += own[half : half + quarter]
        rows["test"] += own[half + quarter :]
    return rows


def shortened(config: T) -> T:
    """``config`` with whatever it does often done once, also within its parts."""
    changes: dict[str, Any] = {}
    for field in fields(config) if is_dataclass(config) else ():
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = shortened(value)
        elif field.name in ONCE:
            changes[field.name] = min(value, 1)
    return replace(config, **changes)  # type: ignore[type-var]


def _tried(what: str, action: Callable[[], object]) -> Trial:
    begin, fault = perf_counter(), ""
    try:
        action()
    except (_Fault, ValueError) as error:
        fault = str(error)
    except Exception as error:  # the user's code may raise anything; it must be named
        fault = f"{type(error).__name__}: {error}"
    return Trial(what, perf_counter() - begin, fault)


def _check_predictions(model: nn.Module, objective: Objective, samples: Samples) -> None:
    low = {p.dtype for p in model.parameters() if p.is_floating_point()} & LOW
    if low:
        name = str(next(iter(low))).removeprefix("torch.")
        raise _Fault(
            f"the weights are {name}, in which steps of training are lost: return network.float() "
            "from the factory. train.precision: bfloat16 computes in it and keeps weights float32"
        )
    logits = predictions(model, objective, samples.inputs)
    if logits.dtype in LOW:
        raise _Fault(
            f"predictions are {str(logits.dtype).removeprefix('torch.')}: return them as float32"
        )
    if not logits.isfinite().all():
        raise _Fault("predictions are not finite: images or weights are not what they should be")


def _check_logits(model: nn.Module, objective: Objective, samples: Samples) -> None:
    logits = predictions(model, objective, samples.inputs).double()
    likely = ((logits >= 0) & (logits <= 1)).all() and logits.shape[-1] > 1
    if likely and ((logits.sum(-1) - 1).abs() < CLOSE).all():
        raise _Fault(
            "predictions are probabilities: each row sums to 1. The loss and every method take "
            "logits: return what enters the softmax"
        )


def _check_same(model: nn.Module, objective: Objective, samples: Samples) -> None:
    first, second = (predictions(model, objective, samples.inputs) for _ in range(2))
    if not _close(first, second):
        raise _Fault(
            "two passes in evaluation mode differ: something random is always on. Dropout as a "
            "function needs training=self.training: F.dropout(x, p, self.training)"
        )
    if not _close(first, predictions(model, objective, samples.inputs, batch_size=1)):
        raise _Fault(
            "what is predicted for a sample in evaluation mode depends on the others of its "
            "batch. BatchNorm as a function needs training=self.training, and no layer may be put "
            "into training mode in forward"
        )


def _check_copy(model: nn.Module, objective: Objective, samples: Samples) -> None:
    with evaluating(model):
        logits = objective.logits(model, samples.inputs)
    if not logits.requires_grad:
        raise _Fault(
            "predictions do not depend on any parameter that requires a gradient: forward must "
            "not detach them or run under no_grad, and some parameters must be trainable"
        )
    try:
        copy.deepcopy(model)  # after a pass with gradients, which leaves traces in some
    except Exception as error:
        raise _Fault(
            f"the network cannot be copied, which every method needs ({type(error).__name__}: "
            f"{error}). In place of torch.nn.utils.weight_norm and spectral_norm take those of "
            "torch.nn.utils.parametrizations, or remove them in the factory"
        ) from error


CHECKS: dict[str, Callable[[nn.Module, Objective, Samples], None]] = {
    "predictions": _check_predictions,
    "logits": _check_logits,
    "evaluation mode": _check_same,
    "gradients and copies": _check_copy,
}
LOW = {torch.bfloat16, torch.float16}


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=CLOSE, atol=CLOSE)


def _unlearn(
    model: nn.Module,
    objective: Objective,
    sets: Mapping[str, Samples],
    method: Method,
    classes: tuple[int, ...],
) -> None:
    forget = methods.ForgetSet(
        samples=sets["forget"],
        classes=classes,
        target_accuracy=NEVER if classes else 100.0,
        target_margin=inf if classes else NEVER,
    )
    given: dict[str, Callable[[], Any]] = {
        "forget": lambda: forget,
        "influence": lambda: torch.ones(len(forget.samples), device=forget.samples.targets.device),
        "retain": lambda: sets["retain"],
    }
    # Few samples, a network that is not trained: that a method gives up here says nothing.
    with suppress(methods.UnlearningError):
        steps = methods.run(
            method.method, model, objective, shortened(method.config), seed=0, available=given
        )
        for _ in steps:
            pass


def _attacks(attacked: Callable[[], metrics.Subject]) -> Iterator[Trial]:
    """Every metric and attack of one model, by the name of its file."""
    made: list[metrics.Subject] = []
    yield (trial := _tried("answers", lambda: made.append(attacked())))
    if trial.fault:
        return
    subject = made[0]
    outputs = subject.outputs
    for module in metrics.modules(outputs.objective, head=metrics.has_features(outputs)):
        name = module.__name__.rpartition(".")[2]
        if hasattr(module, "measure"):
            yield _tried(name, partial(module.measure, outputs))
        if hasattr(module, "attack"):
            short = {"steps": 1} if "steps" in inspect.signature(module.attack).parameters else {}
            yield _tried(name, partial(module.attack, subject, **short))
