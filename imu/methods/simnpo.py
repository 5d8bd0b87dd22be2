"""SimNPO: NPO without a reference model (Fan et al. 2024, arXiv 2410.07163).

Minimises −(2/β) mean_i log σ(β NLL_i − γ), NLL_i = −log p(y_i | x_i) averaged over positions. The
reward margin γ sets how improbable a sample must become before the pull ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.objectives import Objective, mean_cross_entropy

NEEDS = frozenset({"forget"})
SEARCH = {
    "beta": (1.0, 3.0, 10.0),
    "sgd.learning_rate": (3e-5, 1e-4, 3e-4),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    beta: float = 10.0  # inverse temperature
    gamma: float = 0.0  # reward margin, in the unit of beta × nats
    sgd: Sgd = Sgd(learning_rate=0.0003, epochs=200)

    def __post_init__(self) -> None:
        check_fields(self, beta="> 0", gamma=">= 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the SimNPO loss."""

    def loss(rows: Tensor) -> Tensor:
        batch = forget.samples[rows]
        losses = mean_cross_entropy(objective.logits(model, batch.inputs), batch.targets)
        return -2 / config.beta * F.logsigmoid(config.beta * losses - config.gamma).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator)
