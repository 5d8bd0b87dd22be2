"""IMU as published (arXiv 2508.01620, section 3), without its programming errors.

Kept, choice by choice: cross-entropy, influence-weighted ascent Σ w_i CE_i / Σ w_i on shuffled
batches; SGD with momentum 0.9 and weight decay 5e-4 for a few epochs; the term α‖head‖₁; only
the head is trained; the network runs in training mode, so BatchNorm uses batch statistics and
its running statistics drift towards the forget set (``freeze_batch_norm`` switches this off).

Not kept from the authors' program: the sum of gradients that aliases the first sample, the search
of the head by the substring "fc", the fixed CUDA device, images augmented differently in the two
passes. The number of epochs is fixed and there is no stopping rule, as in the paper.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.models import features_and_logits, head, only_head_trains
from imu.unlearn import ForgetSet, Step, freeze_batch_norm, measured

NEEDS = frozenset({"forget", "influence"})


@dataclass(frozen=True, kw_only=True)
class Config:
    learning_rate: float = 0.01
    epochs: int = 5
    batch_size: int = 64  # samples; the last batch of an epoch may be smaller
    momentum: float = 0.9
    weight_decay: float = 5e-4
    alpha: float = 0.0  # factor of the head's L1 norm (sum of absolute weights)
    freeze_batch_norm: bool = False

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        if self.epochs < 0:
            raise ValueError(f"epochs must be >= 0, got {self.epochs}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be >= 2 (batch statistics), got {self.batch_size}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        for name in ("weight_decay", "alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


def unlearn(
    model: nn.Module,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    influence: Tensor,
) -> Iterator[Step]:
    """Ascend the weighted cross-entropy of the forget set; yields once per epoch.

    influence: (n,), the weights w_i >= 0 of ``imu.influence.ascent_weights``.
    """
    n = len(forget.labels)
    layer = head(model)
    optimizer = torch.optim.SGD(
        layer.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    updates = 0
    yield measured(updates, features_and_logits(model, forget.images)[1], forget.labels)
    for _ in range(config.epochs):
        model.train()
        if config.freeze_batch_norm:
            freeze_batch_norm(model)
        for batch in torch.randperm(n, generator=generator).split(config.batch_size):
            weights = influence[batch]
            # A batch without weight has no gradient, and one sample has no batch statistics.
            if not weights.sum() > 0 or len(batch) < 2:
                continue
            with only_head_trains(model):
                logits = model(forget.images[batch])  # (b, classes)
            losses = F.cross_entropy(logits, forget.labels[batch], reduction="none")  # (b,)
            l1 = sum(parameter.abs().sum() for parameter in layer.parameters())
            objective = -(weights * losses).sum() / weights.sum() + config.alpha * l1
            model.zero_grad()
            objective.backward()
            optimizer.step()
            updates += 1
        yield measured(updates, features_and_logits(model, forget.images)[1], forget.labels)
