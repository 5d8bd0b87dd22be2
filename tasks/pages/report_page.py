"""The report as one HTML page that needs no network: answers first, and all details folded."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from imu import discovery, verdicts
from imu.datasets import Dataset
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace
from tasks.pages import charts, findings, lineup, plotted, scatter, slices, summary
from tasks.pages.kinds import Part
from tasks.pages.templates import environment

SHOWN = 6  # samples in a row
CLASSES = 20  # that a table has at most
DIGITS = 3  # that samples are shown with: where all are 0 they show nothing


def page(
    workspace: Workspace,
    compared: findings.Compared,
    found: list[findings.Finding],
    absent: list[str],
) -> str:
    """HTML. absent: what was not measured, and why. Raises ArtifactError for a missing input."""
    results = compared.table.dropna(axis="columns", how="all")
    data = _dataset(workspace)
    kind = _kind(data)
    default = _default(workspace, kind)
    heroes = summary.heroes(compared, found, default)
    looks = _looks(compared, heroes)
    rows = summary.rows(compared, found)
    order = [row.model for row in rows]
    aims, of_models = _aims(workspace), plotted.courses(workspace)
    template = environment(Path(__file__).parent).get_template("report.html.j2")
    return template.render(
        request=workspace.read_request(),
        seed=workspace.seed,
        tested=kind.TESTED,
        trained=artifacts.read_json(workspace.runs / "train" / "metrics.json"),
        sizes={
            name: len(workspace.read_manifest(name))
            for name in ("train", "forget", "retain", "validation", "test")
        },
        retrained=compared.retrained,
        others=compared.of_kind("retrained"),
        warnings=findings.warnings(compared) if compared.retrained else [],
        headlines=findings.headlines(compared, found),
        heroes=heroes,
        unaccepted=summary.unaccepted,
        questions=list(findings.QUESTIONS),
        tests={q: charts.tests(found, q, looks) for q in findings.QUESTIONS},
        columns=summary.columns(compared),
        rows=rows,
        values=_values(compared, order, looks),
        groups=_groups(results.loc[order], compared.class_wise),
        scatter=scatter.scatter(compared, looks),
        absent=absent,
        classes=_by_class(workspace, order),
        courses=[
            charts.course(model, of_models[model], aims)
            for model in [f.model for f in found]
            if model in of_models
        ],
        influence=charts.influences(workspace.read_influence()),
        influential=_influential(workspace, data),
        slices=_slices(workspace, data, [f.model for f in found]),
        confidence=_kind(data).CONFIDENCE,
        told=_kind(data).TOLD,
        first={hero.finding.model for hero in heroes},
        parameters=(workspace.root / params.FILE).read_text(encoding="utf-8"),
    )


def _looks(compared: findings.Compared, heroes: list[summary.Hero]) -> dict[str, str]:
    """Model -> classes of its dots."""
    looks = dict.fromkeys(compared.table.index, "other")
    looks |= dict.fromkeys(compared.of_kind("baseline"), "baseline")
    looks |= dict.fromkeys(
        [*compared.of_kind("retrained"), *compared.of_kind("reference")], "again"
    )
    chosen = dict(zip([hero.finding.model for hero in heroes], ("best", "default"), strict=False))
    return looks | chosen


def _default(workspace: Workspace, kind: ModuleType) -> str | None:
    """The entry of the kind's own method: the one that bears its name, else its first one."""
    made = [row for row in lineup.rows(workspace) if row.method == kind.DEFAULT]
    named = [row.model for row in made if row.model == kind.DEFAULT]
    return next(iter([*named, *(row.model for row in made)]), None)


def _values(
    compared: findings.Compared, order: list[str], looks: Mapping[str, str]
) -> dict[str, list[charts.Panel]]:
    """Question -> a panel per metric that tells of it."""
    columns = summary.columns(compared)
    return {
        question: [
            charts.values(compared, column, order, looks)
            for column in columns
            if column.question == question
        ]
        for question in findings.QUESTIONS
    }


def _influential(workspace: Workspace, data: Dataset) -> list[Part]:
    found = workspace.read_influence()
    found["row"] = workspace.rows("forget", data)
    ordered = found.sort_values("influence", kind="stable")
    each = min(SHOWN, -(-len(ordered) // 2))
    ends = {
        "Most influential: lowest score": ordered.head(each),
        "Least influential: highest score": ordered[each:].tail(each),
    }
    shown: list[Part] = _kind(data).influential(data, {t: p for t, p in ends.items() if len(p)})
    return shown


def _kind(data: Dataset) -> ModuleType:
    """How samples of this kind are shown to people."""
    return discovery.load("tasks.pages.kinds", data.objective)


def _dataset(workspace: Workspace) -> Dataset:
    try:
        return workspace.dataset()
    except FileNotFoundError as error:
        raise artifacts.ArtifactError(str(error)) from error


def _aims(workspace: Workspace) -> dict[str, list[float]]:
    """Accuracy in % per set: of the reference, and of every model retrained with another seed."""
    found = {}
    for row in lineup.rows(workspace):
        if row.kind in ("reference", "retrained"):
            predicted = _predictions(workspace, row)
            found[row.model] = 100 * predicted.groupby("set")["right"].mean()
    return {str(name): values.tolist() for name, values in pd.DataFrame(found).iterrows()}


def _predictions(workspace: Workspace, row: lineup.Row) -> pd.DataFrame:
    return artifacts.read_table(
        workspace.evaluation(row.producer) / "predictions.parquet", id="str"
    )


def _slices(workspace: Workspace, data: Dataset, order: list[str]) -> dict[str, list[Part]]:
    """Method -> what it remembers and forgot of the forget set, and lost of the retain set."""
    found = workspace.read_influence()
    rows = {
        name: dict(
            zip(workspace.read_manifest(name)["id"], workspace.rows(name, data), strict=True)
        )
        for name in ("forget", "retain")
    }
    shown = {}
    for row in lineup.rows(workspace):
        if row.kind in findings.METHODS and not lineup.failure(workspace, row):
            table = _predictions(workspace, row)
            least, worse = slices.least_forgotten(table, found), slices.got_worse(table)
            for name, part in (("forget", least), ("retain", worse)):
                part["row"] = part["id"].map(rows[name])
            each = min(SHOWN, -(-len(least) // 2))
            parts = {
                "Forget samples remembered most": (least.head(each), "remembered"),
                "Forget samples forgotten most": (least[each:].tail(each)[::-1], "remembered"),
                "Retain samples that lost most": (worse.head(SHOWN), "lost"),
            }
            kept = {title: of for title, of in parts.items() if of[0][of[1]].round(DIGITS).any()}
            kind = _kind(data)
            whole = kind.whole(data, table) if hasattr(kind, "whole") else []
            shown[row.model] = [*whole, *kind.slices(data, kept)]
    return {model: shown[model] for model in order if model in shown}


def _by_class(workspace: Workspace, order: list[str]) -> dict[str, Any]:
    """Test accuracy per class in %: of the reference, and of each model minus that, in points.

    Where nothing was retrained the original stands in the reference's place.
    """
    columns: dict[str, list[float]] = {}
    for row in lineup.rows(workspace):
        if lineup.failure(workspace, row):
            continue
        table = slices.by_class(_predictions(workspace, row))
        table = table[table["set"] == "test"]
        if row.kind != "reference":
            columns[row.model] = table["changed"].tolist()
    against = slices.yardstick(table)
    classes = workspace.read_request()["classes"]
    if len(classes) < 2:
        return {}
    accuracies = table.set_index("class")[against]
    changed = pd.DataFrame(columns, index=accuracies.index)
    chosen = slices.most_changed(changed, CLASSES)
    return {
        "classes": [classes[label] for label in chosen.index],
        "rest": len(changed) - len(chosen),
        "against": against,
        "accuracies": accuracies[chosen.index].tolist(),
        "models": {model: chosen[model].tolist() for model in order if model in columns},
    }


def _groups(results: pd.DataFrame, class_wise: bool) -> list[dict[str, Any]]:
    """A table per group of metrics: title, columns, and a row per model.

    counted: whether a test of the verdict asks for any of them.
    """
    asked = {t.metric for t in verdicts.CRITERIA if t.class_wise in (None, class_wise)}
    columns = findings.explained(list(results.columns[1:]))
    tables = []
    for group, title in findings.GROUPS.items():
        chosen = [column for column in columns if column.group == group]
        rows = [
            {
                "model": model,
                "kind": row["kind"],
                "cells": [findings.shown(c.name, row[c.name]) for c in chosen],
            }
            for model, row in results.iterrows()
        ]
        if chosen:
            counted = any(column.name in asked for column in chosen) or group == "cost"
            tables.append({"title": title, "columns": chosen, "rows": rows, "counted": counted})
    return tables
