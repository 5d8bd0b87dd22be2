"""CF-k: the last k blocks are fine-tuned on the retain set (Goel et al. 2022, "Towards Adversarial
Evaluations for Inexact Machine Unlearning", arXiv 2201.06640): catastrophic forgetting.

As EU-k, but from the weights that there are. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, watcher
from imu.methods.common.renewal import last_modules, never_stops, train_again
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "k": (1, 2),
    "sgd.learning_rate": (0.3, 0.5),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    k: int = 2  # blocks before the head; all, where there are fewer
    sgd: Sgd = Sgd(learning_rate=0.5, epochs=3, weight_decay=5e-4, stop_at_target=False)

    def __post_init__(self) -> None:
        check_fields(self, k=">= 1")
        never_stops(self.sgd)


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Train the last blocks on the retain set; the forget set is only watched."""
    yield watcher(model, objective, forget)(0)
    modules = last_modules(model, config.k)
    yield from train_again(model, objective, forget, retain, modules, config.sgd, generator)
