"""Batches to train on, one kind of problem per file, named as in ``imu.objectives``.

A file offers ``feed(data, rows, about, config, device, world)``; config: ``training.Config``.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from imu.objectives import Inputs, Objective


class Feed(Protocol):
    @property
    def objective(self) -> Objective: ...

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Inputs, Tensor]]:
        """Inputs and targets of each batch of one epoch, this process's share, on the device."""
