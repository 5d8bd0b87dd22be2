"""Fine-tune on the retain set: forgetting by no longer being reminded (Golatkar et al. 2020, arXiv
1911.04933; Warnecke et al. 2023, arXiv 2108.11577).

Descends cross-entropy on the retain set. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "sgd.epochs": (5, 15),
    "sgd.learning_rate": (1e-2, 3e-2, 1e-1),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    sgd: Sgd = Sgd(learning_rate=0.03, epochs=15, stop_at_target=False)


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend the loss of the retain set; the forget set is only watched."""

    def loss(rows: Tensor) -> Tensor:
        batch = retain[rows]
        return objective.losses(objective.logits(model, batch.inputs), batch.targets).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator, among=len(retain))
