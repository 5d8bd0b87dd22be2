"""Texts: shuffled, and put together with others of about their length.

A batch is as long as its longest text, so that little of it is padding.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from imu.datasets.common.texts import Texts
from imu.objectives import Objective, Samples, asked_positions
from imu.objectives import language as task
from imu.training.distributed import World

if TYPE_CHECKING:
    from imu.training import Config

WINDOW = 16  # batches whose texts are sorted by length


@dataclass(frozen=True)
class Sequences:
    samples: Samples
    lengths: Tensor  # (n,), positions up to the last that is predicted; on the CPU
    objective: Objective
    config: "Config"
    world: World

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.config.batch_size
        whole = len(self.samples) // size * size  # cut before it is sorted, else the longest are
        order = torch.randperm(len(self.samples), generator=generator)[:whole]
        windows = order.split(size * WINDOW)
        order = torch.cat([w[self.lengths[w].argsort(stable=True)] for w in windows])
        batches = order.view(-1, size)
        for number in torch.randperm(len(batches), generator=generator).tolist():
            longest = int(self.lengths[batches[number]].max())
            batch = self.samples[self.world.share(batches[number])]
            assert isinstance(batch.inputs, Tensor)
            yield batch.inputs[:, :longest], batch.targets[:, :longest]


def feed(
    data: Texts,
    rows: list[int],
    about: Mapping[str, Any],
    config: "Config",
    device: torch.device,
    world: World,
) -> Sequences:
    samples = task.samples(data, rows, about, device)
    lengths = asked_positions(samples.targets.cpu())
    return Sequences(samples, lengths, task.objective(about), config, world)
