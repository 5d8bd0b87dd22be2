"""Bad teacher: the forget set is learned from a network that knows nothing, the retain set from the
original (Chundawat et al. 2023, "Can Bad Teaching Induce Forgetting?", arXiv 2205.08096).

Descends, over D_f ∪ D_r, the mean of

    KL(teacher ‖ p) with softmaxes at ``temperature``,

the teacher of D_f being the same architecture with fresh weights, that of D_r the original. The
authors take 30 % of the retain set; here it is all of it. Needs the retain set.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.labels import taught
from imu.methods.common.renewal import begin_anew
from imu.objectives import Objective, Samples, predictions

NEEDS = frozenset({"forget", "retain"})
SEARCH = {"sgd.learning_rate": (1e-3, 3e-3, 1e-2, 3e-2)}


@dataclass(frozen=True, kw_only=True)
class Config:
    temperature: float = 1.0  # of both softmaxes
    sgd: Sgd = Sgd(learning_rate=0.01, epochs=5, stop_at_target=False)

    def __post_init__(self) -> None:
        check_fields(self, temperature="> 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend the divergence from both teachers."""
    ignorant = deepcopy(model)
    begin_anew([ignorant], generator)
    teachers: list[Tensor] = [
        predictions(teacher, objective, samples.inputs) / config.temperature
        for teacher, samples in ((ignorant, forget.samples), (model, retain))
    ]
    loss = taught(
        model, objective, (forget.samples, retain), teachers, temperature=config.temperature
    )
    among = len(forget.samples) + len(retain)
    yield from descend(model, objective, forget, loss, config.sgd, generator, among=among)
