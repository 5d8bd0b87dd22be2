"""Train / validation / test split, and the three ways to name what must be forgotten.

Validation is used for choosing, test for reporting only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd


@dataclass(frozen=True, kw_only=True)
class ClassRequest:
    classes: tuple[str, ...] = ("8",)  # names of the classes to forget whole


@dataclass(frozen=True, kw_only=True)
class FractionRequest:
    fraction: float = 0.1  # share of the training samples, in (0, 1)
    stratified: bool = True  # draw the same share from every class
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), got {self.fraction}")


@dataclass(frozen=True, kw_only=True)
class IdsRequest:
    file: str = "requests/example.csv"  # CSV or parquet with a column "id"


@dataclass(frozen=True, kw_only=True)
class Config:
    dataset: str = "digits"
    seed: int = 0
    validation: float = 0.15  # share of all samples, in (0, 1)
    test: float = 0.25  # share of all samples, in (0, 1)
    scenario: Literal["class", "fraction", "ids"] = "class"
    by_class: ClassRequest = ClassRequest()
    by_fraction: FractionRequest = FractionRequest()
    by_ids: IdsRequest = IdsRequest()

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test must be < 1, got {self.validation} + {self.test}")


def split(samples: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """Stratified train, validation and test sets of ``samples`` (columns id, index, label)."""
    from sklearn.model_selection import train_test_split

    counts = samples["label"].value_counts()
    if counts.min() < 3:
        raise ValueError(
            f"class {counts.idxmin()} has {counts.min()} samples: a split into train, validation "
            "and test needs at least 3 of every class"
        )
    rest, test = train_test_split(
        samples, test_size=config.test, stratify=samples["label"], random_state=config.seed
    )
    train, validation = train_test_split(
        rest,
        test_size=config.validation / (1 - config.test),
        stratify=rest["label"],
        random_state=config.seed,
    )
    sets = {"train": train, "validation": validation, "test": test}
    return {name: rows.sort_values("index", ignore_index=True) for name, rows in sets.items()}


def select(
    sets: dict[str, pd.DataFrame],
    config: Config,
    classes: tuple[str, ...],
    requested: pd.DataFrame | None = None,
) -> tuple[dict[str, pd.DataFrame], tuple[int, ...]]:
    """Divide the training set into forget and retain as the scenario says.

    sets: from ``split``. classes: names of the classes. requested: the table of the ids scenario.
    Returns train, forget, retain, validation and test, and the labels of the classes forgotten
    whole: those of the forget set, if none of them keeps a training sample, else none. An erasure
    request also takes its ids out of validation and test.

    Raises ValueError for unknown classes or ids, repeated ids, an empty request, one that covers
    all of the training set, and one that leaves a class without test samples.
    """
    train = sets["train"]
    if config.scenario == "class":
        chosen = train["label"].isin(_labels(config.by_class.classes, classes))
    elif config.scenario == "fraction":
        chosen = pd.Series(_drawn(train["label"].to_numpy(), config.by_fraction))
    else:
        assert requested is not None
        known = set(pd.concat(list(sets.values()))["id"])
        ids = _ids(requested, known, config.by_ids.file)
        chosen = train["id"].isin(ids)
        sets = {
            name: rows if name == "train" else rows[~rows["id"].isin(ids)].reset_index(drop=True)
            for name, rows in sets.items()
        }
    if not chosen.any():
        raise ValueError("the forget set is empty: none of the requested samples was trained on")
    if chosen.all():
        raise ValueError("the forget set is the whole training set: nothing would be retained")
    for label, name in enumerate(classes):
        if not (sets["test"]["label"] == label).any():
            raise ValueError(
                f"class {name!r} has no test sample left: forgetting it could not be judged; "
                "raise split.test or leave its test samples out of the request"
            )
    forget, retain = (train[mask].reset_index(drop=True) for mask in (chosen, ~chosen))
    gone = sorted(set(forget["label"]) - set(retain["label"]))
    whole = tuple(gone) if set(forget["label"]) == set(gone) else ()
    return {"train": train, "forget": forget, "retain": retain} | {
        name: sets[name] for name in ("validation", "test")
    }, whole


def _labels(names: tuple[str, ...], classes: tuple[str, ...]) -> tuple[int, ...]:
    if not names:
        raise ValueError("split.by_class.classes is empty: name at least one class")
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(
            f"split.by_class.classes: unknown class {unknown[0]!r}, choose from "
            f"{', '.join(classes)}"
        )
    return tuple(sorted({classes.index(name) for name in names}))


def _drawn(labels: np.ndarray, request: FractionRequest) -> np.ndarray:
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


def _ids(requested: pd.DataFrame, known: set[str], file: str) -> set[str]:
    if "id" not in requested.columns:
        raise ValueError(f"{file} has no column 'id', only {list(requested.columns)}")
    if requested["id"].isna().any():
        raise ValueError(f"{file} has a row without id")
    ids = requested["id"].astype(str)
    if ids.empty:
        raise ValueError(f"{file} names no id: the request is empty")
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise ValueError(f"{file} names {repeated.iloc[0]!r} more than once")
    unknown = sorted(set(ids) - known)
    if unknown:
        raise ValueError(
            f"{file}: {len(unknown)} of {len(ids)} ids are not in the data set, "
            f"the first is {unknown[0]!r}"
        )
    return set(ids)
