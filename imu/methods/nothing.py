"""Do nothing: the original model. The baseline that shows what is left to forget."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from imu.methods import ForgetSet, Step
from imu.methods.common.descent import watcher
from imu.objectives import Objective

NEEDS = frozenset({"forget"})


@dataclass(frozen=True, kw_only=True)
class Config:
    pass


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Yields one step: the original model on the forget set."""
    yield watcher(model, objective, forget)(0)
