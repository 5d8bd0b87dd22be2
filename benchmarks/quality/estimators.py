"""What estimators say of one trained network, and how long each takes.

Of every training sample: a number that is larger where the network is said to owe it more. Of
every pair with a query: how much the sample is said to help with the query.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.quality.truth import CPU, Scene, Setting, network
from imu import training
from imu.influences import Config, influence, layer_influence, pairs
from imu.objectives import answered

FIRST_SEED = 40_000  # of networks that are estimated
ORIGINALS = 2  # of them in each setting
FLAT = 1e6  # damping beside which every curvature vanishes
EVERYWHERE = ("",)
PARTS = {"head": ("head",), "last block": ("blocks.2", "head"), "all": EVERYWHERE}
CHUNK = 512
CHECKPOINTS = 5  # that TracIn sums over, the last one among them


class Checkpoint(NamedTuple):
    rate: float  # learning rate of the epoch that ends here
    model: nn.Module


class Estimator(NamedTuple):
    """samples: (n,), or None. pairs: (n, m), or None."""

    name: str
    samples: Callable[[], Tensor] | None
    pairs: Callable[[], Tensor] | None = None


def trained(setting: Setting, of: Scene, seed: int) -> list[Checkpoint]:
    """A network on the whole training set, as it was after some epochs."""
    model, found = network(setting, of, seed), []
    each = max(1, setting.epochs // CHECKPOINTS)
    for epoch in training.fit(model, of.data, of.rows, setting.recipe, seed=seed, device=CPU):
        if epoch.epoch % each == 0:
            found.append(Checkpoint(epoch.learning_rate, copy.deepcopy(model).eval()))
    return found


def estimators(of: Scene, course: list[Checkpoint], seed: int) -> Iterator[Estimator]:
    """Damping: 0.01, the default, and a tenth of the mean of the Fisher's diagonal."""
    model, given = course[-1].model, of.trained
    draw = torch.Generator().manual_seed(seed)

    def said(config: Config, at: nn.Module = model) -> Tensor:
        found = influence(at, of.task, given, config)
        return found if config.score == "self" else -found

    def paired(config: Config, at: nn.Module = model) -> Tensor:
        return pairs(at, of.task, given, of.queries, config)

    n, m = len(given), len(of.queries)
    yield Estimator(
        "random",
        lambda: torch.rand(n, generator=draw),
        lambda: torch.rand(n, m, generator=draw),
    )
    yield Estimator("loss", lambda: answered(model, of.task, given).losses)
    yield Estimator("margin, negative", lambda: -answered(model, of.task, given).margins)
    for where, names in PARTS.items():
        own = Config(parameters=names, score="self", chunk=CHUNK)
        plain = Config(parameters=names, score="self", chunk=CHUNK, damping=FLAT)
        of_block = where == "last block"

        def of_parts(name: str, config: Config, alone: bool = of_block) -> Estimator:
            return Estimator(
                name, partial(said, config), None if alone else partial(paired, config)
            )

        yield of_parts(f"gradient norm, {where}", plain)
        yield Estimator(
            f"mean, diagonal, {where}", partial(said, Config(parameters=names, chunk=CHUNK))
        )
        yield of_parts(f"self, diagonal, {where}", own)
        least = relative_damping(model, of, names)
        for fisher in ("diagonal", "full", "ekfac") if where == "head" else ("diagonal", "ekfac"):
            config = Config(
                parameters=names, score="self", fisher=fisher, damping=least, chunk=CHUNK
            )
            yield of_parts(f"self, {fisher}, {where}, small damping", config)
        if of_block:
            continue

        def traced(ask: Callable[[Config, nn.Module], Tensor], config: Config = plain) -> Tensor:
            return torch.stack([point.rate * ask(config, point.model) for point in course]).sum(0)

        yield Estimator(f"TracIn, {where}", partial(traced, said), partial(traced, paired))


def relative_damping(model: nn.Module, of: Scene, names: tuple[str, ...]) -> float:
    found = layer_influence(
        model, of.task, of.trained, parameters=names, damping=1.0, chunk=CHUNK
    ).fisher
    return 0.1 * torch.cat([values.flatten() for values in found.values()]).mean().item()


def estimated(setting: Setting, of: Scene, number: int) -> dict[str, np.ndarray]:
    """What every estimator says of one network, by kind and name, and the seconds of each."""
    course = trained(setting, of, FIRST_SEED + number)
    found: dict[str, np.ndarray] = {}
    for each in estimators(of, course, FIRST_SEED + number):
        for kind, ask in (("samples", each.samples), ("pairs", each.pairs)):
            if ask is None:
                continue
            begin = perf_counter()
            found[f"{kind}/{each.name}"] = ask().numpy()
            found[f"seconds/{kind}/{each.name}"] = np.array(perf_counter() - begin)
    return found
