"""IMU as published for sequences of states (arXiv 2508.01620), and what its order of steps costs.

Kept, choice by choice, from the published program for Markov chains: influence and training of the
output layer; weights sqrt(|s_i|) of the samples with s_i < 0, cut at the 0.93 quantile; 50
iterations, each one batch of 4; AdamW without decay and with a learning rate of 5e-4, ascending
Σ w_i CE_i / Σ w_i − α‖head‖₁ with α = 0.002. There is no stopping rule.

That program computes influence *before* it loads the trained weights, so of a network that knows
nothing. ``influence`` says of which network it is:
    "trained"    of the original, the stage's: what the paper describes;
    "untrained"  of the same network with weights drawn anew, as the program does;
    "permuted"   the original's, given to other samples; "uniform": none. The controls.

Samples of weight 0 are never drawn, so that every iteration ascends; features that enter the head
are computed once, as nothing before it moves.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from imu import influences
from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import MEASUREMENTS, cached_head, update, watcher
from imu.methods.common.renewal import begin_anew
from imu.methods.common.weights import weights_by
from imu.models.common.optimizers import adam
from imu.objectives import Objective

NEEDS = frozenset({"forget", "influence"})


@dataclass(frozen=True, kw_only=True)
class Config:
    influence: Literal["trained", "untrained", "permuted", "uniform"] = "trained"
    alpha: float = 0.002  # factor of the head's L1 norm (sum of absolute weights)
    learning_rate: float = 5e-4  # of Adam
    max_steps: int = 50  # batches
    batch_size: int = 4  # samples

    def __post_init__(self) -> None:
        check_fields(self, alpha=">= 0", learning_rate="> 0", max_steps=">= 0", batch_size=">= 1")


VARIANTS = {
    "imu_sequences": Config(),
    "as_published_untrained": Config(influence="untrained"),
    "imu_sequences_permuted": Config(influence="permuted"),
    "imu_sequences_uniform": Config(influence="uniform"),
}


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    influence: Tensor,
) -> Iterator[Step]:
    """Ascend the weighted loss, for all iterations; yields a few times.

    influence: (n,), the weights w_i >= 0 of ``imu.influences.ascent_weights``; at least one > 0.
    """
    weights = _weights(model, objective, config, generator, forget, influence)
    layer, features, forget = cached_head(model, objective, forget)
    targets = forget.samples.targets
    trained = list(layer.parameters())
    optimizer = adam(trained, config.learning_rate)
    watch = watcher(model, objective, forget, lambda: layer(features))
    yield watch(0)
    drawn = (weights > 0).nonzero()[:, 0]
    batches: list[Tensor] = []
    for step in range(1, config.max_steps + 1):
        if not batches:
            order = torch.randperm(len(drawn), generator=generator).to(drawn.device)
            batches = list(drawn[order].split(config.batch_size))
        rows = batches.pop()

        def loss(rows: Tensor = rows) -> Tensor:
            of_batch = objective.losses(layer(features[rows]), targets[rows])  # (b,)
            mean = (weights[rows] * of_batch).sum() / weights[rows].sum()
            norm: Tensor = sum((p.abs().sum() for p in trained), mean.new_zeros(()))
            return config.alpha * norm - mean

        update(model, optimizer, trained, loss, step)
        every = step * MEASUREMENTS // config.max_steps
        if every > (step - 1) * MEASUREMENTS // config.max_steps:
            yield watch(step)


def _weights(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    forget: ForgetSet,
    influence: Tensor,
) -> Tensor:
    """(n,), in the precision of the network."""
    influence = weights_by(config.influence, influence, generator)
    if config.influence == "untrained":
        asked = influences.Config()
        scores = influences.influence(untrained(model, generator), objective, forget.samples, asked)
        influence, _ = influences.ascent_weights(
            scores, clip_quantile=asked.clip_quantile, top_fraction=asked.top_fraction
        )
    return influence.to(next(model.parameters()))


def untrained(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with every layer's weights drawn anew, on the CPU: the same on every device.

    Raises ValueError where a part has weights and no way to begin.
    """
    fresh = copy.deepcopy(model).cpu().requires_grad_(True)
    begin_anew([fresh], generator)
    return fresh.to(next(model.parameters()).device)
