"""Do nothing: the original model. The baseline that shows what is left to forget."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from imu.models import features_and_logits
from imu.unlearn import ForgetSet, Step, measured

NEEDS = frozenset({"forget"})


@dataclass(frozen=True, kw_only=True)
class Config:
    pass


def unlearn(
    model: nn.Module, config: Config, generator: torch.Generator, *, forget: ForgetSet
) -> Iterator[Step]:
    """Yields one step: the original model on the forget set."""
    yield measured(0, features_and_logits(model, forget.images)[1], forget.labels)
