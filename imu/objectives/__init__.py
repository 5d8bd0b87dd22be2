"""What a task is: how a network predicts, the loss of one sample, and where influence lies.

Influence and unlearning know a task only through ``Objective``. Predictions are classifications
at one or more *positions* per sample: an image has one, a token sequence one per token. A position
with the target IGNORED (padding, a prompt) counts for nothing, as in ``F.cross_entropy``.

    classification of images     logits (n, classes),           targets (n,)
    language model, sequences    logits (n, positions, classes), targets (n, positions)
    person re-identification     logits (n, identities),        targets (n,)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.models import WITHOUT_HEAD, evaluating, head, head_name

IGNORED = -100  # torch's ``ignore_index``
Inputs = Tensor | Mapping[str, Tensor]


class Objective(Protocol):
    """A task. ``Classification`` is the one that ships.

    Influence and plain ascent follow ``losses``. Methods with a loss of their own (NPO, DELETE and
    the like) are stated for softmax probabilities and take these from ``logits``. Methods that
    perturb inputs need ``bounds``, and refuse a task that has none.
    """

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Range of valid inputs; None where they cannot be perturbed, as token numbers cannot."""

    def logits(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Predictions for ``inputs``, differentiable: (n, *positions, classes)."""

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each sample, a mean over its positions: (n,)."""

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the modules or parameters that carry influence."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Images with one label each, cross-entropy, influence on the head.

    Inputs are images in [0, 1], or as they are stored: integers, which are divided by ``scale``.
    The network sees (x − mean) / std, on its own device. mean, std: one number, or one per channel.
    """

    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    scale: float = 255.0
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def logits(self, model: nn.Module, inputs: Inputs) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise TypeError(f"images must be one tensor, got {type(inputs).__name__}")
        device = next(model.parameters(), inputs).device
        logits: Tensor = model(normalised(inputs.to(device), self.scale, self.mean, self.std))
        return logits

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return (head_name(model),)


def normalised(
    images: Tensor,
    scale: float,
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
) -> Tensor:
    """What a network sees of images (n, channels, height, width): (x − mean) / std.

    Integers are divided by ``scale`` and become float32. mean, std: one number, or one per channel.
    """
    if not images.is_floating_point():
        images = images.float() / scale
    middle, spread = (
        images.new_tensor(number)[:, None, None] if isinstance(number, tuple) else number
        for number in (mean, std)
    )
    return (images - middle) / spread


@dataclass(frozen=True)
class Samples:
    """Inputs, a tensor or several by name, each (n, ...), and targets (n, *positions), int64.

    Raises ValueError when they do not have one row per sample, or targets are not int64.
    """

    inputs: Inputs
    targets: Tensor

    def __post_init__(self) -> None:
        if self.targets.dtype != torch.int64:
            raise ValueError(f"targets must be int64, got {self.targets.dtype}")
        named = self.inputs if isinstance(self.inputs, Mapping) else {"inputs": self.inputs}
        for name, tensor in named.items():
            if len(tensor) != len(self.targets):
                raise ValueError(
                    f"{name} must have one row per sample, got {len(tensor)} rows "
                    f"for {len(self.targets)} targets"
                )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Tensor | slice) -> "Samples":
        return Samples(rows(self.inputs, index), self.targets[index])

    def batches(self, size: int) -> "list[Samples]":
        """All samples in order, at most ``size`` at a time."""
        return [self[at : at + size] for at in range(0, len(self), size)]


def mean_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each sample, the mean over its predicted positions: (n,)."""
    return mean_over_positions(cross_entropies(logits, targets), targets)


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """−log p_y at every position, 0 where the target is IGNORED: (n, *positions).

    logits: (n, *positions, classes). targets: (n, *positions). As −log σ(margin), whose value and
    gradient keep their digits where p_y rounds to 1, as it does on what a network has memorised.
    """
    return -F.logsigmoid(margins(logits, targets)).masked_fill(targets == IGNORED, 0.0)


def log_unlikelihoods(logits: Tensor, targets: Tensor) -> Tensor:
    """log(1 − p_y) at every position, 0 where the target is IGNORED: (n, *positions).

    As log σ(−margin), for the same reason. Source: Welleck et al. 2020, arXiv 1908.04319.
    """
    return F.logsigmoid(-margins(logits, targets)).masked_fill(targets == IGNORED, 0.0)


def margins(logits: Tensor, targets: Tensor) -> Tensor:
    """log(p_y / (1 − p_y)) = z_y − log Σ_{k≠y} exp z_k at every position: (n, *positions).

    Where the target is IGNORED the value means nothing.
    """
    index = targets.clamp(min=0)[..., None]  # (n, *positions, 1)
    own = logits.gather(-1, index)[..., 0]
    return own - logits.scatter(-1, index, -torch.inf).logsumexp(-1)


def mean_over_positions(values: Tensor, targets: Tensor) -> Tensor:
    """Mean of ``values`` (n, *positions) over the predicted positions of each sample: (n,).

    A sample of which no position is predicted has the value 0.
    """
    shares = position_weights(values.new_ones(len(values)), targets)
    return (shares * values)[..., None].flatten(1).sum(1)


def position_weights(weights: Tensor, targets: Tensor) -> Tensor:
    """Each sample's weight (n,), shared equally among its predicted positions: (n, *positions)."""
    predicted = (targets != IGNORED).to(weights)[..., None].flatten(1)  # (n, positions)
    shares = predicted / predicted.sum(1, keepdim=True).clamp(min=1)
    return (weights[:, None] * shares).view(targets.shape)


@torch.no_grad()
def predictions(
    model: nn.Module, objective: Objective, inputs: Inputs, batch_size: int = 512
) -> Tensor:
    """Logits in evaluation mode, without gradient: (n, *positions, classes).

    The training mode of every module is put back afterwards.
    """
    starts = _starts(inputs, batch_size)
    with evaluating(model):
        return torch.cat(
            [objective.logits(model, rows(inputs, slice(at, at + batch_size))) for at in starts]
        )


def features_and_logits(
    model: nn.Module, objective: Objective, inputs: Inputs, batch_size: int = 512
) -> tuple[Tensor, Tensor]:
    """What enters the head, (n, *positions, d), and ``predictions``, from one pass.

    Raises ValueError when the network has no linear head, or does not call it once per batch.
    """
    seen: list[Tensor] = []
    hook = head(model).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        logits = predictions(model, objective, inputs, batch_size)
    finally:
        hook.remove()
    passes = len(_starts(inputs, batch_size))
    if len(seen) != passes:
        raise ValueError(
            f"the head {head_name(model)!r} must be called once per pass, got {len(seen)} calls "
            f"in {passes}. {WITHOUT_HEAD}"
        )
    return torch.cat(seen), logits


def rows(inputs: Inputs, index: Tensor | slice) -> Inputs:
    """The given samples of ``inputs``."""
    if isinstance(inputs, Mapping):
        return {name: tensor[index] for name, tensor in inputs.items()}
    return inputs[index]


def _starts(inputs: Inputs, batch_size: int) -> range:
    """Where each batch begins; without samples there is one, empty."""
    count = len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)
    return range(0, max(count, 1), batch_size)
