"""Images of people, as those of classification."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from imu.datasets import LabelledImages
from imu.training.distributed import World
from imu.training.feeds import classification

if TYPE_CHECKING:
    from imu.training import Config


def feed(
    data: LabelledImages,
    rows: list[int],
    about: Mapping[str, Any],
    config: "Config",
    device: torch.device,
    world: World,
) -> classification.Images:
    """Raises ValueError where somebody is to be trained on whom the network has no output for."""
    strangers = data.labels[rows] >= len(about["classes"])
    if strangers.any():
        raise ValueError(
            f"person {data.classes[data.labels[rows][strangers][0]]!r} is one of those who are "
            "asked for, and must not be trained on: set split.test and split.validation_from to "
            "'published'"
        )
    return classification.feed(data, rows, about, config, device, world)
