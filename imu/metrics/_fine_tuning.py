"""The computation of ``fine_tune_relearning``, whose text says what it is."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import islice

import torch
from torch import Tensor, nn

from imu.metrics import BATCH as PASS
from imu.metrics import Subject
from imu.metrics.fine_tune_relearning import MAX_STEPS, TOLERANCE
from imu.models import head
from imu.models.common import optimizers
from imu.objectives import Samples, predictions

# Chosen on digits: an untouched network regains the class in 10 steps, retrained ones in 21 to 29.
# At 5 times this rate all of them soon name the class everywhere.
LEARNING_RATE = 0.002
MOMENTUM = 0.9
BATCH = 16  # forget samples of a step, and as many validation samples
MEASURED = 500  # samples of each held-out set at most: an accuracy to 2 points, 40 times and more
COUNTS = (1, 2, 5, 10, 20)  # forget samples to relearn from, besides the half
EVERY = 4  # steps between two looks at whether so few regain it; a divisor of MAX_STEPS


def attack(subject: Subject, steps: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(subject.outputs.seed)
    training, measured = _halves(subject, generator)
    others = _others(subject)
    target = subject.original_accuracy - TOLERANCE
    seed = int(torch.randint(2**31, (), generator=generator))

    def curve(count: int, every: int) -> Iterator[float]:
        return islice(_relearn(subject, training[:count], others, measured, seed, every), steps)

    def regains(count: int) -> bool:
        return any(accuracy >= target for accuracy in curve(count, EVERY))

    course = list(curve(len(training), 1))
    reached = [step for step, accuracy in enumerate(course, 1) if accuracy >= target]
    values = {"relearn_auc": sum(course) / len(course)}
    if _accuracy(subject.model, subject, measured) >= target:
        return values | {"relearn_steps": 0.0, "relearn_samples": 0.0}
    if not reached:
        whole = float(len(subject.samples["forget"]))
        return values | {"relearn_steps": float(MAX_STEPS), "relearn_samples": whole}
    counts = [count for count in COUNTS if count < len(training)] + [len(training)]
    low, high = 0, len(counts) - 1  # the half is known to regain it
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if regains(counts[middle]) else (middle + 1, high)
    return values | {"relearn_steps": float(reached[0]), "relearn_samples": float(counts[low])}


def _halves(subject: Subject, generator: torch.Generator) -> tuple[Samples, list[Samples]]:
    """What is relearned from; the other half and as many retained samples, to measure on."""
    forget, retain = subject.samples["forget"], subject.samples["retain"]
    order = torch.randperm(len(forget), generator=generator).to(forget.targets.device)
    half = len(forget) // 2
    asked = order[half:][:MEASURED]
    control = torch.randperm(len(retain), generator=generator)[: len(asked)]
    held_out = [forget[asked], retain[control.to(retain.targets.device)]]
    return forget[order[:half]], held_out


def _others(subject: Subject) -> Samples:
    validation = subject.samples["validation"]
    classes = validation.targets.new_tensor(subject.outputs.forget_classes)
    return validation[~torch.isin(validation.targets, classes)]


def _relearn(
    subject: Subject,
    forget: Samples,
    others: Samples,
    measured: list[Samples],
    seed: int,
    every: int,
) -> Iterator[float]:
    """Accuracy after ``every`` so many steps of fine-tuning a copy."""
    generator = torch.Generator().manual_seed(seed)
    model = deepcopy(subject.model).eval().requires_grad_(True)
    _start_afresh(head(model), subject.outputs.forget_classes)
    optimizer = optimizers.sgd(model.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    for step in range(1, MAX_STEPS + 1):
        batches = [_drawn(samples, generator) for samples in (forget, others)]
        losses = torch.cat([_losses(model, subject, batch) for batch in _merged(batches)])
        loss = torch.stack([part.mean() for part in losses.split(list(map(len, batches)))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % every == 0:
            yield _accuracy(model, subject, measured)


def _start_afresh(layer: nn.Linear, classes: tuple[int, ...]) -> None:
    kept = [row for row in range(layer.out_features) if row not in classes]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter[list(classes)] = parameter[kept].mean(0)


def _drawn(samples: Samples, generator: torch.Generator) -> Samples:
    rows = torch.randperm(len(samples), generator=generator)[:BATCH]
    return samples[rows.to(samples.targets.device)]


def _merged(batches: list[Samples]) -> list[Samples]:
    """One batch of all, which takes two thirds of the time, where their inputs are of one kind.

    Images in [0, 1] and images as stored are not.
    """
    inputs = [batch.inputs for batch in batches]
    kinds = {(x.dtype, x.shape[1:]) for x in inputs if isinstance(x, Tensor)}
    if len(kinds) != 1 or not all(isinstance(x, Tensor) for x in inputs):
        return batches
    targets = torch.cat([batch.targets for batch in batches])
    return [Samples(torch.cat([x for x in inputs if isinstance(x, Tensor)]), targets)]


def _losses(model: nn.Module, subject: Subject, batch: Samples) -> Tensor:
    return subject.objective.losses(subject.objective.logits(model, batch.inputs), batch.targets)


def _accuracy(model: nn.Module, subject: Subject, measured: list[Samples]) -> float:
    """The lowest accuracy in % over the sets; NaN answers nothing."""
    accuracies = []
    for samples in measured:
        logits = predictions(model, subject.objective, samples.inputs, PASS)
        right = (logits.argmax(-1) == samples.targets) & ~logits.isnan().any(-1)
        accuracies.append(100 * right.double().mean().item())
    return min(accuracies)
