"""One unlearning method per file.

A file offers
    ``NEEDS``: what the method may see, a subset of {"forget", "influence"};
    ``Config``: a frozen dataclass;
    ``unlearn(model, config, generator, **given)``: changes ``model`` in place and yields a
    ``Step`` before the first and after every update. ``given`` holds exactly what ``NEEDS`` names.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu import discovery


@dataclass(frozen=True, kw_only=True)
class ForgetSet:
    """All that a forget-only method is given besides the original model.

    images: (n, channels, height, width), normalised. labels: (n,).
    classes: the classes to be forgotten whole; empty for sample-wise forgetting.
    target_accuracy: %, where ascent stops: 0 for whole classes, else the accuracy that the
    original model had on data it had not seen (a number kept with the model).
    """

    images: Tensor
    labels: Tensor
    classes: tuple[int, ...]
    target_accuracy: float

    def __post_init__(self) -> None:
        if len(self.labels) == 0:
            raise ValueError("the forget set is empty: there is nothing to unlearn")


class Step(NamedTuple):
    step: int  # updates made so far
    loss: float  # mean cross-entropy on the forget set, evaluation mode
    accuracy: float  # % on the forget set, evaluation mode


def names() -> tuple[str, ...]:
    return discovery.names("imu.unlearn")


def run(
    method: str,
    model: nn.Module,
    config: Any,
    *,
    seed: int,
    available: Mapping[str, Callable[[], Any]],
) -> Iterator[Step]:
    """Unlearn with ``method``, handing it only what its ``NEEDS`` declare.

    available: how to load each kind of data; a loader that is not needed is never called.
    Raises ValueError for an unknown method or a need that ``available`` lacks, and
    FloatingPointError, naming the step, when the forget loss or a weight is not finite.
    """
    module = discovery.load("imu.unlearn", method)
    for part in ("NEEDS", "Config", "unlearn"):
        if not hasattr(module, part):
            raise ValueError(f"imu/unlearn/{method}.py lacks {part}")
    missing = module.NEEDS - available.keys()
    if missing:
        raise ValueError(f"{method} needs {sorted(missing)}, which this run does not provide")
    given = {need: available[need]() for need in sorted(module.NEEDS)}
    generator = torch.Generator().manual_seed(seed)
    for step in module.unlearn(model, config, generator, **given):
        finite = all(p.isfinite().all() for p in model.state_dict().values())
        if not (finite and step.loss == step.loss and abs(step.loss) != float("inf")):
            raise FloatingPointError(
                f"{method}: forget loss is {step.loss} and weights are "
                f"{'finite' if finite else 'not finite'} after step {step.step}; "
                "a smaller learning rate may help"
            )
        yield step


def measured(step: int, logits: Tensor, labels: Tensor) -> Step:
    """The ``Step`` of forget-set ``logits`` (n, classes) against ``labels`` (n,)."""
    logits = logits.detach()
    accuracy = 100 * (logits.argmax(1) == labels).double().mean().item()
    return Step(step, F.cross_entropy(logits, labels).item(), accuracy)


def freeze_batch_norm(model: nn.Module) -> None:
    """Evaluation mode for every BatchNorm layer: its running statistics stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
