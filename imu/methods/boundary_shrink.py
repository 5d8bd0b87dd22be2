"""Boundary shrink: relabel each forget sample with its nearest other class (Chen et al. 2023,
"Boundary Unlearning", arXiv 2303.11570).

The neighbour is one FGSM step (ε in the unit of the inputs) from the sample; its most probable
wrong class, never the own one, is the new label, on which cross-entropy descends.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.adversarial import fgsm
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.labels import without
from imu.objectives import Objective, mean_cross_entropy, predictions

NEEDS = frozenset({"forget"})
SEARCH = {"sgd.learning_rate": (1e-5, 3e-5, 1e-4, 3e-4)}


@dataclass(frozen=True, kw_only=True)
class Config:
    epsilon: float = 0.1  # FGSM step, L∞, in the unit of the inputs
    sgd: Sgd = Sgd(learning_rate=3e-05, epochs=20)

    def __post_init__(self) -> None:
        check_fields(self, epsilon="> 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend cross-entropy on the labels of the nearest other class."""
    samples = forget.samples
    neighbours = fgsm(model, objective, samples, config.epsilon)
    other = without(predictions(model, objective, neighbours), samples.targets).argmax(-1)

    def loss(rows: Tensor) -> Tensor:
        return mean_cross_entropy(objective.logits(model, samples[rows].inputs), other[rows]).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator)
