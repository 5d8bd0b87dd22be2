"""ℓ1-sparse unlearning: fine-tune on the retain set under an L1 penalty (Jia et al. 2023, "Model
Sparsity Can Simplify Machine Unlearning", arXiv 2304.04934).

Descends CE on the retain set + γ_t ‖θ‖₁, γ_t = γ (1 − t / T) falling linearly over the T updates,
the schedule that the authors found best. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.models import trainable
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "gamma": (5e-4, 2e-3, 5e-3),
    "sgd.learning_rate": (1e-2, 3e-2),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    gamma: float = 0.002  # first factor of the sum of absolute parameters
    sgd: Sgd = Sgd(learning_rate=0.03, epochs=5, stop_at_target=False)

    def __post_init__(self) -> None:
        check_fields(self, gamma=">= 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend the penalised loss of the retain set; the forget set is only watched."""
    total = config.sgd.epochs * ceil(len(retain) / config.sgd.batch_size)
    factors = iter(config.gamma * (1 - update / total) for update in range(total))

    def loss(rows: Tensor) -> Tensor:
        batch = retain[rows]
        own = objective.losses(objective.logits(model, batch.inputs), batch.targets).mean()
        size = sum(parameter.abs().sum() for parameter in trainable(model).values())
        return own + next(factors) * size

    yield from descend(model, objective, forget, loss, config.sgd, generator, among=len(retain))
