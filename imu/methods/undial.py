"""UNDIAL: distil the original with the label's logit lowered (Dong et al. 2024, arXiv 2402.10052).

Minimises mean KL(softmax(z⁰ − strength · 1_y) ‖ p), z⁰ the frozen original's logits, 1_y one-hot,
p the model's prediction: the label falls by so many logits against all others, which keep their
ratios. strength → ∞ is ``delete``. Positions that predict nothing are left out (the authors'
program counts them along). The authors try 3, 10 and 30.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.labels import distilled
from imu.objectives import Objective, predictions

NEEDS = frozenset({"forget"})


@dataclass(frozen=True, kw_only=True)
class Config:
    strength: float = 10.0  # logits by which the label is lowered
    sgd: Sgd = Sgd(learning_rate=0.001, epochs=50)

    def __post_init__(self) -> None:
        check_fields(self, strength="> 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the divergence from the lowered original."""
    original = predictions(model, objective, forget.samples.inputs)
    own = F.one_hot(forget.samples.targets.clamp(min=0), original.shape[-1])
    lowered = original - config.strength * own.to(original)
    loss = distilled(model, objective, forget.samples, lowered)
    yield from descend(model, objective, forget, loss, config.sgd, generator)
