"""One recipe for the original and every retrained model.

SGD with Nesterov momentum under a OneCycle schedule (Smith & Topin 2017, arXiv 1708.07120),
random shifts as augmentation. Data live on the device as uint8; a batch is cut, shifted and
normalised there. On CPU, with a fixed number of threads, a run is bit-reproducible.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.datasets import LabelledImages
from imu.objective import normalised


@dataclass(frozen=True, kw_only=True)
class Config:
    epochs: int = 15
    batch_size: int = 64  # samples; the last, incomplete batch of an epoch is left out
    learning_rate: float = 0.1  # peak of the OneCycle schedule
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.2  # share of the steps in which the learning rate rises
    shift: int = 1  # pixels: images are moved by up to this much in each direction

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        for name in ("momentum", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "shift"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


class Epoch(NamedTuple):
    epoch: int  # counted from 1
    loss: float  # mean cross-entropy over the epoch, with augmentation
    accuracy: float  # % over the epoch, with augmentation
    learning_rate: float  # at the end of the epoch


def pixels(data: LabelledImages, rows: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (n, channels, height, width), uint8, and labels (n,) of the given rows."""
    images = torch.from_numpy(data.images[rows]).to(device)
    return images, torch.from_numpy(data.labels[rows]).to(device)


def fit(
    model: nn.Module,
    data: LabelledImages,
    rows: list[int],
    config: Config,
    *,
    seed: int,
    device: torch.device,
) -> Iterator[Epoch]:
    """Train ``model`` in place on the given rows of ``data``; yields once per epoch.

    The order of the samples and the shifts follow ``seed``. Raises ValueError when there are
    fewer samples than a batch, and FloatingPointError, naming epoch and step, when the loss is
    not finite.
    """
    steps = steps_per_epoch(rows, config)
    images, labels = pixels(data, rows, device)
    generator = torch.Generator().manual_seed(seed)
    optimizer, schedule = descent(model.parameters(), config, steps * config.epochs)
    for epoch in range(1, config.epochs + 1):
        model.train()
        losses, correct = [], []
        for drawn, offsets in draws(len(rows), config, generator):
            batch = drawn.to(device)
            shifted = shift(images[batch], config.shift, offsets)
            logits = model(normalised(shifted, data.scale, data.mean, data.std))
            loss = F.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            correct.append((logits.detach().argmax(1) == labels[batch]).float().mean())
        finite = torch.stack(losses).isfinite()
        if not finite.all():
            step = int((~finite).nonzero()[0])
            raise diverged("training loss", losses[step].item(), epoch, step + 1, steps, config)
        yield Epoch(
            epoch,
            torch.stack(losses).mean().item(),
            100 * torch.stack(correct).mean().item(),
            float(schedule.get_last_lr()[0]),
        )


def steps_per_epoch(rows: list[int], config: Config) -> int:
    """Raises ValueError when there are fewer samples than a batch."""
    if len(rows) < config.batch_size:
        raise ValueError(
            f"batch_size must be <= the number of training samples ({len(rows)}), "
            f"got {config.batch_size}"
        )
    return len(rows) // config.batch_size


def descent(
    parameters: Iterable[Tensor], config: Config, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimiser and the schedule of its learning rate over all ``steps``."""
    optimizer = torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=steps,
        # A warm-up of one step has no slope: OneCycleLR divides by zero there.
        pct_start=0.0 if config.warmup * steps == 1 else config.warmup,
        cycle_momentum=False,
    )
    return optimizer, schedule


def draws(n: int, config: Config, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """The random numbers of one epoch over ``n`` samples, one batch at a time.

    Yields which samples, (batch_size,), and how far each is moved, (2, batch_size), see ``shift``.
    """
    order = torch.randperm(n, generator=generator)
    for at in range(0, n - config.batch_size + 1, config.batch_size):
        offsets = draw_offsets(config.batch_size, config.shift, generator)
        yield order[at : at + config.batch_size], offsets


def diverged(
    what: str, value: float, epoch: int, step: int, steps: int, config: Config
) -> FloatingPointError:
    return FloatingPointError(
        f"{what} is {value} in epoch {epoch}, step {step} of {steps}; "
        f"a smaller learning_rate than {config.learning_rate} may help"
    )


def shift_randomly(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to ``pixels`` in both directions, see ``shift``."""
    return shift(images, pixels, draw_offsets(len(images), pixels, generator))


def draw_offsets(n: int, pixels: int, generator: torch.Generator) -> Tensor:
    """Offsets of ``n`` images for ``shift``: (2, n), from the CPU generator on every device."""
    if pixels == 0:
        return torch.zeros(2, n, dtype=torch.int64)
    return torch.randint(0, 2 * pixels + 1, (2, n, 1), generator=generator)[..., 0]


def shift(images: Tensor, pixels: int, offsets: Tensor) -> Tensor:
    """Move each image by its offsets; what enters is 0.

    images: (n, channels, height, width) of any type; same shape and type back.
    offsets: (2, n), rows and columns, from 0 to 2 * pixels; ``pixels`` leaves an image in place.
    """
    if pixels == 0:
        return images
    height, width = images.shape[2:]
    offsets = offsets[..., None].to(images.device)  # (2, n, 1)
    padded = F.pad(images, (pixels,) * 4)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (n, height)
    columns = offsets[1] + torch.arange(width, device=images.device)  # (n, width)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    moved = padded[sample, :, rows[:, :, None], columns[:, None, :]]  # (n, height, width, channels)
    return moved.permute(0, 3, 1, 2)
