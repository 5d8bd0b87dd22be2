"""The report as one HTML page that needs no network, and the figures in it."""

import base64
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from imu import discovery, metrics
from imu.datasets import Dataset
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace
from tasks.pages import figures, findings, lineup, slices

SHOWN = 8  # samples in a row
FIGURES = {
    "distance": "Distance to the reference: |model − reference|; a metric that aims at 0 is one. "
    "Shaded: no farther than retraining with other seeds. Axes in points are linear to 0.1, then "
    "logarithmic.",
    "influence": "Influence of the forget samples. IMU ascends on the selected ones.",
    "samples": "Forget samples with influence and loss of the original model.",
    "course": "Accuracy while unlearning. Triangle: the reference. Band: to retraining with other "
    "seeds. The test samples here include those of forgotten classes.",
}


def drawn(workspace: Workspace, compared: findings.Compared) -> dict[str, bytes]:
    """Every one of ``FIGURES``, as PNG."""
    return {
        "distance": figures.distances(_distances(compared), compared.of_kind("baseline"))
        if compared.retrained
        else figures.words("Nothing was retrained: there is no distance to draw."),
        **_influence(workspace),
        "course": figures.courses(_courses(workspace), _aims(workspace)),
    }


def page(
    workspace: Workspace,
    compared: findings.Compared,
    found: list[findings.Finding],
    drawn: dict[str, bytes],
    absent: list[str],
) -> str:
    """HTML. drawn: from the function of that name. absent: what was not measured, and why.

    Raises ArtifactError for a missing input.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    results = compared.table.dropna(axis="columns", how="all")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        request=workspace.read_request(),
        seed=workspace.seed,
        trained=artifacts.read_json(workspace.runs / "train" / "metrics.json"),
        sizes={
            name: len(workspace.read_manifest(name))
            for name in ("train", "forget", "retain", "validation", "test")
        },
        retrained=compared.retrained,
        others=compared.of_kind("retrained"),
        limits=compared.limits,
        headlines=findings.headlines(compared, found),
        questions=list(findings.QUESTIONS),
        findings=found,
        example=next((lines[0] for of in found for lines in of.answers if lines), ""),
        asked=findings.explained(
            [name for names in findings.QUESTIONS.values() for name in names if name in results]
        ),
        groups=_groups(results),
        absent=absent,
        classes=_by_class(workspace),
        figures={
            name: {"caption": caption, "png": base64.b64encode(drawn[name]).decode()}
            for name, caption in FIGURES.items()
        },
        slices=_slices(workspace),
        parameters=(workspace.root / params.FILE).read_text(encoding="utf-8"),
    )


def _distances(compared: findings.Compared) -> list[figures.Distance]:
    models = compared.of_kind("baseline") + compared.methods
    known = compared.table.drop(index=list(compared.failures)).notna().all()
    names = [name for name in findings.HEADLINE if name in metrics.about() and known.get(name)]
    return [
        figures.Distance(
            metric=column.name,
            unit=column.apart,
            of_models={model: compared.distance(model, column.name) for model in models},
            of_variability=compared.variability(column.name),
        )
        for column in findings.explained(names)
    ]


def _influence(workspace: Workspace) -> dict[str, bytes]:
    found = workspace.read_influence()
    data = _dataset(workspace)
    found["row"] = workspace.rows("forget", data)
    ordered = found.sort_values("influence", kind="stable")
    each = min(SHOWN, -(-len(ordered) // 2))
    ends = {
        "Most influential: lowest score": ordered.head(each),
        "Least influential: highest score": ordered[each:].tail(each),
    }
    shown = {title: part for title, part in ends.items() if len(part)}
    return {
        "influence": figures.influences(found),
        "samples": _kind(data).influential(data, shown),
    }


def _kind(data: Dataset) -> ModuleType:
    """How samples of this kind are shown to people."""
    return discovery.load("tasks.pages.kinds", data.objective)


def _dataset(workspace: Workspace) -> Dataset:
    try:
        return workspace.dataset()
    except FileNotFoundError as error:
        raise artifacts.ArtifactError(str(error)) from error


def _courses(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """Trajectories of the methods; of the baselines when there is no method."""
    rows = lineup.rows(workspace)
    drawn = [row for row in rows if row.kind in findings.METHODS]
    drawn = drawn or [row for row in rows if row.kind == "baseline"]
    return {
        row.model: artifacts.read_table(workspace.evaluation(row.producer) / "trajectory.csv")
        for row in drawn
    }


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


def _slices(workspace: Workspace) -> dict[str, Any]:
    """Method -> the forget samples that it remembers and the retain samples that it lost."""
    data, found = _dataset(workspace), workspace.read_influence()
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
            shown[row.model] = _kind(data).slices(data, least.head(SHOWN), worse.head(SHOWN))
    return shown


def _by_class(workspace: Workspace) -> dict[str, Any]:
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
    return {
        "classes": [classes[label] for label in table["class"]],
        "against": against,
        "accuracies": table[against].tolist(),
        "models": columns,
    }


def _groups(results: pd.DataFrame) -> list[dict[str, Any]]:
    """A table per group of metrics: title, columns, and a row per model."""
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
            tables.append({"title": title, "columns": chosen, "rows": rows})
    return tables
