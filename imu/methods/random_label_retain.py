"""Random labels on the forget set, true labels on the retain set (Golatkar et al. 2020, arXiv
1911.04933, with the retain set as in Fan et al. 2024, arXiv 2310.12508).

Descends cross-entropy on both sets, mixed; the wrong labels are drawn once. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.labels import relabelled_loss
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})
SEARCH = {"sgd.learning_rate": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}


@dataclass(frozen=True, kw_only=True)
class Config:
    sgd: Sgd = Sgd(learning_rate=0.003, epochs=5, stop_at_target=False)


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend cross-entropy on wrong labels for D_f and true ones for D_r."""
    loss = relabelled_loss(model, objective, forget.samples, retain, generator)
    among = len(forget.samples) + len(retain)
    yield from descend(model, objective, forget, loss, config.sgd, generator, among=among)
