"""Gradient ascent on the forget set (Graves et al. 2021, arXiv 2010.10981; Thudi et al. 2022).

Ascends the mean cross-entropy with SGD, over all parameters or the head alone, every sample
weighing the same. BatchNorm statistics are frozen and it stops at the target accuracy: both help
this baseline, which is meant to be a fair one.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from imu.models import features_and_logits, head, only_head_trains
from imu.unlearn import ForgetSet, Step, freeze_batch_norm, measured

NEEDS = frozenset({"forget"})


@dataclass(frozen=True, kw_only=True)
class Config:
    parameters: Literal["all", "head"] = "all"
    learning_rate: float = 0.01
    epochs: int = 50  # at most; it stops earlier at the target accuracy
    batch_size: int = 64  # samples; the last batch of an epoch may be smaller
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.parameters not in ("all", "head"):
            raise ValueError(f"parameters must be 'all' or 'head', got {self.parameters!r}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        if self.epochs < 0:
            raise ValueError(f"epochs must be >= 0, got {self.epochs}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {self.batch_size}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}")


def unlearn(
    model: nn.Module, config: Config, generator: torch.Generator, *, forget: ForgetSet
) -> Iterator[Step]:
    """Ascend the mean cross-entropy of the forget set; yields once per update."""
    whole = config.parameters == "all"
    optimizer = torch.optim.SGD(
        model.parameters() if whole else head(model).parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    updates = 0
    now = measured(updates, features_and_logits(model, forget.images)[1], forget.labels)
    yield now
    model.train()
    freeze_batch_norm(model)
    for _ in range(config.epochs):
        order = torch.randperm(len(forget.labels), generator=generator)
        for batch in order.split(config.batch_size):
            if now.accuracy <= forget.target_accuracy:
                return
            with nullcontext() if whole else only_head_trains(model):
                loss = -F.cross_entropy(model(forget.images[batch]), forget.labels[batch])
            model.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            now = measured(updates, features_and_logits(model, forget.images)[1], forget.labels)
            yield now
