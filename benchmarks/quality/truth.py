"""What each training sample is worth to networks of a kind, by training many without it.

Every network is trained on a random part of the training set, and asked about all of it and about
queries that none was trained on. With p_k(i) what network k gives to the label of sample i:

    memorisation of i   mean of p_k(i) over networks trained with i, minus that over those without
                        (Feldman & Zhang 2020, arXiv 2008.03703, eq. 1)

Of texts p is that of the mean margin over the tokens of the answer, and parts are of people: who is
left out is left out with all that is said of them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.gpu import images
from imu import ensemble, training
from imu.datasets import Dataset, LabelledImages, Source, biographies, digits
from imu.datasets.common.tensors import pixels
from imu.models import gpt_small, resnet_small
from imu.objectives import Objective, Samples, answered, language
from imu.objectives.classification import Classification

CPU = torch.device("cpu")
PART = 0.7  # share of the training set that each network is trained on
STACK = 16  # networks of one file
FIRST_SEED = 30_000  # of networks that are the truth; no page of results comes near


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Samples, labels and networks."""

    name: str
    images: str  # digits or cifar; or, which are none, biographies
    trained: int  # samples
    queries: int  # samples that no network is trained on
    flipped: float = 0.0  # share of the training labels that are wrong
    networks: int = 96
    width: int = 8
    epochs: int = 10
    shift: int = 1  # pixels
    flip: bool = False

    @property
    def of_texts(self) -> bool:
        return self.images == "biographies"

    @property
    def recipe(self) -> training.Config:
        if self.of_texts:  # as in settings/biographies.yaml
            return training.Config(
                optimizer="adamw",
                epochs=self.epochs,
                batch_size=32,
                learning_rate=2e-3,
                weight_decay=0.01,
                clip=1.0,
                warmup=0.1,
            )
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
    Setting(name="biographies", images="biographies", trained=768, queries=256, networks=64),
)
PEOPLE = 32  # a quarter of whom no network is trained on
GPT = gpt_small.Config(width=128, layers=2, heads=4, hidden=512, vocabulary=2048, context=64)


class Scene(NamedTuple):
    """The data of a setting. rows: of the training set, in ``data``. wrong: (n,) bool. together:
    (n,), equal where samples are left out together. about: the tokenizer, of texts."""

    data: Dataset
    rows: list[int]
    trained: Samples
    queries: Samples
    task: Objective
    wrong: np.ndarray
    together: np.ndarray
    about: dict[str, Any]


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
    if setting.of_texts:
        return told(setting)
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
        together=np.arange(len(rows)),
        about={},
    )


def told(setting: Setting) -> Scene:
    """What is said of people who do not exist; of the last of them nothing is trained on."""
    with TemporaryDirectory() as folder:
        biographies.write(Path(folder), Source(people=PEOPLE))
        data = biographies.load(Path(folder))
    people = np.unique(data.attributes["subject"], return_inverse=True)[1]
    order = np.argsort(people, kind="stable")[: setting.trained + setting.queries].tolist()
    rows, asked = order[: setting.trained], order[setting.trained :]
    about = {
        "tokens": gpt_small.tokens(GPT, map(str, (*data.prompts, *data.answers))).to_json(),
        "config": {"context": GPT.context},
    }
    return Scene(
        data=data,
        rows=rows,
        trained=language.samples(data, rows, about, CPU),
        queries=language.samples(data, asked, about, CPU),
        task=language.objective(about),
        wrong=np.zeros(len(rows), bool),
        together=people[rows],
        about=about,
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
    if not isinstance(of.data, LabelledImages):
        return language.built(gpt_small, GPT, of.about)
    shape = tuple(of.data.images.shape[1:])
    return resnet_small.build(
        resnet_small.Config(width=setting.width), (shape[0], shape[1], shape[2]), 10
    )


def trained(
    setting: Setting, of: Scene, parts: Sequence[np.ndarray], seeds: Sequence[int]
) -> list[nn.Module]:
    """Networks on parts of the training set, each the places of its samples."""
    found = [network(setting, of, seed) for seed in seeds]
    if not isinstance(of.data, LabelledImages):
        for model, part, seed in zip(found, parts, seeds, strict=True):
            for _ in fitted(setting, of, model, [of.rows[k] for k in np.sort(part)], seed):
                pass
        return found
    own = [torch.from_numpy(np.sort(part)) for part in parts]
    for _ in ensemble.fit(
        found, of.data, of.rows, setting.recipe, seeds=seeds, device=CPU, parts=own
    ):
        pass
    return found


def fitted(
    setting: Setting, of: Scene, model: nn.Module, rows: list[int], seed: int
) -> Iterator[training.Epoch]:
    recipe, about = setting.recipe, of.about
    return training.fit(model, of.data, rows, recipe, seed=seed, device=CPU, about=about)


def seen_by(together: np.ndarray, seed: int) -> np.ndarray:
    """Which samples one network is trained on, ``PART`` of the groups: (n,) bool."""
    groups = np.unique(together)
    draw = np.random.default_rng(seed)
    chosen = draw.choice(groups, round(PART * len(groups)), replace=False)
    found: np.ndarray = np.isin(together, chosen)
    return found


def stack(setting: Setting, of: Scene, number: int) -> Truth:
    """Networks number · STACK and following."""
    seeds = [FIRST_SEED + number * STACK + k for k in range(STACK)]
    with_it = np.stack([seen_by(of.together, seed) for seed in seeds])
    models = trained(setting, of, [np.flatnonzero(seen) for seen in with_it], seeds)
    margins, asked = (
        np.stack([answered(model, of.task, samples).margins.numpy() for model in models])
        for samples in (of.trained, of.queries)
    )
    return Truth(with_it, margins, asked)
