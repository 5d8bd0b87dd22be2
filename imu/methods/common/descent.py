"""The loop that most methods share: minimise something by SGD and watch the forget set."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import REMEDY, ForgetSet, Step, measured
from imu.models import evaluating, head, only_trains, trainable
from imu.models.common import optimizers
from imu.objectives import (
    Answered,
    Objective,
    Samples,
    answered,
    at_positions,
    features_and_logits,
    predicted_first,
)

MASKED_LOGIT = -1e4
UNSEEN = 7.0  # logits below the mean of the others, of a class that a network of digits never saw
MEASUREMENTS = 4  # per epoch at most, evenly spread: each is a pass over the forget set


@dataclass(frozen=True, kw_only=True)
class Sgd:
    learning_rate: float
    epochs: int  # at most, where it stops at the target
    batch_size: int = 64  # samples; the last batch of an epoch may be smaller
    momentum: float = 0.9
    weight_decay: float = 0.0
    stop_at_target: bool = True  # end as soon as the forget set is at its target

    def __post_init__(self) -> None:
        check_fields(self, learning_rate="> 0", epochs=">= 0", batch_size=">= 1")
        check_fields(self, momentum="in [0, 1)", weight_decay=">= 0")

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> optimizers.Optimizer:
        return optimizers.sgd(
            parameters,
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


def descend(
    model: nn.Module,
    objective: Objective,
    forget: ForgetSet,
    loss: Callable[[Tensor], Tensor],
    sgd: Sgd,
    generator: torch.Generator,
    *,
    among: int | None = None,
    parameters: Iterable[nn.Parameter] | None = None,
    logits: Callable[[], Tensor] | None = None,
) -> Iterator[Step]:
    """Minimise ``loss`` over shuffled batches of row numbers, in evaluation mode.

    Evaluation mode freezes BatchNorm's statistics and switches dropout off, so what is trained is
    what is measured. It ends after ``sgd.epochs``, or when the forget set is at its target.

    loss: row numbers (b,) -> scalar. among: how many rows there are; default the forget samples.
    parameters: which are trained; default all. logits: how to predict the forget set; default a
    pass through the network. Raises FloatingPointError, naming the update, when the loss is not
    finite.
    """
    trained = list(trainable(model).values() if parameters is None else parameters)
    optimizer = sgd.optimizer(trained)
    count = len(forget.samples) if among is None else among
    watch = watcher(model, objective, forget, logits)
    updates = 0
    yield (now := (first := watch(0)))
    for _ in range(sgd.epochs):
        batches = torch.randperm(count, generator=generator).split(sgd.batch_size)
        for number, rows in enumerate(batches, 1):
            if sgd.stop_at_target and forget.reached(first, now):
                return
            update(model, optimizer, trained, partial(loss, rows), updates + 1)
            updates += 1
            due = number * MEASUREMENTS // len(batches)
            if due > (number - 1) * MEASUREMENTS // len(batches):
                yield (now := watch(updates))


def update(
    model: nn.Module,
    optimizer: optimizers.Optimizer,
    trained: Iterable[nn.Parameter],
    loss: Callable[[], Tensor],
    number: int,
) -> None:
    """One step of ``optimizer`` down ``loss``, in evaluation mode."""
    with evaluating(model), only_trains(model, trained):
        value = loss()
        optimizer.zero_grad()
        value.backward()
    if not value.isfinite():
        raise FloatingPointError(f"the objective is {value.item()} in step {number}; {REMEDY}")
    optimizer.step()


def watcher(
    model: nn.Module,
    objective: Objective,
    forget: ForgetSet,
    logits: Callable[[], Tensor] | None = None,
) -> Callable[[int], Step]:
    """A function that tells the ``Step`` of the forget set after so many updates."""

    def watch(updates: int) -> Step:
        if logits is None:
            return measured(updates, answered(model, objective, forget.samples))
        return measured(updates, Answered.of(objective, logits(), forget.samples.targets))

    return watch


def cached_head(
    model: nn.Module, objective: Objective, forget: ForgetSet
) -> tuple[nn.Linear, Tensor, ForgetSet]:
    """The head, what enters it where something is predicted, computed once, and its forget set.

    Of several positions those that are predicted come first and the rest is cut off, in features
    (n, k, d) and targets (n, k) alike, k the most that a sample has: one is as good as another.
    Raises ValueError when the task's predictions are not the head's output.
    """
    features, logits = features_and_logits(model, objective, forget.samples.inputs)
    layer, targets = checked_head(model, features, logits), forget.samples.targets
    if targets.dim() == 2:
        order = predicted_first(targets)  # (n, k)
        targets, features = targets.gather(1, order), at_positions(features, order)
        forget = replace(forget, samples=Samples(forget.samples.inputs, targets))
    return layer, features, forget


def mask(layer: nn.Linear, classes: tuple[int, ...]) -> None:
    """Give ``classes`` the logit ``MASKED_LOGIT``, whatever enters the head.

    Softmax then gives them exactly 0 in float32. Raises ValueError for a head without a bias.
    """
    needs_bias(layer)
    with torch.no_grad():
        layer.weight[list(classes)] = 0.0
        layer.bias[list(classes)] = MASKED_LOGIT


def lower(
    layer: nn.Linear,
    classes: tuple[int, ...],
    depth: float,
    forgotten: Tensor,
    kept: Tensor,
    generator: torch.Generator,
) -> None:
    """Give ``classes`` rows like those of classes that were never seen.

    The row of a class without samples begins at random and only ever descends its own probability
    p: with every sample it moves along −p [h, 1]. So it ends near

        [w, b]_c = mean of the others' − [a k̄, depth − a ⟨f̄, k̄⟩] + ε,    a = depth / (‖k̄‖² + 1)

    f̄, k̄: the mean of ``forgotten`` and of ``kept`` (..., d), features of the classes and of what
    stays. ε: as ``nn.Linear`` begins, uniform within ±1/√d. The bias, a itself were both means one,
    sees to it that at f̄ the logits are the mean of the others' less ``depth``, in the mean over ε.
    Raises ValueError for a head without a bias, or without another class.
    """
    needs_bias(layer)
    others = [k for k in range(layer.out_features) if k not in classes]
    if not others:
        raise ValueError("every class is to be forgotten: there is none to lower them below")
    at, along = (of.flatten(0, -2).mean(0) for of in (forgotten, kept))  # (d,)
    drawn = 2 * torch.rand(len(classes), len(along) + 1, generator=generator) - 1
    drawn = drawn.to(along) / len(along) ** 0.5  # (classes, d + 1)
    away = depth / (along @ along + 1) * along
    below = depth - at @ away
    with torch.no_grad():
        layer.weight[list(classes)] = layer.weight[others].mean(0) - away + drawn[:, :-1]
        layer.bias[list(classes)] = layer.bias[others].mean() - below + drawn[:, -1]


def needs_bias(layer: nn.Linear) -> None:
    """Raises ValueError for a head without one: a class's logit cannot be set in it."""
    if layer.bias is None:
        raise ValueError("forgetting a class needs a head with a bias, to set its logit")


def checked_head(model: nn.Module, features: Tensor, logits: Tensor) -> nn.Linear:
    """The head. Raises ValueError when the task's predictions are not its output."""
    layer = head(model)
    if features.shape[:-1] != logits.shape[:-1] or layer.out_features != logits.shape[-1]:
        raise ValueError(
            f"the head gives {(*features.shape[:-1], layer.out_features)}, the task predicts "
            f"{tuple(logits.shape)}: methods that move the head alone, or its input, need them to "
            "be the same. Shift targets rather than logits, and let IGNORED mark what is not "
            "predicted"
        )
    return layer
