"""DELETE: distil the original with the forgotten logit removed (Zhou et al. 2025, "Decoupled
Distillation to Erase", arXiv 2503.23751).

Minimises mean KL(softmax(z with z_y := −1e10) ‖ p), z the frozen original's logits on the forget
set and p the model's prediction: the label's probability goes to 0 and the others keep the ratios
that the original gave them. (CE-U takes the teacher from the model as it moves; its gradient is
that of ``gradient_ascent`` with unlikelihood.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.labels import distilled, without
from imu.objectives import Objective, predictions

NEEDS = frozenset({"forget"})
SEARCH = {
    "sgd.stop_at_target": (True, False),
    "sgd.learning_rate": (3e-5, 1e-4, 3e-4),
}
MASKED_LOGIT = -1e10


@dataclass(frozen=True, kw_only=True)
class Config:
    sgd: Sgd = Sgd(learning_rate=0.0001, epochs=20, stop_at_target=True)


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the divergence from the masked original."""
    original = predictions(model, objective, forget.samples.inputs)
    teacher = without(original, forget.samples.targets, MASKED_LOGIT)
    loss = distilled(model, objective, forget.samples, teacher)
    yield from descend(model, objective, forget, loss, config.sgd, generator)
