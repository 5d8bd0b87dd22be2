"""Images: shuffled, moved and mirrored at random.

They live on the device as uint8 where they fit, else they stream; a batch is cut, moved and
normalised on the device.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from imu.datasets import LabelledImages
from imu.objectives.classification import Classification
from imu.training import augmentation, loading
from imu.training.distributed import ALONE, World

if TYPE_CHECKING:
    from imu.training import Config


@dataclass(frozen=True)
class Images:
    source: loading.Source
    count: int
    objective: Classification
    config: "Config"
    world: World

    def epoch(self, generator: torch.Generator) -> Iterator[loading.Batch]:
        drawn = draws(self.count, self.config, generator, self.world)
        return batches(self.source, drawn, self.config)


def feed(
    data: LabelledImages,
    rows: list[int],
    about: Mapping[str, Any],
    config: "Config",
    device: torch.device,
    world: World,
) -> Images:
    objective = Classification(mean=data.mean, std=data.std, scale=data.scale)
    source = sourced(data, rows, config, device, world)
    return Images(source, len(rows), objective, config, world)


class Draw(NamedTuple):
    samples: Tensor  # (batch_size,), which of the rows
    moves: augmentation.Moves


def sourced(
    data: LabelledImages, rows: list[int], config: "Config", device: torch.device, world: World
) -> loading.Source:
    """Where the batches come from; processes of one CPU share its memory."""
    share = config.memory_share / (world.size if device.type == "cpu" else 1)
    return loading.source(data, rows, device, share=share, workers=config.workers)


def draws(
    n: int, config: "Config", generator: torch.Generator, world: World = ALONE
) -> Iterator[Draw]:
    """The random numbers of one epoch over ``n`` samples, one batch at a time.

    Every process draws those of the whole batch and keeps its share.
    """
    order = torch.randperm(n, generator=generator)
    for at in range(0, n - config.batch_size + 1, config.batch_size):
        moves = augmentation.draw(
            config.batch_size, shift=config.shift, flip=config.flip, generator=generator
        )
        samples = order[at : at + config.batch_size]
        yield Draw(world.share(samples), augmentation.Moves(*map(world.share, moves)))


def batches(
    source: loading.Source, drawn: Iterable[Draw], config: "Config"
) -> Iterator[loading.Batch]:
    """Augmented images, uint8 in the memory layout of ``config``, and labels, on the device."""
    drawn = list(drawn)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    read = source.batches([draw.samples for draw in drawn])
    for draw, (images, labels) in zip(drawn, read, strict=True):
        seen = augmentation.augmented(images, draw.moves, shift=config.shift, flip=config.flip)
        yield seen.contiguous(memory_format=layout), labels
