"""What estimators say of one trained network, and how long each takes.

Of every training sample: a number that is larger where the network is said to owe it more. Of
every pair with a query: how much the sample is said to help with the query.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.quality.truth import Scene, Setting, fitted, network
from imu.influences import Config, influence, pairs
from imu.objectives import answered

FIRST_SEED = 40_000  # of networks that are estimated
ORIGINALS = 2  # of them in each setting
FLAT = 1e6  # damping beside which every curvature vanishes
PARTS = {"head": ("head",), "last block": ("blocks.2", "head"), "all": ("",)}
OF_TEXTS = PARTS | {"last block": ("blocks.1", "head")}  # of two blocks
SMALL: dict[str, Any] = {"damping": 1e-9, "damping_share": 0.1}
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


def course(setting: Setting, of: Scene, number: int) -> dict[str, np.ndarray]:
    """A network on the whole training set, as it was after some epochs: weights by epoch."""
    seed = FIRST_SEED + number
    model, found = network(setting, of, seed), {}
    each = max(1, setting.epochs // CHECKPOINTS)
    for epoch in fitted(setting, of, model, of.rows, seed):
        if epoch.epoch % each == 0:
            found[f"{epoch.epoch}/rate"] = np.array(epoch.learning_rate)
            for name, tensor in model.state_dict().items():
                found[f"{epoch.epoch}/{name}"] = tensor.numpy().copy()
    return found


def checkpoints(setting: Setting, of: Scene, kept: Path) -> list[Checkpoint]:
    """Of what ``course`` gave, the last one last."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in np.load(kept).items():
        epoch, _, rest = name.partition("/")
        states.setdefault(int(epoch), {})[rest] = torch.from_numpy(value)
    found = []
    for _, state in sorted(states.items()):
        rate, model = state.pop("rate").item(), network(setting, of, 0)
        model.load_state_dict(state)
        found.append(Checkpoint(rate, model.eval()))
    return found


def simple(of: Scene, points: list[Checkpoint]) -> Iterator[Estimator]:
    model, n, m = points[-1].model, len(of.trained), len(of.queries)
    draw = torch.Generator().manual_seed(FIRST_SEED)
    yield Estimator(
        "random",
        lambda: torch.rand(n, generator=draw),
        None if of.about else lambda: torch.rand(n, m, generator=draw),
    )
    yield Estimator("loss", lambda: answered(model, of.task, of.trained).losses)
    yield Estimator("margin, negative", lambda: -answered(model, of.task, of.trained).margins)


def influences(of: Scene, points: list[Checkpoint], where: str) -> Iterator[Estimator]:
    """Damping: 0.01, the default, and a tenth of the mean of the Fisher's diagonal."""
    model, names = points[-1].model, parts(of)[where]

    def asked(name: str, **choices: Any) -> Estimator:
        config = Config(parameters=names, chunk=chunk(of), **choices)
        paired = partial(pairs, model, of.task, of.trained, of.queries, config)
        alone = bool(of.about) or where == "last block" or config.score == "mean"
        said = partial(scores, model, of, config)
        return Estimator(f"{name}, {where}", said, None if alone else paired)

    yield asked("gradient norm", score="self", damping=FLAT)
    yield asked("mean, diagonal")
    yield asked("self, diagonal", score="self")
    full = ["full"] if where == "head" and not of.about else []  # too large for many words
    for fisher in ("diagonal", *full, "ekfac"):
        yield asked(f"self, {fisher}, small damping", score="self", fisher=fisher, **SMALL)


def traced(of: Scene, points: list[Checkpoint], where: str) -> Iterator[Estimator]:
    """TracIn (Pruthi et al. 2020, arXiv 2002.08484, eq. 1), over the checkpoints."""
    config = Config(parameters=parts(of)[where], score="self", damping=FLAT, chunk=chunk(of))

    def summed(ask: Callable[[nn.Module], Tensor]) -> Tensor:
        return torch.stack([point.rate * ask(point.model) for point in points]).sum(0)

    def paired(at: nn.Module) -> Tensor:
        return pairs(at, of.task, of.trained, of.queries, config)

    one = partial(summed, lambda at: scores(at, of, config))
    yield Estimator(f"TracIn, {where}", one, None if of.about else partial(summed, paired))


def parts(of: Scene) -> dict[str, tuple[str, ...]]:
    return OF_TEXTS if of.about else PARTS


def chunk(of: Scene) -> int:
    return CHUNK // 8 if of.about else CHUNK


GROUPS: dict[str, Callable[[Scene, list[Checkpoint]], Iterator[Estimator]]] = {
    "simple": simple,
    **{where: partial(influences, where=where) for where in PARTS},
    **{f"TracIn {where}": partial(traced, where=where) for where in ("head", "all")},
}


def scores(model: nn.Module, of: Scene, config: Config) -> Tensor:
    """Larger where more is owed: (n,)."""
    found = influence(model, of.task, of.trained, config)
    return found if config.score == "self" else -found


def estimated(setting: Setting, of: Scene, kept: Path, group: str) -> dict[str, np.ndarray]:
    """What a group of estimators says of one network, by kind and name, and the seconds of each.

    kept: what ``course`` gave.
    """
    found: dict[str, np.ndarray] = {}
    points = checkpoints(setting, of, kept)
    few = of._replace(trained=of.trained[:2], queries=of.queries[:2])
    first = next(GROUPS["head"](few, points))
    if ask := first.pairs or first.samples:
        ask()  # what is slow when it is first called
    for each in GROUPS[group](of, points):
        for kind, ask in (("samples", each.samples), ("pairs", each.pairs)):
            if ask is None:
                continue
            begin = perf_counter()
            found[f"{kind}/{each.name}"] = ask().numpy()
            found[f"seconds/{kind}/{each.name}"] = np.array(perf_counter() - begin)
    return found
