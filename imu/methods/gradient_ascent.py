"""Gradient ascent on the forget set (Thudi et al. 2022, arXiv 2109.13398).

Ascends the mean over samples, every sample weighing the same, of
    cross_entropy   the task's own loss, the published form, unbounded above;
    unlikelihood    log(1 − p_y) (Welleck et al. 2020, arXiv 1908.04319), bounded by 0.
The gradient of the latter is that of CE-U (Yang 2025, arXiv 2503.01224), cross-entropy towards the
model's own prediction, held constant, with the label's logit removed: p − softmax(z without z_y).
All parameters move or the head alone; the head's input is then computed once. BatchNorm statistics
are frozen and it stops at the target accuracy: both help this baseline, which is meant to be a fair
one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, cached_head, descend
from imu.objectives import Objective, log_unlikelihoods, mean_over_positions

NEEDS = frozenset({"forget"})
SEARCH = {"sgd.learning_rate": (3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2)}


@dataclass(frozen=True, kw_only=True)
class Config:
    parameters: Literal["all", "head"] = "all"
    loss: Literal["cross_entropy", "unlikelihood"] = "cross_entropy"
    sgd: Sgd = Sgd(learning_rate=3e-05, epochs=200)

    def __post_init__(self) -> None:
        check_fields(self)


VARIANTS = {
    "gradient_ascent_all": Config(),
    "gradient_ascent_head": Config(parameters="head", sgd=Sgd(learning_rate=0.01, epochs=200)),
    "unlikelihood_all": Config(loss="unlikelihood", sgd=Sgd(learning_rate=3e-06, epochs=200)),
    "unlikelihood_head": Config(
        parameters="head", loss="unlikelihood", sgd=Sgd(learning_rate=0.0003, epochs=200)
    ),
}


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the negative of the loss."""
    samples = forget.samples

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if config.loss == "cross_entropy":
            return -objective.losses(logits, targets).mean()
        return -mean_over_positions(log_unlikelihoods(logits, targets), targets).mean()

    if config.parameters == "all":

        def of_batch(rows: Tensor) -> Tensor:
            batch = samples[rows]
            return loss(objective.logits(model, batch.inputs), batch.targets)

        yield from descend(model, objective, forget, of_batch, config.sgd, generator)
        return
    layer, features, forget = cached_head(model, objective, forget)
    yield from descend(
        model,
        objective,
        forget,
        lambda rows: loss(layer(features[rows]), forget.samples.targets[rows]),
        config.sgd,
        generator,
        parameters=layer.parameters(),
        logits=lambda: layer(features),
    )
