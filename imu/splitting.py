"""Train / validation / test split, and the ways to name what must be forgotten.

Validation is used for choosing, test for reporting only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from imu.datasets import alike

SHOWN = 30  # choices that an error lists


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
class GroupRequest:
    attribute: str = "superclass"  # what the data set knows of a sample besides its label
    values: tuple[str, ...] = ("flowers",)  # the groups to forget


@dataclass(frozen=True, kw_only=True)
class SubjectRequest:
    subjects: tuple[str, ...] = ("subject-1",)  # whose samples to forget, all of them


@dataclass(frozen=True, kw_only=True)
class Config:
    dataset: str = "digits"
    seed: int = 0
    used: float = 1.0  # share of every class that is used at all, in (0, 1]
    validation: float = 0.15  # share of the used samples, in (0, 1)
    # test: of the published test samples; published: those set apart for validation, all of them
    validation_from: Literal["train", "test", "published"] = "train"
    test: float | Literal["published"] = 0.25  # likewise; or those that its authors set apart
    scenario: Literal["class", "fraction", "ids", "group", "subject"] = "class"
    by_class: ClassRequest = ClassRequest()
    by_fraction: FractionRequest = FractionRequest()
    by_ids: IdsRequest = IdsRequest()
    by_group: GroupRequest = GroupRequest()
    by_subject: SubjectRequest = SubjectRequest()

    def __post_init__(self) -> None:
        if not 0 < self.used <= 1:
            raise ValueError(f"used must be in (0, 1], got {self.used}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must be in (0, 1), got {self.validation}")
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
    published_test: np.ndarray | None = None,
    published_validation: np.ndarray | None = None,
) -> dict[str, pd.DataFrame]:
    """Stratified train, validation and test sets of ``samples`` (columns id, index, label).

    published_test, published_validation: (n,) bool by row of ``samples``, which ``config.test`` and
    ``config.validation_from`` may ask for. Raises ValueError when there is none, when validation
    samples are published but not asked for, and when a class has too few samples.
    """
    from sklearn.model_selection import train_test_split

    def divided(rows: pd.DataFrame, share: float | int) -> tuple[pd.DataFrame, pd.DataFrame]:
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
    if config.used < 1:
        kept = _drawn(
            samples["label"].to_numpy() * 3 + published + 2 * held,
            FractionRequest(fraction=config.used, seed=config.seed),
        )
        samples, published, held = samples[kept], published[kept], held[kept]
    counts = samples["label"].value_counts()
    if counts.min() < 3:
        raise ValueError(
            f"class {counts.idxmin()} has {counts.min()} samples: a split into train, validation "
            "and test needs at least 3 of every class"
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
        rest, validation = divided(rest, share)
        if config.validation_from == "test":
            test = rest
        else:
            train = rest
    else:
        rest, test = divided(samples, config.test)
        train, validation = divided(rest, config.validation / (1 - config.test))
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


def select(
    sets: dict[str, pd.DataFrame],
    config: Config,
    classes: tuple[str, ...],
    requested: pd.DataFrame | None = None,
    attributes: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, pd.DataFrame], tuple[int, ...]]:
    """Divide the training set into forget and retain as the scenario says.

    sets: from ``split``. classes: names of the classes. requested: the table of the ids scenario.
    attributes: name -> str array by the column "index" of the sets, for groups and subjects.
    Returns train, forget, retain, validation and test, and the labels of the classes forgotten
    whole: those of the forget set, if none of them keeps a training sample, else none. What is
    erased (ids, subjects) is taken out of validation and test as well.

    Raises ValueError for unknown classes, ids, attributes, groups or subjects, repeated ids, an
    empty request, one that covers all of the training set, and one that leaves a class without
    test samples.
    """
    train = sets["train"]
    known = attributes or {}
    if config.scenario == "class":
        chosen = train["label"].isin(_labels(config.by_class.classes, classes))
    elif config.scenario == "fraction":
        chosen = pd.Series(_drawn(train["label"].to_numpy(), config.by_fraction))
    elif config.scenario == "group":
        request = config.by_group
        of_groups = _belonging(sets, known, request.attribute, request.values, "by_group.values")
        chosen = of_groups["train"]
    else:
        if config.scenario == "subject":
            subjects = config.by_subject.subjects
            erased = _belonging(sets, known, "subject", subjects, "by_subject.subjects")
        else:
            assert requested is not None
            ids = _ids(requested, set(pd.concat(list(sets.values()))["id"]), config.by_ids.file)
            erased = {name: rows["id"].isin(ids) for name, rows in sets.items()}
        chosen = erased["train"]
        sets = {
            name: rows if name == "train" else rows[~erased[name]].reset_index(drop=True)
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
    meant = alike(names, classes)
    unknown = [name for name in names if not meant[name]]
    if unknown:
        raise ValueError(
            f"split.by_class.classes: unknown class {unknown[0]!r}, choose from "
            f"{', '.join(classes)}"
        )
    return tuple(sorted({classes.index(name) for found in meant.values() for name in found}))


def _belonging(
    sets: dict[str, pd.DataFrame],
    attributes: Mapping[str, np.ndarray],
    attribute: str,
    values: tuple[str, ...],
    field: str,
) -> dict[str, pd.Series]:
    """Set name -> which of its samples have one of ``values`` as their ``attribute``."""
    if attribute not in attributes:
        raise ValueError(
            f"split: the data set has no attribute {attribute!r}; it has: "
            f"{', '.join(sorted(attributes)) or 'none'}"
        )
    if not values:
        raise ValueError(f"split.{field} is empty: name at least one")
    of_sets = {name: attributes[attribute][rows["index"]] for name, rows in sets.items()}
    known = sorted({str(value) for found in of_sets.values() for value in found})
    meant = alike(values, known)
    if unknown := [value for value in values if not meant[value]]:
        shown = ", ".join(known[:SHOWN]) + (", …" if len(known) > SHOWN else "")
        raise ValueError(f"split.{field}: unknown {attribute} {unknown[0]!r}, choose from {shown}")
    chosen = [name for names in meant.values() for name in names]
    return {name: pd.Series(np.isin(found, chosen)) for name, found in of_sets.items()}


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
    ids = requested["id"].astype(str)
    if requested["id"].isna().any() or (ids == "").any():
        raise ValueError(f"{file} has a row without id")
    if ids.empty:
        raise ValueError(f"{file} names no id: the request is empty")
    meant = alike(set(ids) - known, known)  # what is there as it stands, is meant
    ids = ids.map(lambda asked: next(iter(meant.get(asked, [])), asked))
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
