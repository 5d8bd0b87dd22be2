"""Would a perfect influence help? Methods that are handed the truth, against those that are not.

A cell is a network, the samples that it must forget, and networks retrained without these. Methods
are given the same target and differ in their weights alone:

    uniform        the same for all
    permuted       the roots of memorisation, given to other samples
    mean, self     the roots of influence, as ``imu`` and ``imu_deep`` take it by default
    memorisation   that of ``truth``; an oracle, and its root
    ... of margin  the same of log(p / (1 − p)), the unit in which ``imu_deep`` lowers labels
    retraining     how far the margin falls by retraining without the cell's forget set, mean over
                   networks that do not judge; the best oracle that there is

No oracle can be had in practice: each costs many trainings, or the very retraining that unlearning
is to save.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.quality.truth import Scene, Setting, Truth, trained
from imu import influences, splitting
from imu.influences import ascent_weights
from imu.methods import ForgetSet, Step, imu, imu_deep
from imu.models import head_name
from imu.objectives import answered, margins, predictions
from imu.unseen import unseen_by

FIRST_SEED = 50_000  # of originals, and of what is drawn for a cell
CELLS = 6  # of each scenario in each setting
JUDGES = TELLERS = 2  # retrained networks that judge, and that tell the oracle
SHARE = 0.1  # of a random forget set
SCENARIOS = ("random", "class")
IMU = imu.Config(step=0.1)
ORACLES = (
    "memorisation",
    "root of memorisation",
    "memorisation of margin",
    "retraining",
)


Measured = dict[str, float]


class Cell(NamedTuple):
    """forget: places in the training set. retrained: the judges first, then the tellers."""

    scenario: str
    number: int
    forget: np.ndarray
    original: nn.Module
    retrained: list[nn.Module]


def made(setting: Setting, of: Scene, scenario: str, number: int) -> Cell:
    labels = of.trained.targets.numpy()
    seed = FIRST_SEED + 100 * (2 * number + SCENARIOS.index(scenario))
    if scenario == "class":
        forget = labels == number
    else:
        forget = splitting.drawn(labels, splitting.FractionRequest(fraction=SHARE, seed=seed))
    seeds = range(seed + 1, seed + 1 + JUDGES + TELLERS)
    (original,) = trained(setting, of, [np.arange(len(labels))], [seed])
    retrained = trained(setting, of, [np.flatnonzero(~forget)] * len(seeds), seeds)
    return Cell(scenario, number, np.flatnonzero(forget), original, retrained)


def target(of: Scene, cell: Cell) -> ForgetSet:
    """As it ships: of samples by what the original says of unseen ones.

    Where training labels are wrong, unseen samples with right ones are no measure; there it is the
    mean margin that retraining gives, in the networks that do not judge.
    """
    samples = of.trained[torch.from_numpy(cell.forget)]
    if cell.scenario == "class":
        return ForgetSet.whole(samples, (cell.number,))
    if of.wrong.any():
        after = [answered(m, of.task, samples).margins.mean() for m in cell.retrained[JUDGES:]]
        return ForgetSet(
            samples=samples, classes=(), target_margin=torch.stack(after).mean().item()
        )
    unseen = unseen_by(cell.original, of.task, [of.trained], of.queries)
    return ForgetSet.as_unseen(samples, unseen)


def weightings(of: Scene, cell: Cell, forget: ForgetSet, truth: Truth) -> dict[str, Tensor]:
    """Name -> weight of every forget sample, >= 0: (n,)."""
    draw = torch.Generator().manual_seed(FIRST_SEED + cell.number)
    model, task, samples = cell.original, of.task, forget.samples
    memorised, of_margin = (
        torch.from_numpy(found[cell.forget]).nan_to_num().clamp(min=0)
        for found in (truth.memorisation(), truth.memorisation(of_margin=True))
    )
    now = answered(model, task, samples)
    after = [answered(told, task, samples).margins for told in cell.retrained[JUDGES:]]
    fall = (now.margins - torch.stack(after).mean(0)).clamp(min=0)

    def ours(score: influences.Score, where: tuple[str, ...] = ()) -> Tensor:
        config = influences.Config(score=score, parameters=where)
        scores = influences.influence(model, task, samples, config)
        return ascent_weights(scores, score=score, clip_quantile=0.93, top_fraction=1.0)[0].double()

    return {
        "uniform": torch.ones(len(samples), dtype=torch.float64),
        "permuted": memorised.sqrt()[torch.randperm(len(samples), generator=draw)],
        "mean": ours("mean"),
        "self": ours("self", ("blocks.2", head_name(model))),
        "memorisation": memorised,
        "root of memorisation": memorised.sqrt(),
        "memorisation of margin": of_margin,
        "retraining": fall,
    }


def unlearned(
    method: str, of: Scene, cell: Cell, forget: ForgetSet, weights: Tensor
) -> tuple[nn.Module, list[Step]]:
    model, draw = copy.deepcopy(cell.original), torch.Generator().manual_seed(cell.number)
    given = weights.float()
    if method == "imu":
        steps = imu.unlearn(model, of.task, IMU, draw, forget=forget, influence=given)
    else:
        config = imu_deep.Config()
        steps = imu_deep.unlearn(model, of.task, config, draw, forget=forget, owed=given)
    return model, list(steps)


def distances(of: Scene, cell: Cell, model: nn.Module) -> dict[str, float]:
    """To the judges, mean over them; TV in % of samples' probability, accuracy in %."""
    samples = of.trained[torch.from_numpy(cell.forget)]
    found: dict[str, list[float]] = {}
    fall = []
    for judge in cell.retrained[:JUDGES]:
        for name, asked in (("TV_forget", samples), ("TV_test", of.queries)):
            p, q = (predictions(m, of.task, asked.inputs).softmax(1) for m in (model, judge))
            found.setdefault(name, []).append(50 * (p - q).abs().sum(1).mean().item())
        fall.append(margins(predictions(judge, of.task, samples.inputs), samples.targets))
    own = margins(predictions(model, of.task, samples.inputs), samples.targets)
    apart = (torch.stack(fall).mean(0) - own).abs().clamp(max=20)
    said = answered(model, of.task, of.queries).right
    return {name: float(np.mean(values)) for name, values in found.items()} | {
        "margin_forget": apart.mean().item(),
        "TA": 100 * said.mean().item(),
        "margin": own.mean().item(),
    }


def compared(setting: Setting, of: Scene, kept: Path, scenario: str, number: int) -> Measured:
    """All weightings in one cell, by method, weighting and measure. kept: where the truth is."""
    cell = made(setting, of, scenario, number)
    forget = target(of, cell)
    found: dict[str, float] = {}

    def add(method: str, weights: str, values: Mapping[str, float]) -> None:
        found.update({f"{method}/{weights}/{name}": value for name, value in values.items()})

    add("nothing", "", distances(of, cell, cell.original))
    for name, value in distances(of, cell, cell.retrained[-1]).items():
        found[f"retrained//{name}"] = value
    every = weightings(of, cell, forget, Truth.read(kept))
    for method in ("imu", "imu_deep") if scenario == "random" else ("imu",):
        for name, weights in every.items():
            model, steps = unlearned(method, of, cell, forget, weights)
            reached = float(forget.reached(steps[0], steps[-1]))
            add(method, name, distances(of, cell, model) | {"reached": reached})
    return found
