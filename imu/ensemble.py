"""Many networks of one architecture, trained together with the recipe of ``imu.training``.

The weights of several networks are stacked, and one pass of ``torch.vmap`` trains them all. Member
k becomes what ``training.fit`` makes of it with seed k, up to the order of floating-point sums. In
float32 training amplifies these, as it does another number of threads: weights drift apart after
some steps, and what agrees is their distribution over seeds. What is saved is the cost of launching
many small operations: much for narrow networks, nothing for wide ones (docs/ensemble.md).
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from imu.bounds import require
from imu.datasets import LabelledImages
from imu.models import places
from imu.objectives import Objective, Samples, predictions
from imu.objectives import margins as margins_of
from imu.objectives.classification import normalised
from imu.training import (
    Config,
    Epoch,
    autocast,
    cross_entropy,
    descent,
    distributed,
    diverged,
    steps_per_epoch,
)
from imu.training.augmentation import Moves
from imu.training.feeds.classification import Draw, batches, draws, sourced
from imu.training.loading import Source

State = dict[str, Tensor]  # every tensor (members, ...)


def fit(
    networks: Sequence[nn.Module],
    data: LabelledImages,
    rows: list[int],
    config: Config,
    *,
    seeds: Sequence[int],
    device: torch.device,
    at_once: int = 16,
    parts: Sequence[Tensor] | None = None,
) -> Iterator[Epoch]:
    """Train ``networks`` in place on the given rows of ``data``; yields means over them per epoch.

    parts: for each network which of ``rows`` it is trained on, by place, int64 and equally many of
    each; None: all. The order of the samples and the moves of the images follow the seed of each.
    At most ``at_once`` are stacked; on a CPU more of them leave its caches. On a CPU channels are
    last in memory whatever ``config`` says, elsewhere first. Raises ValueError when the networks
    differ in architecture, are not as many as the seeds or the parts, parts differ in length, there
    are fewer samples than a batch or several processes, and FloatingPointError, naming seed, epoch
    and step, when a loss is not finite.
    """
    if len(networks) != len(seeds) or not networks:
        raise ValueError(
            f"there must be one seed per network and at least one of each, got "
            f"{len(networks)} networks and {len(seeds)} seeds"
        )
    require("at_once", at_once, ">= 1")
    if (size := distributed.world().size) > 1:
        raise ValueError(f"an ensemble is trained by one process, got {size}")
    shapes = [{n: t.shape for n, t in network.state_dict().items()} for network in networks]
    if any(other != shapes[0] for other in shapes):
        raise ValueError("the networks must be of one architecture")
    parts = [torch.arange(len(rows))] * len(networks) if parts is None else parts
    if len(parts) != len(networks) or len({len(part) for part in parts}) > 1:
        raise ValueError(
            f"parts must be one per network and equally long, got {len(parts)} for "
            f"{len(networks)} networks, of the lengths {sorted({len(part) for part in parts})}"
        )
    # Stacks of nearly equal size, so that none is left with a single member.
    members = torch.arange(len(networks)).tensor_split(-(-len(networks) // at_once))
    source = sourced(data, rows, config, device, distributed.ALONE)
    stacks = [
        _fit_stack(
            [networks[k] for k in stack],
            data,
            [parts[k] for k in stack],
            config,
            source,
            seeds=[seeds[k] for k in stack],
            device=device,
        )
        for stack in members
    ]
    for epochs in zip(*stacks, strict=True):
        both = list(zip(members, epochs, strict=True))
        yield epochs[0]._replace(
            loss=sum(len(stack) * epoch.loss for stack, epoch in both) / len(networks),
            accuracy=sum(len(stack) * epoch.accuracy for stack, epoch in both) / len(networks),
        )


def margins(networks: Sequence[nn.Module], objective: Objective, samples: Samples) -> Tensor:
    """Margin of the true label, log(p_y / (1 − p_y)), in evaluation mode: float64, (models, n).

    One network after the other: a pass over a thousand small images takes milliseconds.
    """
    return torch.stack(
        [
            margins_of(predictions(network, objective, samples.inputs).double(), samples.targets)
            for network in networks
        ]
    )


def _fit_stack(
    networks: Sequence[nn.Module],
    data: LabelledImages,
    parts: Sequence[Tensor],
    config: Config,
    source: Source,
    *,
    seeds: Sequence[int],
    device: torch.device,
) -> Iterator[Epoch]:
    steps = steps_per_epoch(parts[0].tolist(), config)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for network in networks:
        network.train()
    parameters, buffers = stack_module_state(list(networks))
    skeleton, at = copy.deepcopy(networks[0]).to("meta"), places(networks[0])

    def outcome(
        weights: State, state: State, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        every = weights | state
        own = {place: every[name] for place, name in at.items()}
        logits = functional_call(skeleton, own, (inputs,), tie_weights=False)
        correct = (logits.detach().argmax(1) == targets).float().mean()
        return cross_entropy(logits, targets, config), correct

    outcomes = torch.vmap(outcome, in_dims=(0, 0, 1, 1))
    if config.compile:
        outcomes = torch.compile(outcomes)
    optimizer = descent(parameters.values(), config, steps * config.epochs)
    for epoch in range(1, config.epochs + 1):
        losses, correct = [], []
        own = zip(parts, generators, strict=True)
        drawn = map(_together, *(_of(part, draws(len(part), config, g)) for part, g in own))
        for images, labels in batches(source, drawn, config):
            seen = normalised(images, data.scale, data.mean, data.std)
            inputs = seen.unflatten(0, (config.batch_size, len(networks)))
            if device.type == "cpu":
                inputs = _members_last(inputs)
            targets = labels.unflatten(0, (config.batch_size, len(networks)))
            with autocast(config, device):
                found = outcomes(parameters, buffers, inputs, targets)
            optimizer.zero_grad()
            # Members share no weight, so each gets the gradient of its own loss.
            found[0].sum().backward()
            optimizer.step()
            losses.append(found[0].detach())
            correct.append(found[1])
        _copy(parameters | buffers, networks)
        _check(torch.stack(losses), seeds, epoch, config)
        yield Epoch(
            epoch,
            torch.stack(losses).mean().item(),
            100 * torch.stack(correct).mean().item(),
            optimizer.rate,
        )


def _of(part: Tensor, drawn: Iterator[Draw]) -> Iterator[Draw]:
    """Draws of a part of the rows, by their place among all."""
    return (draw._replace(samples=part[draw.samples]) for draw in drawn)


def _together(*drawn: Draw) -> Draw:
    """One batch of all members: sample by sample, the members of each next to each other."""
    samples = torch.stack([draw.samples for draw in drawn], -1).flatten()
    offsets, flips = (torch.stack(own, -1) for own in zip(*(d.moves for d in drawn), strict=True))
    return Draw(samples, Moves(offsets.flatten(1), flips.flatten()))


def _members_last(inputs: Tensor) -> Tensor:
    """(n, members, channels, height, width) with the members' channels next to each other.

    Stacked convolutions are grouped ones, which CPUs do up to 1.6 times faster on this layout.
    cuDNN's BatchNorm refuses it inside ``torch.vmap``.
    """
    merged = inputs.flatten(1, 2).contiguous(memory_format=torch.channels_last)
    return merged.unflatten(1, inputs.shape[1:3])


@torch.no_grad()
def _copy(stacked: State, networks: Sequence[nn.Module]) -> None:
    for k, network in enumerate(networks):
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            tensor.copy_(stacked[name][k])


def _check(losses: Tensor, seeds: Sequence[int], epoch: int, config: Config) -> None:
    """losses: (steps, members)."""
    bad = (~losses.isfinite()).nonzero().tolist()
    if bad:
        step, k = bad[0]
        what = f"training loss of seed {seeds[k]}"
        raise diverged(what, losses[step, k].item(), epoch, step + 1, len(losses), config)
