"""Train / validation / test split, and the ways to name what must be forgotten.

Validation is used for choosing, test for reporting only. ``imu.selecting`` finds what is named.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import pandas as pd

from imu.bounds import SEED, check_fields, once


@dataclass(frozen=True, kw_only=True)
class ClassRequest:
    classes: tuple[str, ...] = ("8",)  # names of the classes to forget whole

    def __post_init__(self) -> None:
        once("classes", self.classes)


@dataclass(frozen=True, kw_only=True)
class FractionRequest:
    fraction: float = 0.1  # share of the training samples, in (0, 1)
    stratified: bool = True  # draw the same share from every class
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, fraction="in (0, 1)", seed=SEED)


@dataclass(frozen=True, kw_only=True)
class IdsRequest:
    file: str = "requests/example.csv"  # CSV or parquet with a column "id"


@dataclass(frozen=True, kw_only=True)
class GroupRequest:
    attribute: str = "superclass"  # what the data set knows of a sample besides its label
    values: tuple[str, ...] = ("flowers",)  # the groups to forget

    def __post_init__(self) -> None:
        once("values", self.values)


@dataclass(frozen=True, kw_only=True)
class SubjectRequest:
    subjects: tuple[str, ...] = ("subject-1",)  # whose samples to forget, all of them

    def __post_init__(self) -> None:
        once("subjects", self.subjects)


@dataclass(frozen=True, kw_only=True)
class Config:
    dataset: str = "digits"
    seed: int = 0
    used: float = 1.0  # share of every class that is used at all, in (0, 1]
    validation: float = 0.15  # share of the used samples, in (0, 1)
    # test: of the published test samples; published: those set apart for validation, all of them
    validation_from: Literal["train", "test", "published"] = "train"
    test: float | Literal["published"] = 0.25  # likewise; or those that its authors set apart
    forgotten_before: str = "requests/forgotten.csv"  # as by_ids.file: left out of every set
    forget_twins: bool = False  # also what has the same pixels as a sample that is forgotten
    scenario: Literal["class", "fraction", "ids", "group", "subject"] = "class"
    by_class: ClassRequest = ClassRequest()
    by_fraction: FractionRequest = FractionRequest()
    by_ids: IdsRequest = IdsRequest()
    by_group: GroupRequest = GroupRequest()
    by_subject: SubjectRequest = SubjectRequest()

    def __post_init__(self) -> None:
        check_fields(self, used="in (0, 1]", validation="in (0, 1)", seed=SEED)
        if self.test == "published":
            return
        if self.validation_from != "train":
            raise ValueError(
                f"validation_from can be {self.validation_from!r} only where test is 'published', "
                f"got {self.test}"
            )
        if not 0 < self.test < 1:
            raise ValueError(f"test must be in (0, 1) or 'published', got {self.test}")
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test must be < 1, got {self.validation} + {self.test}")


def split(
    samples: pd.DataFrame,
    config: Config,
    classes: tuple[str, ...],
    published_test: np.ndarray | None = None,
    published_validation: np.ndarray | None = None,
    *,
    together: str = "",
) -> dict[str, pd.DataFrame]:
    """Stratified train, validation and test sets of ``samples`` (columns id, index, label).

    classes: their names. published_test, published_validation: (n,) bool by row of ``samples``,
    which ``config.test`` and ``config.validation_from`` may ask for. together: a column, such as
    subject; samples of one value stay together and are counted as one, of the label of the first.
    Raises ValueError when there is nothing published, when validation samples are published but not
    asked for, and when a class has too few samples.
    """
    if together:
        first = ~samples[together].duplicated().to_numpy()
        parts = split(
            samples[first],
            config,
            classes,
            None if published_test is None else published_test[first],
            None if published_validation is None else published_validation[first],
        )
        return {
            name: samples[samples[together].isin(part[together])].reset_index(drop=True)
            for name, part in parts.items()
        }
    return _split(samples, config, classes, published_test, published_validation)


def _split(
    samples: pd.DataFrame,
    config: Config,
    classes: tuple[str, ...],
    published_test: np.ndarray | None,
    published_validation: np.ndarray | None,
) -> dict[str, pd.DataFrame]:
    from sklearn.model_selection import train_test_split

    def divided(
        rows: pd.DataFrame, share: float, field: Literal["validation", "test"]
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        _require_one_of_each(rows, share, field, getattr(config, field), classes)
        parts = train_test_split(
            rows, test_size=share, stratify=rows["label"], random_state=config.seed
        )
        return parts[0], parts[1]

    if config.test == "published" and published_test is None:
        raise ValueError(
            f"split.test is 'published', but {config.dataset} has no samples set apart for "
            "testing: give a share in (0, 1)"
        )
    if config.test == "published":
        _require_validation(config, published_validation)
    none = np.zeros(len(samples), bool)
    published = none if published_test is None else published_test
    held = none if published_validation is None else published_validation
    labels = samples["label"].unique()
    if config.used < 1:
        kept = drawn(
            samples["label"].to_numpy() * 3 + published + 2 * held,
            FractionRequest(fraction=config.used, seed=config.seed),
        )
        samples, published, held = samples[kept], published[kept], held[kept]
    counts = samples["label"].value_counts().reindex(labels, fill_value=0)
    if config.validation_from != "published" and counts.min() < 3:
        raise ValueError(
            f"class {classes[counts.idxmin()]!r} has {counts.min()} samples"
            + (f" at split.used {config.used}" if config.used < 1 else "")
            + ": a split into train, validation and test needs at least 3 of every class"
        )
    if config.validation_from == "published":
        train, validation, test = (samples[of] for of in (~published & ~held, held, published))
    elif config.test == "published":
        train, test = samples[~published], samples[published]
        rest = test if config.validation_from == "test" else train
        share = config.validation * len(samples) / len(rest)
        if not share < 1:
            raise ValueError(
                f"split.validation asks for {config.validation} of {len(samples)} samples, but "
                f"there are {len(rest)} to take them from (validation_from: "
                f"{config.validation_from})"
            )
        rest, validation = divided(rest, share, "validation")
        if config.validation_from == "test":
            test = rest
        else:
            train = rest
    else:
        rest, test = divided(samples, config.test, "test")
        train, validation = divided(rest, config.validation / (1 - config.test), "validation")
    sets = {"train": train, "validation": validation, "test": test}
    return {name: rows.sort_values("index", ignore_index=True) for name, rows in sets.items()}


def _require_validation(config: Config, published: np.ndarray | None) -> None:
    """Where the published parts count, all of them do: what was not trained on stays unseen."""
    if config.validation_from == "published" and published is None:
        raise ValueError(
            f"split.validation_from is 'published', but {config.dataset} has no samples set apart "
            "for validation beside those for testing: take them from train or test"
        )
    if config.validation_from != "published" and published is not None:
        raise ValueError(
            f"split.test is 'published', and {config.dataset} has {published.sum()} samples set "
            "apart for validation as well: set split.validation_from to 'published', got "
            f"{config.validation_from!r}"
        )


def drawn(labels: np.ndarray, request: FractionRequest) -> np.ndarray:
    """Which samples the request draws, (n,) bool."""
    draw = np.random.default_rng(request.seed)
    chosen = np.zeros(len(labels), dtype=bool)
    if request.stratified:
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    else:
        groups = [np.arange(len(labels))]
    for group in groups:
        size = round(request.fraction * len(group))
        chosen[draw.choice(group, size, replace=False)] = True
    return chosen


def _require_one_of_each(
    rows: pd.DataFrame, share: float, field: str, value: float, classes: tuple[str, ...]
) -> None:
    """A stratified division has a sample of every class on either side."""
    counts = rows["label"].value_counts()
    if counts.min() < 2:
        raise ValueError(
            f"split.{field} is {value}: class {classes[counts.idxmin()]!r} has {counts.min()} "
            f"sample to take it from and to leave, and needs at least 2"
        )
    taken = ceil(share * len(rows))
    left = len(rows) - taken
    if taken < len(counts):
        least = ceil(1e4 * value * len(counts) / (share * len(rows)) - 1e-6) / 1e4
        raise ValueError(
            f"split.{field} is {value}: {taken} of {len(rows)} samples cannot hold one of each of "
            f"{len(counts)} classes; it must be at least {least}"
        )
    if left < len(counts):
        most = int(1e4 * value * (len(rows) - len(counts)) / (share * len(rows)) + 1e-6) / 1e4
        raise ValueError(
            f"split.{field} is {value}: the {left} of {len(rows)} samples that it leaves cannot "
            f"hold one of each of {len(counts)} classes; it must be at most {most}"
        )
