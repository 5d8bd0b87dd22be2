"""Random labels: train the forget set on wrong labels (a baseline of Golatkar et al. 2020, arXiv
1911.04933).

Descends cross-entropy on labels drawn uniformly from the wrong classes, once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.labels import random_other
from imu.objectives import Objective, mean_cross_entropy, predictions

NEEDS = frozenset({"forget"})
SEARCH = {"sgd.learning_rate": (1e-5, 3e-5, 1e-4, 3e-4, 3e-3)}


@dataclass(frozen=True, kw_only=True)
class Config:
    sgd: Sgd = Sgd(learning_rate=3e-05, epochs=20)


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend cross-entropy on wrong labels."""
    samples = forget.samples
    classes = predictions(model, objective, samples[:1].inputs).shape[-1]
    wrong = random_other(samples.targets, classes, generator)

    def loss(rows: Tensor) -> Tensor:
        logits = objective.logits(model, samples[rows].inputs)
        return mean_cross_entropy(logits, wrong[rows]).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator)
