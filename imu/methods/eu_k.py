"""EU-k: the last k blocks begin anew and are trained on the retain set (Goel et al. 2022, "Towards
Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640).

The first blocks stay as they are, the last ``k`` and the head descend cross-entropy on the retain
set from fresh weights, so that they never saw the forget set; with as many as there are it is
retraining, but for the layers before them. What these remember fades as fresh weights are
``mixed`` into them, which is not in the paper, nor is ``shift``. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, watcher
from imu.methods.common.renewal import (
    begin_anew,
    last_modules,
    mix_fresh,
    never_stops,
    train_again,
)
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})


@dataclass(frozen=True, kw_only=True)
class Config:
    k: int = 2  # blocks before the head; all, where there are fewer
    mixed: float = 0.0  # share of fresh weights in the layers before them
    shift: int = 0  # pixels that images are moved by at most, in the first epoch
    sgd: Sgd = Sgd(
        learning_rate=0.13, epochs=3, batch_size=32, weight_decay=5e-4, stop_at_target=False
    )

    def __post_init__(self) -> None:
        check_fields(self, k=">= 1", mixed="in [0, 1]", shift=">= 0")
        never_stops(self.sgd)


VARIANTS = {  # of images; the defaults are those of the paper, for any inputs
    "eu_k": Config(
        mixed=0.5,
        shift=1,
        sgd=Sgd(
            learning_rate=0.12, epochs=3, batch_size=32, weight_decay=5e-4, stop_at_target=False
        ),
    )
}


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Train fresh last blocks on the retain set; the forget set is only watched."""
    yield watcher(model, objective, forget)(0)
    modules = last_modules(model, config.k)
    before: list[nn.Module] = []
    if config.sgd.epochs:
        begin_anew(modules, generator)
        if config.mixed:
            before = mix_fresh(model, modules, config.mixed, generator)
    yield from train_again(
        model,
        objective,
        forget,
        retain,
        modules,
        config.sgd,
        generator,
        measuring=before,
        shift=config.shift,
    )
