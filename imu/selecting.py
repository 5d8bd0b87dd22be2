"""What a request reaches: the forget and the retain set, and what is left out of all sets."""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

import numpy as np
import pandas as pd

from imu.datasets import alike
from imu.splitting import Config, FractionRequest, drawn

SHOWN = 30  # choices that an error lists
ERASED = ("ids", "subject")  # scenarios that take their samples out of validation and test too


class Selection(NamedTuple):
    """Who is forgotten and who stays, and an account of what the request reached.

    sets: train, forget, retain, validation and test. forget_classes: labels of the classes
    forgotten whole: those of the forget set, if none of them keeps a training sample, else none.
    requested: how many samples of an erasure request lay in train, validation and test, and how
    many are not used; {} where nothing is erased. left_out: how many samples of each set are left
    out because of what was forgotten before. twins: samples with the same pixels as one that is
    forgotten, but another id: columns id, set (where it lay), of (the id of the forgotten one)
    and before (whether that one was forgotten before).
    """

    sets: dict[str, pd.DataFrame]
    forget_classes: tuple[int, ...]
    requested: dict[str, int]
    left_out: dict[str, int]
    twins: pd.DataFrame


def select(
    samples: pd.DataFrame,
    sets: dict[str, pd.DataFrame],
    config: Config,
    classes: tuple[str, ...],
    requested: pd.DataFrame | None = None,
    attributes: Mapping[str, np.ndarray] | None = None,
    before: pd.DataFrame | None = None,
    *,
    together: str = "",
) -> Selection:
    """Divide the training set into forget and retain as the scenario says.

    samples: all there are, with columns id, index, label and sha256, of the pixels. sets: what
    ``split`` made of them. classes: names of the classes. requested: the table of the ids
    scenario. attributes: name -> str array by the column "index", for groups and subjects.
    together: as in ``split``: a fraction is drawn of what stays together.
    before: the table of what was forgotten before. It is left out of every set, and so is what
    remains of a class that keeps no training sample; all others stay in the set where they were,
    so that no model comes to be judged on what it was trained on.

    What is erased (ids, subjects) is taken out of validation and test as well; but a subject that
    is a whole class, as a person to be recognised is, is judged by its samples there: they stay, as
    those of a class do, and count as not requested. With
    ``config.forget_twins`` a sample with the same pixels as one that is forgotten, now or before,
    is treated as that one is.

    Raises ValueError for unknown classes, ids, attributes, groups or subjects, repeated ids, ids
    that were forgotten before, an empty request, one that covers all of the training set, and one
    that leaves no sample to judge it on.
    """
    everything = set(samples["id"])
    former = set() if before is None else set(_ids(before, everything, config.forgotten_before))
    old = samples[samples["id"].isin(former)]
    old_twins = _twins(sets, old)
    whole = sets
    sets = _rid(sets, former | (set(old_twins["id"]) if config.forget_twins else set()))
    left_out = {name: len(whole[name]) - len(rows) for name, rows in sets.items()}
    train = sets["train"]
    if config.scenario == "class":
        asked = train[train["label"].isin(_labels(config.by_class.classes, classes))]
    elif config.scenario == "fraction":
        asked = _drawn(train, config.by_fraction, together)
    else:
        ids = named(samples, config, requested, attributes or {})
        if config.scenario == "ids" and (again := sorted(ids & former)):
            raise ValueError(
                f"{config.by_ids.file}: {len(again)} of {len(ids)} ids were forgotten before, as "
                f"{config.forgotten_before} says, the first is {again[0]!r}: leave them out of "
                "the request"
            )
        known = samples if config.scenario in ERASED else train
        asked = known[known["id"].isin(ids - former)]
    if config.scenario == "subject":
        asked = asked[~_judged_by(asked, samples, train)]
    lay = {name: int(rows["id"].isin(asked["id"]).sum()) for name, rows in sets.items()}
    lay["not used"] = len(asked) - sum(lay.values())
    twins = _twins(sets, asked)
    gone = set(asked["id"]) | (set(twins["id"]) if config.forget_twins else set())
    chosen = train["id"].isin(gone)
    if not chosen.any():
        where = ", ".join(f"{n} {name}" for name, n in lay.items() if n)
        raise ValueError(
            "the forget set is empty: none of the requested samples was trained on"
            + (f"; they lie elsewhere: {where}" if where else "")
        )
    if chosen.all():
        raise ValueError("the forget set is the whole training set: nothing would be retained")
    forget, retain = (train[mask].reset_index(drop=True) for mask in (chosen, ~chosen))
    kept = {name: _without(sets[name], gone) for name in ("validation", "test")}
    found = sorted(set(forget["label"]) - set(retain["label"]))
    forget_classes = tuple(found) if set(forget["label"]) == set(found) else ()
    _require_samples_to_judge(train, kept, classes, forget_classes)
    old_twins = old_twins[~old_twins["id"].isin(gone)]
    return Selection(
        {"train": train, "forget": forget, "retain": retain, **kept},
        forget_classes,
        lay if config.scenario in ERASED else {},
        left_out,
        pd.concat([twins.assign(before=False), old_twins.assign(before=True)], ignore_index=True),
    )


def named(
    samples: pd.DataFrame,
    config: Config,
    requested: pd.DataFrame | None,
    attributes: Mapping[str, np.ndarray],
) -> set[str]:
    """Ids of the samples that the scenarios ids, group and subject ask for."""
    if config.scenario == "group":
        group = config.by_group
        return _belonging(samples, attributes, group.attribute, group.values, "by_group.values")
    if config.scenario == "subject":
        subjects = config.by_subject.subjects
        return _belonging(samples, attributes, "subject", subjects, "by_subject.subjects")
    assert requested is not None
    file = config.by_ids.file
    ids = _ids(requested, set(samples["id"]), file)
    if ids.empty:
        raise ValueError(f"{file} names no id: the request is empty")
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise ValueError(f"{file} names {repeated.iloc[0]!r} more than once")
    return set(ids)


def _require_samples_to_judge(
    train: pd.DataFrame,
    kept: dict[str, pd.DataFrame],
    classes: tuple[str, ...],
    forget_classes: tuple[int, ...],
) -> None:
    if lacking := sorted(set(train["label"]) - set(kept["test"]["label"])):
        raise ValueError(
            f"class {classes[lacking[0]]!r} has no test sample left: forgetting it could not be "
            "judged; raise split.test or leave its test samples out of the request"
        )
    if kept["validation"]["label"].isin(forget_classes).all():
        raise ValueError(
            "there is no validation sample left of a class that stays: forgetting could not be "
            "judged; raise split.validation or leave validation samples out of the request"
        )


def _judged_by(
    asked: pd.DataFrame, samples: pd.DataFrame, train: pd.DataFrame
) -> "pd.Series[bool]":
    """Which of ``asked`` no model is trained on, though the whole of its class is asked for."""
    others = samples["label"][~samples["id"].isin(asked["id"])]
    trained = asked["id"].isin(train["id"])
    return ~trained & asked["label"].isin(train["label"]) & ~asked["label"].isin(others)


def _rid(sets: dict[str, pd.DataFrame], ids: set[str]) -> dict[str, pd.DataFrame]:
    """``sets`` without ``ids``, and without the classes that keep no training sample then."""
    train = _without(sets["train"], ids)
    lost = set(sets["train"]["label"]) - set(train["label"])
    gone = {name: rows["id"].isin(ids) | rows["label"].isin(lost) for name, rows in sets.items()}
    return {name: rows[~gone[name]].reset_index(drop=True) for name, rows in sets.items()}


def _without(rows: pd.DataFrame, ids: set[str]) -> pd.DataFrame:
    return rows[~rows["id"].isin(ids)].reset_index(drop=True)


def _twins(sets: dict[str, pd.DataFrame], of: pd.DataFrame) -> pd.DataFrame:
    """Samples in ``sets`` with the pixels of one in ``of``, but another id: id, set, of."""
    first = of.drop_duplicates("sha256").set_index("sha256")["id"]
    found = []
    for name, rows in sets.items():
        same = rows[rows["sha256"].isin(first.index) & ~rows["id"].isin(of["id"])]
        twins = {"id": same["id"], "set": name, "of": first.reindex(same["sha256"]).to_numpy()}
        found.append(pd.DataFrame(twins))
    return pd.concat(found, ignore_index=True)


def _labels(names: tuple[str, ...], classes: tuple[str, ...]) -> tuple[int, ...]:
    if len(classes) < 2:
        raise ValueError(
            "split.scenario must be fraction, ids, group or subject where the data have no "
            "classes, as texts have none; got 'class'"
        )
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
    samples: pd.DataFrame,
    attributes: Mapping[str, np.ndarray],
    attribute: str,
    values: tuple[str, ...],
    field: str,
) -> set[str]:
    """Ids of the samples that have one of ``values`` as their ``attribute``."""
    if attribute not in attributes:
        raise ValueError(
            f"split: the data set has no attribute {attribute!r}; it has: "
            f"{', '.join(sorted(attributes)) or 'none'}"
        )
    if not values:
        raise ValueError(f"split.{field} is empty: name at least one")
    of_samples = attributes[attribute][samples["index"]]
    known = sorted({str(value) for value in of_samples})
    meant = alike(values, known)
    if unknown := [value for value in values if not meant[value]]:
        shown = ", ".join(known[:SHOWN]) + (", …" if len(known) > SHOWN else "")
        raise ValueError(
            f"split.{field}: unknown {attribute} {unknown[0]!r:.200}, choose from {shown}"
        )
    chosen = [name for names in meant.values() for name in names]
    return set(samples["id"][np.isin(of_samples, chosen)])


def _drawn(train: pd.DataFrame, request: FractionRequest, together: str) -> pd.DataFrame:
    if not together:
        return train[_fraction(train["label"].to_numpy(), request)]
    units = train.drop_duplicates(together)
    chosen = units[together][_fraction(units["label"].to_numpy(), request)]
    return train[train[together].isin(chosen)]


def _fraction(labels: np.ndarray, request: FractionRequest) -> np.ndarray:
    """Which samples are drawn, (n,) bool. Raises ValueError when the fraction comes to none."""
    chosen = drawn(labels, request)
    if not chosen.any():
        n = int(np.bincount(labels).max()) if request.stratified else len(labels)
        of = "the largest class" if request.stratified else "the training set"
        raise ValueError(
            f"split.by_fraction.fraction is {request.fraction}: the forget set is empty, for of "
            f"the {n} samples of {of} it comes to none; it must be above {ceil(5e3 / n) / 1e4}"
            + (", or split.by_fraction.stratified false" if request.stratified else "")
        )
    return chosen


def _ids(table: pd.DataFrame, known: set[str], file: str) -> "pd.Series[str]":
    if "id" not in table.columns:
        raise ValueError(f"{file} has no column 'id', only {list(table.columns)!s:.200}")
    ids = table["id"].astype(str)
    if table["id"].isna().any() or (ids == "").any():
        raise ValueError(f"{file} has a row without id")
    meant = alike(set(ids) - known, known)  # what is there as it stands, is meant
    ids = ids.map(lambda asked: next(iter(meant.get(asked, [])), asked))
    if unknown := sorted(set(ids) - known):
        raise ValueError(
            f"{file}: {len(unknown)} of {len(ids)} ids are not in the data set, "
            f"the first is {unknown[0]!r:.200}"
        )
    return ids
