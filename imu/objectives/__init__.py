"""What a task is: how a network predicts, the loss of one sample, and where influence lies.

Influence and unlearning know a task only through ``Objective``. A file here is one kind of problem
and offers its objective and the way from stored data to it:
    ``described(data, network, config) -> about``: what a model must know of its data, in JSON.
    ``built(network, config, about)``: a new model; ``begun``, where training begins from others
    than drawn weights: one with these.
    ``objective(about)``: how it is asked. ``samples(data, rows, about, device, *, perturbed)``:
    some rows as it takes them; perturbed: for methods that change inputs.
    ``NETWORKS``: the ``OBJECTIVE`` of networks that take them, where it is not the file's name.
A data set names its kind as ``objective``. Predictions are classifications
at one or more *positions* per sample: an image has one, a token sequence one per token. A position
with the target IGNORED (padding, a prompt) counts for nothing, as in ``F.cross_entropy``.

    classification of images     logits (n, classes),           targets (n,)
    language model, sequences    logits (n, positions, classes), targets (n, positions)
    sequences of states          likewise, a state being a token
    person re-identification     logits (n, people),            targets (n,)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.models import WITHOUT_HEAD, evaluating, head, head_name

IGNORED = -100  # torch's ``ignore_index``
Inputs = Tensor | Mapping[str, Tensor]
POSITIONS = 512  # of a pass that needs few numbers of each


class Objective(Protocol):
    """A task.

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


def asked_positions(targets: Tensor) -> Tensor:
    """How many positions of each sequence there are up to the last that is predicted: (n,).

    targets: (n, positions).
    """
    places = torch.arange(1, targets.shape[1] + 1, device=targets.device)
    return (places * (targets != IGNORED)).amax(1)


def position_weights(weights: Tensor, targets: Tensor) -> Tensor:
    """Each sample's weight (n,), shared equally among its predicted positions: (n, *positions)."""
    predicted = (targets != IGNORED).to(weights)[..., None].flatten(1)  # (n, positions)
    shares = predicted / predicted.sum(1, keepdim=True).clamp(min=1)
    return (weights[:, None] * shares).view(targets.shape)


def predicted_first(targets: Tensor) -> Tensor:
    """Where each sequence is predicted, in order, then the rest up to as many of each: (n, k).

    targets: (n, positions). k: the most that one has. ``gather`` takes them from a tensor.
    """
    predicted = targets != IGNORED
    most = int(predicted.sum(1).max()) if len(targets) else 0
    return predicted.int().argsort(dim=1, descending=True, stable=True)[:, :most]


def at_positions(values: Tensor, order: Tensor) -> Tensor:
    """Positions ``order`` (n, k) of values (n, positions, d): (n, k, d)."""
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[-1]))


class Answered(NamedTuple):
    """How well a network answers each sample, means over its positions: float64, (n,) each."""

    losses: Tensor
    right: Tensor  # share of the positions at which the target is the most probable
    margins: Tensor  # log(p_y / (1 − p_y))

    @classmethod
    def of(cls, objective: Objective, logits: Tensor, targets: Tensor) -> "Answered":
        """From logits (n, *positions, classes) and targets (n, *positions)."""
        if targets.dim() == 2:  # most positions of a text may be no answer
            order = predicted_first(targets)
            logits, targets = at_positions(logits, order), targets.gather(1, order)
        logits = logits.detach().double()
        right = (logits.argmax(-1) == targets).double()
        return cls(
            objective.losses(logits, targets),
            mean_over_positions(right, targets),
            mean_over_positions(margins(logits, targets), targets),
        )


def answered(model: nn.Module, objective: Objective, samples: Samples) -> Answered:
    """In evaluation mode; the predictions of ``POSITIONS`` positions are held at a time."""
    parts = [Answered.of(objective, *of) for of in _said(model, objective, samples)]
    return Answered(*(torch.cat(of_parts) for of_parts in zip(*parts, strict=True)))


def margins_at(model: nn.Module, objective: Objective, samples: Samples) -> Tensor:
    """``margins`` in evaluation mode: float64, (n, *positions)."""
    parts = _said(model, objective, samples)
    return torch.cat([margins(logits.double(), targets) for logits, targets in parts])


def _said(
    model: nn.Module, objective: Objective, samples: Samples
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and targets of ``POSITIONS`` positions at a time."""
    each = max(1, samples.targets[:1].numel())
    for batch in samples.batches(max(1, POSITIONS // each)):
        yield predictions(model, objective, batch.inputs), batch.targets


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
