"""How attacks on models of tokens fine-tune a copy: by Adam, each model on the same batches."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from imu.models.common import optimizers
from imu.objectives import Objective, Samples

BATCH = 16


def fine_tuned(
    model: nn.Module,
    objective: Objective,
    known: Samples,
    trained: Sequence[Tensor],
    *,
    rate: float,
    steps: int,
) -> Iterator[int]:
    """Change ``trained``, tensors of ``model``, in place; the numbers of the steps, after each.

    known: what is learned, ``BATCH`` samples a step in their order, around and around.
    """
    optimizer = optimizers.adam(trained, rate)
    for step in range(steps):
        batch = at(known, np.roll(np.arange(len(known)), -step * BATCH)[:BATCH])
        model.zero_grad()
        objective.losses(objective.logits(model, batch.inputs), batch.targets).mean().backward()
        optimizer.step()
        yield step


def at(samples: Samples, rows: np.ndarray) -> Samples:
    return samples[torch.from_numpy(rows).to(samples.targets.device)]
