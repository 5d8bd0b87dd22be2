"""WGA: gradient ascent whose strength follows the remaining confidence.

Ascends mean_i p_i^β CE_i with p_i = p(y_i | x_i) held constant in the gradient, at every position:
what is forgotten is pushed no further. β = 0 is gradient ascent. Source: Wang et al. 2025,
"Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond", arXiv 2502.19301.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.objectives import Objective, cross_entropies, mean_over_positions

NEEDS = frozenset({"forget"})
SEARCH = {
    "beta": (0.5, 1.0),
    "sgd.learning_rate": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    beta: float = 0.5  # exponent of the confidence
    sgd: Sgd = Sgd(learning_rate=0.0003, epochs=50)

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"beta must be >= 0, got {self.beta}")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend −mean p^β CE."""

    def loss(rows: Tensor) -> Tensor:
        batch = forget.samples[rows]
        losses = cross_entropies(objective.logits(model, batch.inputs), batch.targets)
        weighted = (-config.beta * losses.detach()).exp() * losses  # p^β = exp(−β CE)
        return -mean_over_positions(weighted, batch.targets).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator)
