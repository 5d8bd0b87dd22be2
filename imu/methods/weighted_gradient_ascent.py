"""WGA: gradient ascent whose strength follows the remaining confidence.

Ascends mean_i p_i^β CE_i with p_i = p(y_i | x_i) held constant in the gradient, at every position:
what is forgotten is pushed no further. β = 0 is gradient ascent. Source: Wang et al. 2025,
"Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond", arXiv 2502.19301.

SatImp ascends mean_i p_i^β (1 − p_i)^γ CE_i, γ = ``importance``, weights held constant likewise:
least is done where the model has no doubt. Source: Yang et al. 2025, "Exploring Criteria
of Loss Reweighting to Enhance LLM Unlearning", arXiv 2505.11953.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.objectives import Objective, cross_entropies, log_unlikelihoods, mean_over_positions

NEEDS = frozenset({"forget"})
SEARCH = {
    "beta": (0.5, 1.0, 2.0),
    "sgd.learning_rate": (1e-5, 3e-5, 1e-4),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    beta: float = 2.0  # exponent of the confidence
    importance: float = 0.0  # exponent of the doubt; 0: WGA
    sgd: Sgd = Sgd(learning_rate=0.0001, epochs=200)

    def __post_init__(self) -> None:
        check_fields(self, beta=">= 0", importance=">= 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend −mean p^β (1 − p)^importance CE."""

    def loss(rows: Tensor) -> Tensor:
        batch = forget.samples[rows]
        logits = objective.logits(model, batch.inputs)
        losses = cross_entropies(logits, batch.targets)
        exponents = -config.beta * losses  # log p^β = −β CE
        if config.importance:
            exponents = exponents + config.importance * log_unlikelihoods(logits, batch.targets)
        return -mean_over_positions(exponents.detach().exp() * losses, batch.targets).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator)
