"""Sequences of states, all of one length: shuffled."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from imu.datasets.common.sequences import Sequences
from imu.objectives import asked_positions
from imu.objectives import sequences as task
from imu.training.distributed import World
from imu.training.feeds import language

if TYPE_CHECKING:
    from imu.training import Config


def feed(
    data: Sequences,
    rows: list[int],
    about: Mapping[str, Any],
    config: "Config",
    device: torch.device,
    world: World,
) -> language.Sequences:
    samples = task.samples(data, rows, about, device)
    lengths = asked_positions(samples.targets.cpu())
    return language.Sequences(samples, lengths, task.objective(about), config, world)
