"""L2UL, instance-wise unlearning (Cha et al. 2024, "Learning to Unlearn", arXiv 2301.11578).

Minimises −CE(x, y) + a CE(x′, y′) + b Σ_k (1 − Ω_k)(θ_k − θ⁰_k)²: forget the samples, keep the
original's decisions near them, and keep the weights that the forget set does not need.
    x′, y′   L2-PGD neighbours of x driven towards a random wrong label y′
    Ω_k      mean_i |∂‖z(x_i)‖² / ∂θ_k| (MAS, arXiv 1711.09601), scaled to [0, 1] per tensor
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.adversarial import continuous, pgd
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.labels import random_other
from imu.models import evaluating, trainable
from imu.objectives import Objective, mean_cross_entropy, predictions

NEEDS = frozenset({"forget"})
SEARCH = {
    "importance": (1.0, 3.0),
    "sgd.learning_rate": (3e-5, 1e-4, 3e-4),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    adversarial: float = 0.1  # a, weight of the neighbours
    importance: float = 3.0  # b, weight of the importance penalty
    radius: float = 0.4  # L2, in the unit of the inputs
    attack_steps: int = 50
    sgd: Sgd = Sgd(learning_rate=0.0001, epochs=50)

    def __post_init__(self) -> None:
        check_fields(self, adversarial=">= 0", importance=">= 0", radius="> 0", attack_steps=">= 1")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the three terms."""
    images, targets = continuous(objective, forget.samples), forget.samples.targets
    classes = predictions(model, objective, images[:1]).shape[-1]
    wrong = random_other(targets, classes, generator)
    radius = torch.full((len(images),), config.radius, dtype=images.dtype, device=images.device)
    neighbours = pgd(model, objective, images, wrong, radius, config.attack_steps, towards=True)
    before = [parameter.detach().clone() for parameter in trainable(model).values()]
    unneeded = [1 - omega for omega in importances(model, objective, images)]

    def loss(rows: Tensor) -> Tensor:
        own = objective.losses(objective.logits(model, images[rows]), targets[rows])
        near = mean_cross_entropy(objective.logits(model, neighbours[rows]), wrong[rows])
        drift = sum(
            (share * (now - then).square()).sum()
            for share, now, then in zip(unneeded, trainable(model).values(), before, strict=True)
        )
        return -own.mean() + config.adversarial * near.mean() + config.importance * drift

    yield from descend(model, objective, forget, loss, config.sgd, generator)


def importances(model: nn.Module, objective: Objective, images: Tensor) -> list[Tensor]:
    """Ω of every parameter, sample by sample: shapes of the parameters, values in [0, 1]."""
    parameters = list(trainable(model).values())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    with evaluating(model):
        for image in images:
            size = objective.logits(model, image[None]).square().sum()
            for mean, slope in zip(
                total, torch.autograd.grad(size, parameters, materialize_grads=True), strict=True
            ):
                mean += slope.abs() / len(images)
    spans = [(omega.min(), (omega.max() - omega.min())) for omega in total]
    return [
        (omega - low) / span if span > 0 else torch.ones_like(omega)
        for omega, (low, span) in zip(total, spans, strict=True)
    ]
