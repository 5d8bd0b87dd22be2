"""NPO, negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868).

Minimises (2/β) mean_i log(1 + (p_i / p_i^ref)^β) with p_i = p(y_i | x_i) and p^ref that of the
original model: the forget probabilities fall, and the pull ends as they do. For several positions
log p is their mean. β → 0 is gradient ascent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.objectives import Objective, Samples, answered, mean_cross_entropy

NEEDS = frozenset({"forget"})
SEARCH = {
    "beta": (1.0, 3.0, 10.0),
    "sgd.learning_rate": (3e-5, 1e-4, 3e-4),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    beta: float = 10.0  # inverse temperature of the preference
    sgd: Sgd = Sgd(learning_rate=0.0003, epochs=200)

    def __post_init__(self) -> None:
        check_fields(self, beta="> 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the NPO loss against the model as it was given."""
    loss = preference(model, objective, forget.samples, config.beta)
    yield from descend(model, objective, forget, loss, config.sgd, generator)


def preference(
    model: nn.Module, objective: Objective, samples: Samples, beta: float
) -> Callable[[Tensor], Tensor]:
    """The NPO loss of rows of ``samples`` against the model as it is now."""
    before = answered(model, objective, samples).losses

    def loss(rows: Tensor) -> Tensor:
        batch = samples[rows]
        now = mean_cross_entropy(objective.logits(model, batch.inputs), batch.targets)
        log_ratio = before[rows] - now  # log(p / p_ref)
        return 2 / beta * F.softplus(beta * log_ratio).mean()

    return loss
