"""One recipe for the original and every retrained model.

SGD with Nesterov momentum under a OneCycle schedule (Smith & Topin 2017, arXiv 1708.07120),
random shifts as augmentation. Data live on the device as uint8; a batch is cut, shifted and
normalised there. On CPU, with a fixed number of threads, a run is bit-reproducible.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.datasets import LabelledImages


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


def normalised(images: Tensor, data: LabelledImages) -> Tensor:
    """float32 network input: (x / scale − mean) / std."""
    return (images.float() / data.scale - data.mean) / data.std


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
    if len(rows) < config.batch_size:
        raise ValueError(
            f"batch_size must be <= the number of training samples ({len(rows)}), "
            f"got {config.batch_size}"
        )
    images, labels = pixels(data, rows, device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )
    steps = len(rows) // config.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=steps * config.epochs,
        # A warm-up of one step has no slope: OneCycleLR divides by zero there.
        pct_start=0.0 if config.warmup * (steps * config.epochs) == 1 else config.warmup,
        cycle_momentum=False,
    )
    for epoch in range(1, config.epochs + 1):
        model.train()
        order = torch.randperm(len(rows), generator=generator)
        losses, correct = [], []
        for step in range(steps):
            batch = order[step * config.batch_size : (step + 1) * config.batch_size].to(device)
            shifted = shift_randomly(images[batch], config.shift, generator)
            logits = model(normalised(shifted, data))
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
            raise FloatingPointError(
                f"training loss is {losses[step].item()} in epoch {epoch}, step {step + 1} of "
                f"{steps}; a smaller learning_rate than {config.learning_rate} may help"
            )
        yield Epoch(
            epoch,
            torch.stack(losses).mean().item(),
            100 * torch.stack(correct).mean().item(),
            float(schedule.get_last_lr()[0]),
        )


def shift_randomly(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to ``pixels`` in both directions; what enters is 0.

    images: (n, channels, height, width) of any type; same shape and type back. The draws come
    from the CPU generator, so they are the same on every device.
    """
    if pixels == 0:
        return images
    n, _, height, width = images.shape
    offsets = torch.randint(0, 2 * pixels + 1, (2, n, 1), generator=generator).to(images.device)
    padded = F.pad(images, (pixels,) * 4)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (n, height)
    columns = offsets[1] + torch.arange(width, device=images.device)  # (n, width)
    sample = torch.arange(n, device=images.device)[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    moved = padded[sample, :, rows[:, :, None], columns[:, None, :]]  # (n, height, width, channels)
    return moved.permute(0, 3, 1, 2)
