"""The first prize of the 2023 NeurIPS challenge on unlearning (team fanchuan,
https://www.kaggle.com/competitions/neurips-2023-machine-unlearning/discussion/458721; also in Cadet
et al. 2024, arXiv 2410.01276).

First an epoch over D_f that descends KL(uniform ‖ p). Then, ``sgd.epochs`` times, a round that
takes the forget samples away from the retain samples, and one that repairs: with logits z,

    −mean_{i ∈ batch of D_f, j ∈ batch of D_r} log softmax_j(⟨z_i, z_j⟩ / temperature)

by ``forget_rate``, z_j held fixed, falling along a cosine to 0; and CE over D_r by ``sgd``. The
first loss is least where z_i lies as near to all retain samples. In evaluation mode throughout;
the team trained with BatchNorm in training mode. Needs the retain set.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil, cos, pi

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, update, watcher
from imu.methods.common.renewal import never_stops
from imu.models import trainable
from imu.models.common import optimizers
from imu.objectives import IGNORED, Objective, Samples, mean_over_positions

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "forget_rate": (1e-4, 3e-4),
    "sgd.learning_rate": (1e-3, 3e-3, 1e-2),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    uniform_rate: float = 0.005  # learning rate of the first epoch
    forget_rate: float = 0.0003  # of the forget rounds, at first
    temperature: float = 1.15  # of the similarities
    sgd: Sgd = Sgd(learning_rate=0.003, epochs=8, stop_at_target=False)

    def __post_init__(self) -> None:
        check_fields(self, uniform_rate="> 0", forget_rate="> 0", temperature="> 0")
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
    """One round towards uniform answers, then forget and retain rounds; yields after each."""
    trained = list(trainable(model).values())
    of_forget, size = forget.samples, config.sgd.batch_size
    rounds = config.sgd.epochs * ceil(len(of_forget) / size)

    def falling(step: int) -> float:
        return config.forget_rate * (1 + cos(pi * step / max(1, rounds))) / 2

    rates: dict[str, float | optimizers.Rate] = {"uniform": config.uniform_rate, "forget": falling}
    descents = {
        name: optimizers.sgd(trained, rate, momentum=config.sgd.momentum)
        for name, rate in rates.items()
    } | {"retain": config.sgd.optimizer(trained)}

    def logits(samples: Samples) -> Tensor:
        return objective.logits(model, samples.inputs)

    def uniform(rows: Tensor) -> Tensor:
        log_p = logits(of_forget[rows]).log_softmax(-1)
        return mean_over_positions(-log_p.mean(-1), of_forget.targets[rows]).mean()

    def contrast(rows: Tensor) -> Tensor:
        drawn = retain[torch.randperm(len(retain), generator=generator)[:size]]
        with torch.no_grad():
            others = pooled(logits(drawn), drawn.targets)  # (r, classes)
        own = pooled(logits(of_forget[rows]), of_forget.targets[rows])
        near = own @ others.T / config.temperature  # (b, r)
        return -near.log_softmax(1).mean()

    def repaired(rows: Tensor) -> Tensor:
        batch = retain[rows]
        return objective.losses(logits(batch), batch.targets).mean()

    losses: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
        "uniform": (uniform, len(of_forget)),
        "forget": (contrast, len(of_forget)),
        "retain": (repaired, len(retain)),
    }
    watch, updates = watcher(model, objective, forget), 0
    yield watch(updates)
    order = ["uniform", *["forget", "retain"] * config.sgd.epochs] if config.sgd.epochs else []
    for name in order:
        loss, count = losses[name]
        for rows in torch.randperm(count, generator=generator).split(size):
            updates += 1
            update(model, descents[name], trained, partial(loss, rows), updates)
        yield watch(updates)


def pooled(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean logits of a sample over its predicted positions: (n, classes)."""
    if targets.dim() == 1:
        return logits
    asked = (targets != IGNORED)[..., None]  # (n, positions, 1)
    return torch.where(asked, logits, 0.0).sum(1) / asked.sum(1).clamp(min=1)
