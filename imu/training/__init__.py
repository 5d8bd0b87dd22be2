"""One recipe for the original and every retrained model.

SGD with Nesterov momentum, or AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), under a OneCycle
schedule (Smith & Topin 2017, arXiv 1708.07120). Batches come from a feed (``imu.training.feeds``).
Under ``torchrun`` the processes share every batch. On CPU, with a fixed number of threads and
processes, a run is bit-reproducible.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import cos, pi
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu import discovery
from imu.bounds import check_fields
from imu.datasets import Dataset
from imu.models.common import optimizers
from imu.objectives import IGNORED
from imu.training import distributed
from imu.training.distributed import World
from imu.training.feeds import Feed


@dataclass(frozen=True, kw_only=True)
class Config:
    epochs: int = 15
    batch_size: int = 64  # samples, of all processes; an epoch's last, incomplete batch is left out
    learning_rate: float = 0.1  # peak of the OneCycle schedule
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9  # of SGD; AdamW has 0.9 and 0.999
    weight_decay: float = 5e-4
    clip: float = 0.0  # norm that a batch's gradient is cut to; 0: as it is
    warmup: float = 0.2  # share of the steps in which the learning rate rises
    label_smoothing: float = 0.0  # share of a label that is spread over all classes
    shift: int = 1  # pixels: images are moved by up to this much in each direction
    flip: bool = False  # exchange left and right in half of the images
    precision: Literal["float32", "bfloat16"] = "float32"  # of forward passes; weights: float32
    channels_last: bool = False  # memory layout; the faster one on matrix units
    compile: bool = False  # torch.compile: a minute at the start, faster steps
    memory_share: float = (
        0.5  # of the device's free memory, which images may take; else they stream
    )
    workers: int = 2  # processes that read images where they stream

    def __post_init__(self) -> None:
        check_fields(self, epochs="in [1, 100000]", batch_size=">= 1", learning_rate="> 0")
        check_fields(self, momentum="in [0, 1)", warmup="in [0, 1)", label_smoothing="in [0, 1)")
        check_fields(self, weight_decay=">= 0", clip=">= 0", shift=">= 0", workers="in [0, 1024]")
        check_fields(self, memory_share="in [0, 1]")


class Epoch(NamedTuple):
    epoch: int  # counted from 1
    loss: float  # mean cross-entropy over the epoch, with augmentation
    accuracy: float  # % over the epoch, with augmentation
    learning_rate: float  # at the end of the epoch


def fit(
    model: nn.Module,
    data: Dataset,
    rows: list[int],
    config: Config,
    *,
    seed: int,
    device: torch.device,
    about: Mapping[str, Any] = {},
) -> Iterator[Epoch]:
    """Train ``model`` in place on the given rows of ``data``; yields once per epoch.

    about: the network's description, where the data cannot be read without it.

    The order of the samples and the moves of images follow ``seed``. Where
    ``torch.distributed`` is initialised every process calls this with the same arguments but its
    own device, and all end with the same weights. Raises ValueError when there are fewer samples
    than a batch, a batch cannot be shared equally, or several processes of CPUs are to train
    BatchNorm, and FloatingPointError, naming epoch and step, when the loss is not finite.
    """
    world = distributed.world()
    if config.batch_size % world.size:
        raise ValueError(
            f"batch_size must be divisible by the number of processes ({world.size}), "
            f"got {config.batch_size}"
        )
    steps = steps_per_epoch(rows, config)
    feed: Feed = discovery.load("imu.training.feeds", data.objective).feed(
        data, rows, about, config, device, world
    )
    generator = torch.Generator().manual_seed(seed)
    optimizer = descent(model.parameters(), config, steps * config.epochs)
    with prepared(model, config, device, world) as forward:
        for epoch in range(1, config.epochs + 1):
            model.train()
            losses, correct = [], []
            for inputs, targets in feed.epoch(generator):
                with autocast(config, device):
                    logits = feed.objective.logits(forward, inputs)
                loss = cross_entropy(logits, targets, config)
                optimizer.zero_grad()
                loss.backward()
                if config.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                optimizer.step()
                losses.append(loss.detach())
                correct.append(share_right(logits, targets))
            means = world.mean(torch.stack(losses))
            finite = means.isfinite()
            if not finite.all():
                step = int((~finite).nonzero()[0])
                raise diverged("training loss", means[step].item(), epoch, step + 1, steps, config)
            yield Epoch(
                epoch,
                means.mean().item(),
                100 * world.mean(torch.stack(correct)).mean().item(),
                optimizer.rate,
            )


def steps_per_epoch(rows: list[int], config: Config) -> int:
    """Raises ValueError when there are fewer samples than a batch."""
    if len(rows) < config.batch_size:
        raise ValueError(
            f"batch_size must be <= the number of training samples ({len(rows)}), "
            f"got {config.batch_size}"
        )
    return len(rows) // config.batch_size


def descent(parameters: Iterable[Tensor], config: Config, steps: int) -> optimizers.Optimizer:
    """The optimiser, with the course of its learning rate over all ``steps``."""
    rate = one_cycle(config.learning_rate, config.warmup, steps)
    if config.optimizer == "adamw":
        return optimizers.adam(parameters, rate, weight_decay=config.weight_decay)
    return optimizers.sgd(
        parameters,
        rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )


def one_cycle(peak: float, warmup: float, steps: int) -> optimizers.Rate:
    """Half a cosine up from peak / 25, half a cosine down to peak / 250,000.

    warmup: share of ``steps`` in which the rate rises. As torch's ``OneCycleLR``, to the last bit.
    """
    # A warm-up of one step has no slope.
    top = (0.0 if warmup * steps == 1 else warmup * steps) - 1
    low = peak / 25

    def rate(step: int) -> float:
        begin, end, passed = (
            (low, peak, step / top)
            if step <= top
            else (peak, low / 1e4, (step - top) / (steps - 1 - top))
        )
        return end + (begin - end) / 2.0 * (cos(pi * passed) + 1)

    return rate


@contextmanager
def prepared(
    model: nn.Module, config: Config, device: torch.device, world: World
) -> Iterator[nn.Module]:
    """The forward pass as ``config`` wants it; after the block ``model`` is as it was.

    But for BatchNorm of several processes, which stays synchronised where training goes on.
    """
    with ExitStack() as undo:
        if config.channels_last:
            model.to(memory_format=torch.channels_last)
            undo.callback(model.to, memory_format=torch.contiguous_format)
        if world.size > 1:
            model = distributed.synchronised(model, device)
        forward: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
        if world.size > 1:
            forward = nn.parallel.DistributedDataParallel(
                forward, device_ids=[device] if device.type == "cuda" else None
            )
        yield forward


def autocast(config: Config, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")


def cross_entropy(logits: Tensor, targets: Tensor, config: Config) -> Tensor:
    """Mean over all predicted positions of the batch, in float32 at least.

    logits: (n, *positions, classes). targets: (n, *positions).
    """
    if logits.dtype == torch.bfloat16:
        logits = logits.float()
    return F.cross_entropy(
        logits.flatten(0, -2),
        targets.flatten(),
        ignore_index=IGNORED,
        label_smoothing=config.label_smoothing,
    )


def share_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Of the predicted positions of the batch, that where the target is the most probable."""
    predicted = targets != IGNORED
    right = logits.detach().argmax(-1) == targets
    return right.float().sum() / predicted.float().sum()


def diverged(
    what: str, value: float, epoch: int, step: int, steps: int, config: Config
) -> FloatingPointError:
    return FloatingPointError(
        f"{what} is {value} in epoch {epoch}, step {step} of {steps}; "
        f"a smaller learning_rate than {config.learning_rate} may help"
    )
