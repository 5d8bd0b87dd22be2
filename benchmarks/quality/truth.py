"""What each training sample is worth to networks of a kind, by training many without it.

Every network is trained on a random part of the training set, and asked about all of it and about
queries that none was trained on. With p_k(i) what network k gives to the label of sample i:

    memorisation of i   mean of p_k(i) over networks trained with i, minus that over those without
                        (Feldman & Zhang 2020, arXiv 2008.03703, eq. 1)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.gpu import images
from imu import ensemble, training
from imu.datasets import LabelledImages, digits
from imu.datasets.common.tensors import pixels
from imu.models import resnet_small
from imu.objectives import Samples
from imu.objectives.classification import Classification

CPU = torch.device("cpu")
PART = 0.7  # share of the training set that each network is trained on
STACK = 16  # networks of one file
FIRST_SEED = 30_000  # of networks that are the truth; no page of results comes near


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Samples, labels and networks."""

    name: str
    images: str  # digits or cifar
    trained: int  # samples
    queries: int  # samples that no network is trained on
    flipped: float = 0.0  # share of the training labels that are wrong
    networks: int = 96
    width: int = 8
    epochs: int = 10
    shift: int = 1  # pixels
    flip: bool = False

    @property
    def recipe(self) -> training.Config:
        return training.Config(epochs=self.epochs, shift=self.shift, flip=self.flip)

    @property
    def key(self) -> str:
        """Another setting has another folder."""
        return hashlib.sha256(repr(asdict(self)).encode()).hexdigest()[:12]


SETTINGS = (
    Setting(name="digits", images="digits", trained=1077, queries=300),
    Setting(name="digits, flipped", images="digits", trained=1077, queries=300, flipped=0.1),
    Setting(
        name="CIFAR-10",
        images="cifar",
        trained=1000,
        queries=300,
        networks=64,
        epochs=20,
        shift=2,
        flip=True,
    ),
)


class Scene(NamedTuple):
    """The data of a setting. rows: of the training set, in ``data``. wrong: (n,) bool."""

    data: LabelledImages
    rows: list[int]
    trained: Samples
    queries: Samples
    task: Classification
    wrong: np.ndarray


class Truth(NamedTuple):
    """What the networks say. with_it: (k, n) bool. margins: (k, n). asked: (k, m), of queries."""

    with_it: np.ndarray
    margins: np.ndarray
    asked: np.ndarray

    def of(self, networks: np.ndarray) -> "Truth":
        return Truth(*(values[networks] for values in self))

    @classmethod
    def read(cls, folder: Path) -> "Truth":
        found = [np.load(path) for path in sorted(folder.glob("truth-?.npz"))]
        return cls(*(np.concatenate([part[name] for part in found]) for name in cls._fields))

    def memorisation(self, *, of_margin: bool = False) -> np.ndarray:
        """(n,); NaN where every network, or none, was trained with it. of_margin: in place of p."""
        p = self.margins if of_margin else 1 / (1 + np.exp(-self.margins))
        seen = self.with_it
        with np.errstate(invalid="ignore"):
            return (p * seen).sum(0) / seen.sum(0) - (p * ~seen).sum(0) / (~seen).sum(0)


@lru_cache
def scene(setting: Setting, root: Path, scratch: Path) -> Scene:
    """Drawn once for each setting. scratch: where photographs were unpacked."""
    if setting.images == "digits":
        data = digits.load(root / "data" / "digits")
    else:
        data = smaller(images.load(scratch), setting.trained + setting.queries)
    draw = np.random.default_rng(FIRST_SEED)
    order = draw.permutation(len(data.labels))
    rows, asked = (
        order[: setting.trained],
        order[setting.trained : setting.trained + setting.queries],
    )
    wrong = np.zeros(len(rows), bool)
    wrong[draw.choice(len(rows), round(setting.flipped * len(rows)), replace=False)] = True
    labels, classes = data.labels.copy(), len(data.classes)
    labels[rows[wrong]] += draw.integers(1, classes, wrong.sum())
    data = replace(data, labels=labels % classes)
    return Scene(
        data=data,
        rows=rows.tolist(),
        trained=Samples(*pixels(data, rows.tolist(), CPU)),
        queries=Samples(*pixels(data, asked.tolist(), CPU)),
        task=Classification(mean=data.mean, std=data.std, scale=data.scale),
        wrong=wrong,
    )


def smaller(data: LabelledImages, count: int) -> LabelledImages:
    """So many of the images at half the width and height, on which small networks train fast."""
    rows = np.random.default_rng(FIRST_SEED).choice(len(data.labels), count, replace=False)
    given = torch.from_numpy(np.asarray(data.images[rows])).float()
    return LabelledImages(
        images=F.avg_pool2d(given, 2).round().byte().numpy(),
        labels=np.asarray(data.labels[rows]),
        ids=data.ids[rows],
        classes=data.classes,
        scale=data.scale,
        mean=data.mean,
        std=data.std,
    )


def network(setting: Setting, of: Scene, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    shape = tuple(of.data.images.shape[1:])
    return resnet_small.build(
        resnet_small.Config(width=setting.width), (shape[0], shape[1], shape[2]), 10
    )


def trained(
    setting: Setting, of: Scene, parts: Sequence[np.ndarray], seeds: Sequence[int]
) -> list[nn.Module]:
    """Networks on parts of the training set, each the places of its samples."""
    found = [network(setting, of, seed) for seed in seeds]
    own = [torch.from_numpy(np.sort(part)) for part in parts]
    for _ in ensemble.fit(
        found, of.data, of.rows, setting.recipe, seeds=seeds, device=CPU, parts=own
    ):
        pass
    return found


def stack(setting: Setting, of: Scene, number: int) -> Truth:
    """Networks number · STACK and following."""
    seeds = [FIRST_SEED + number * STACK + k for k in range(STACK)]
    n = len(of.rows)
    with_it = np.zeros((STACK, n), bool)
    for seen, seed in zip(with_it, seeds, strict=True):
        seen[np.random.default_rng(seed).choice(n, round(PART * n), replace=False)] = True
    models = trained(setting, of, [np.flatnonzero(seen) for seen in with_it], seeds)
    margins, asked = (
        ensemble.margins(models, of.task, samples).numpy() for samples in (of.trained, of.queries)
    )
    return Truth(with_it, margins, asked)
