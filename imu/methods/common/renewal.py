"""Training on the retain set as at first: with a course of the learning rate, and BatchNorm that
measures its batches. For methods that begin parts of a network anew."""

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from imu.methods import ForgetSet, Step
from imu.methods.common.block import last_block
from imu.methods.common.descent import Sgd, update, watcher
from imu.models import head
from imu.models.common import optimizers
from imu.objectives import Objective, Samples
from imu.training.augmentation import augmented, draw

WARMUP = 0.2  # share of the updates in which the learning rate rises; then it falls to 0


def last_modules(model: nn.Module, count: int) -> list[nn.Module]:
    """The last ``count`` blocks, and the head; the head alone where no block can be trained."""
    layer = head(model)
    if not any(p.requires_grad for p in set(model.parameters()) - set(layer.parameters())):
        return [layer]
    return [*(model.get_submodule(name) for name in last_block(model, count)), layer]


def begin_anew(modules: Iterable[nn.Module], generator: torch.Generator) -> None:
    """Weights and statistics of ``modules`` as at first, under a seed that ``generator`` draws.

    Drawn on the CPU: the same on every device. Parameters that require no gradient stay.
    Raises ValueError where a part has weights and no way to begin.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for part in (part for module in modules for part in module.modules()):
            if hasattr(part, "reset_parameters"):
                drawn: Any = copy.deepcopy(part).cpu()
                drawn.reset_parameters()
                frozen = {name for name, p in part.named_parameters() if not p.requires_grad}
                fresh = {n: of for n, of in drawn.state_dict().items() if n not in frozen}
                part.load_state_dict(fresh, strict=False)
            elif any(True for _ in part.parameters(recurse=False)):
                raise ValueError(f"{type(part).__name__} has weights that cannot begin anew")


@torch.no_grad()
def mix_fresh(
    model: nn.Module, modules: Iterable[nn.Module], share: float, generator: torch.Generator
) -> list[nn.Module]:
    """Shrink and perturb the weights outside of ``modules`` (Ash & Adams 2020, arXiv 1910.08475).

    θ := (1 − share) θ + share · fresh, of matrices and kernels; others stay. Returns the parts.
    """
    inside = {part for module in modules for part in module.modules()}
    outside = (part for part in model.modules() if part not in inside)
    parts = [part for part in outside if any(True for _ in part.parameters(recurse=False))]
    fresh = copy.deepcopy(parts)
    begin_anew(fresh, generator)
    for part, new in zip(parts, fresh, strict=True):
        for weight, drawn in zip(part.parameters(), new.parameters(), strict=True):
            if weight.dim() > 1:
                weight.lerp_(drawn, share)
    return parts


def never_stops(sgd: Sgd) -> None:
    """Raises ValueError where the settings stop at the target."""
    if sgd.stop_at_target:
        raise ValueError(
            "sgd.stop_at_target must be false: what is begun has to be trained to its end"
        )


def train_again(
    model: nn.Module,
    objective: Objective,
    forget: ForgetSet,
    retain: Samples,
    modules: Iterable[nn.Module],
    sgd: Sgd,
    generator: torch.Generator,
    *,
    measuring: Iterable[nn.Module] = (),
    shift: int = 0,
) -> Iterator[Step]:
    """Descend the loss of the retain set over ``modules``, in training mode; the rest is frozen.

    measuring: others in training mode, which measure their batches. shift: pixels that images are
    moved by at most, in each direction, in the first epoch. The learning rate rises to
    ``sgd.learning_rate`` in the first fifth of the updates and falls to 0. Raises
    FloatingPointError, naming the update, when the loss is not finite, and ValueError for a shift
    of what is no images.
    """
    if shift and not (isinstance(retain.inputs, Tensor) and retain.inputs.dim() == 4):
        raise ValueError(f"shift must be 0 where inputs are not images, got {shift}")
    modules = list(modules)
    every = dict.fromkeys(parameter for part in modules for parameter in part.parameters())
    trained = [parameter for parameter in every if parameter.requires_grad]
    batches = ceil(len(retain) / sgd.batch_size)
    total = max(1, batches * sgd.epochs)
    optimizer = optimizers.sgd(
        trained,
        lambda step: sgd.learning_rate * _course((step + 1) / (total + 1)),
        momentum=sgd.momentum,
        weight_decay=sgd.weight_decay,
    )

    def loss(rows: Tensor) -> Tensor:
        for module in (*measuring, *modules):
            module.train()
        batch = retain[rows]
        inputs: Any = batch.inputs
        if shift and updates <= batches:
            moves = draw(len(rows), shift=shift, flip=False, generator=generator)
            inputs = augmented(inputs, moves, shift=shift, flip=False)
        return objective.losses(objective.logits(model, inputs), batch.targets).mean()

    watch, updates = watcher(model, objective, forget), 0
    for _ in range(sgd.epochs):
        order = torch.randperm(len(retain), generator=generator)
        for rows in order.tensor_split(batches):
            updates += 1
            update(model, optimizer, trained, partial(loss, rows), updates)
        yield watch(updates)


def _course(done: float) -> float:
    """Factor of the learning rate after a share of the updates."""
    return min(done / WARMUP, (1 - done) / (1 - WARMUP))
