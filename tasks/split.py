"""Divide the data set, and the training set into what is forgotten and what is retained."""

from collections.abc import Mapping

import pandas as pd

from imu import selecting, splitting
from imu.datasets import Dataset, Source
from tasks.data import forgotten_before, listed, require_source, samples_of
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace

FEW = 5  # validation samples of a class: the probe of few learns from as many
SHOWN = 10  # copies that a note names; all of them stand in request.json


def run(workspace: Workspace, item: None) -> None:
    config = params.load(workspace.root, "split", splitting.Config)
    source = params.load(workspace.root, "data", Source)
    require_source(workspace.root / "data" / config.dataset, source)
    data = workspace.dataset()
    samples = samples_of(data)
    found = selecting.select(
        samples,
        sets_of(samples, config, data),
        config,
        data.classes,
        listed(workspace, "by_ids.file", config.by_ids.file) if config.scenario == "ids" else None,
        data.attributes,
        forgotten_before(workspace, samples, config.forgotten_before),
        together=data.together,
    )
    for name, rows in found.sets.items():
        artifacts.write_table(workspace.manifest(name), rows)
    print("samples:", ", ".join(f"{name} {len(rows)}" for name, rows in found.sets.items()))
    notes = _notes(found, config, data.classes)
    for note in notes:
        print(note)
    artifacts.write_json(
        workspace.request,
        {
            "dataset": config.dataset,
            "objective": data.objective,
            "scenario": config.scenario,
            "forget": _described(config),
            "forget_classes": found.forget_classes,
            "classes": data.classes,
            "requested": found.requested,
            "left_out": found.left_out,
            "twins": found.twins.to_dict("records"),
            "notes": notes,
        },
    )


def sets_of(
    samples: pd.DataFrame, config: splitting.Config, data: Dataset
) -> dict[str, pd.DataFrame]:
    """Train, validation and test, before anything is forgotten."""
    return splitting.split(
        samples,
        config,
        data.classes,
        data.published_test,
        data.published_validation,
        together=data.together,
    )


def _notes(
    found: selecting.Selection, config: splitting.Config, classes: tuple[str, ...]
) -> list[str]:
    """What the request reached besides the training set, in sentences."""
    notes = []
    if found.requested:
        lay = found.requested
        unused = f" (split.used is {config.used})" if config.used < 1 else ""
        notes.append(
            f"Samples requested: {sum(lay.values())}. Trained on: {lay['train']}; taken out of "
            f"validation: {lay['validation']}; taken out of test: {lay['test']}; not used: "
            f"{lay['not used']}{unused}."
        )
    if any(found.left_out.values()):
        notes.append(
            f"Left out because of what {config.forgotten_before} lists as forgotten before: "
            f"{_counted(found.left_out)}."
        )
    now, before = (found.twins[found.twins["before"] == b] for b in (False, True))
    for twins, of, done in (
        (now, "a forgotten one", "forgotten and taken out too"),
        (before, "one forgotten before", "left out too"),
    ):
        if len(twins):
            what = done if config.forget_twins else "kept (split.forget_twins is false)"
            pairs = [
                f"{i} ({s}) is a copy of {o}"
                for i, s, o in twins[["id", "set", "of"]].values[:SHOWN]
            ]
            more = f", and {len(twins) - SHOWN} more" if len(twins) > SHOWN else ""
            notes.append(
                f"Samples with the very content of {of}, {what}: "
                f"{_counted(twins['set'].value_counts().to_dict())}. {', '.join(pairs)}{more}."
            )
    if config.scenario == "fraction" and config.by_fraction.stratified:
        of_classes = found.sets["train"]["label"].unique()
        missed = len(of_classes) - found.sets["forget"]["label"].nunique()
        if missed:
            notes.append(
                f"Of {missed} of {len(of_classes)} classes nothing is forgotten: they are so small "
                f"that split.by_fraction.fraction {config.by_fraction.fraction} comes to no sample."
            )
    counts = found.sets["validation"]["label"].value_counts()
    counts = counts.reindex(found.sets["train"]["label"].unique(), fill_value=0)
    if few := int((counts < FEW).sum()):
        smallest = classes[counts.idxmin()]
        notes.append(
            f"Of {few} of {len(counts)} classes there are fewer than {FEW} validation samples "
            f"({counts.min()} of {smallest!r}): attacks on features, which learn from them, say "
            "little there."
        )
    return notes


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} of {name}" for name, n in counts.items() if n)


def _described(config: splitting.Config) -> str:
    if config.scenario == "class":
        return "class " + ", ".join(config.by_class.classes)
    if config.scenario == "fraction":
        kind = "stratified" if config.by_fraction.stratified else "random"
        return f"{kind} {100 * config.by_fraction.fraction:g} %"
    if config.scenario == "group":
        return f"{config.by_group.attribute} {', '.join(config.by_group.values)}"
    if config.scenario == "subject":
        return f"subject {', '.join(config.by_subject.subjects)}"
    return f"ids in {config.by_ids.file}"
