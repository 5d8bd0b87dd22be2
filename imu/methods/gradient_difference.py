"""Gradient difference: ascent on the forget set beside a term that keeps the retain set (Liu et al.
2022, "Continual Learning and Private Unlearning", arXiv 2203.12817; GradDiff of Maini et al. 2024,
TOFU, arXiv 2401.06121; NPO + retain of Zhang et al. 2024, arXiv 2404.05868).

Minimises  forgetting + weight · keeping,  the latter over as many retain samples, drawn anew for
each batch of the forget set:

    ascent    "cross_entropy": −mean CE;  "npo": the loss of ``npo``, with ``beta``
    keeping   "nll": mean CE;  "kl": mean KL(p⁰ ‖ p), p⁰ the original's prediction

Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.methods.npo import preference
from imu.objectives import Objective, Samples, mean_over_positions, predictions

NEEDS = frozenset({"forget", "retain"})


@dataclass(frozen=True, kw_only=True)
class Config:
    ascent: Literal["cross_entropy", "npo"] = "cross_entropy"
    beta: float = 1.0  # inverse temperature of NPO
    keeping: Literal["nll", "kl"] = "nll"
    weight: float = 1.0  # of keeping
    sgd: Sgd = Sgd(learning_rate=0.001, epochs=20)

    def __post_init__(self) -> None:
        check_fields(self, beta="> 0", weight=">= 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend both terms."""
    samples = forget.samples
    against = preference(model, objective, samples, config.beta)
    before = predictions(model, objective, retain.inputs) if config.keeping == "kl" else None

    def forgetting(rows: Tensor) -> Tensor:
        if config.ascent == "npo":
            return against(rows)
        batch = samples[rows]
        return -objective.losses(objective.logits(model, batch.inputs), batch.targets).mean()

    def keeping(rows: Tensor) -> Tensor:
        batch = retain[rows]
        logits = objective.logits(model, batch.inputs)
        if before is None:
            return objective.losses(logits, batch.targets).mean()
        apart = F.kl_div(
            logits.log_softmax(-1), before[rows].log_softmax(-1), reduction="none", log_target=True
        ).sum(-1)  # (b, *positions)
        return mean_over_positions(apart, batch.targets).mean()

    def loss(rows: Tensor) -> Tensor:
        others = torch.randint(len(retain), rows.shape, generator=generator)
        return forgetting(rows) + config.weight * keeping(others)

    yield from descend(model, objective, forget, loss, config.sgd, generator)
