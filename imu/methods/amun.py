"""AMUN: fine-tune on adversarial neighbours with their wrong labels (Ebrahimpour-Boroojeny et al.
2025, arXiv 2503.00917, algorithm 1).

For each forget sample the nearest PGD neighbour that the original takes for another class; cross-
entropy descends on these, and where ``with_forget`` on the forget samples with their own labels as
well, which keeps the change local.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.adversarial import continuous, nearest
from imu.methods.common.descent import Sgd, descend
from imu.objectives import Objective, mean_cross_entropy

NEEDS = frozenset({"forget"})
SEARCH = {
    "with_forget": (True, False),
    "sgd.learning_rate": (3e-3, 1e-2, 3e-2),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    radius: float = 0.1  # L2, in the unit of the inputs: first tried, then doubled
    attack_steps: int = 50
    with_forget: bool = False
    sgd: Sgd = Sgd(learning_rate=0.01, epochs=10)

    def __post_init__(self) -> None:
        check_fields(self, radius="> 0", attack_steps=">= 1")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend cross-entropy on the neighbours' labels."""
    images, targets = continuous(objective, forget.samples), forget.samples.targets
    neighbours, labels = nearest(
        model, objective, forget.samples, config.radius, config.attack_steps
    )
    if config.with_forget:
        neighbours, labels = torch.cat([neighbours, images]), torch.cat([labels, targets])

    def loss(rows: Tensor) -> Tensor:
        return mean_cross_entropy(objective.logits(model, neighbours[rows]), labels[rows]).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator, among=len(neighbours))
