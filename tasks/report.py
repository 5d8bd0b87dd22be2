"""The comparison of all models: a table, figures, and one HTML page that needs no network."""

import base64
import shutil
from pathlib import Path

import pandas as pd

from imu import metrics
from imu.datasets import LabelledImages
from tasks import artifacts, figures, findings, params
from tasks.record import Record
from tasks.workspace import Workspace

REFERENCE = "reference"  # the item of `retrain` that every model is compared with
BASELINES = ("nothing", "logit_mask")  # methods that do not unlearn
SHOWN = 8  # images of either end of the influence
FIGURES = {
    "distance": "Distance to the reference: |model − reference|; a metric that aims at 0 is one. "
    "Shaded: no farther than the noise floor. Axes in points are linear to 0.1, then logarithmic.",
    "influence": "Influence of the forget images. IMU ascends on the selected ones.",
    "images": "Forget images with class, influence and cross-entropy of the original model.",
    "course": "Accuracy while unlearning. Triangle: the reference. Band: from reference to floor. "
    "The test images here include those of forgotten classes.",
}


def run(workspace: Workspace, item: None) -> float | None:
    prune(workspace)
    results = table(workspace)
    compared = _compared(workspace, results)
    drawn = {
        "distance": figures.distances(_distances(compared), compared.of_kind("baseline")),
        **_influence(workspace),
        "course": figures.courses(_courses(workspace), _aims(workspace, compared)),
    }
    page = _page(workspace, compared, drawn)
    artifacts.write_table(_out(workspace) / "table.csv", results)
    for name in FIGURES:
        artifacts.write_bytes(_picture(workspace, name), drawn[name])
    artifacts.write_text(_out(workspace) / "report.html", page)
    print(text(results))
    return None


def record(workspace: Workspace, item: None) -> Record:
    return Record(
        files={
            "report": [_out(workspace) / "report.html", _out(workspace) / "table.csv"],
            "figures": [_picture(workspace, name) for name in FIGURES],
        },
        manifests={"forget": workspace.manifest("forget")},
    )


def prune(workspace: Workspace) -> None:
    """Remove evaluations of entries that ``params.yaml`` no longer has."""
    known = {item for item, _, _ in _models(workspace)}
    for folder in sorted(workspace.evaluation("").glob("*/")):
        if folder.name not in known:
            shutil.rmtree(folder)
            print(
                f"removed runs/evaluate/{folder.name}: not in params.yaml; DVC's cache still has it"
            )


def table(workspace: Workspace) -> pd.DataFrame:
    """One row per model: model, kind, every metric, work; NaN where a value does not exist.

    Raises ArtifactError when an evaluation is missing or was made with other metrics.
    """
    columns = [*metrics.about(), findings.WORK]
    rows, expected = [], None
    for item, kind, _ in _models(workspace):
        path = workspace.evaluation(item) / "metrics.json"
        values = artifacts.read_json(path)
        names = values.keys() - {findings.WORK}
        expected = names if expected is None else expected
        if names != expected or not names <= set(columns):
            raise artifacts.ArtifactError(
                f"{path} has the metrics {sorted(names)}, must have {sorted(expected)}: "
                "evaluate again with `dvc repro`"
            )
        rows.append({"model": item, "kind": kind} | values)
    return pd.DataFrame(rows, columns=["model", "kind", *columns])


def text(table: pd.DataFrame) -> str:
    """The table for a terminal; a rule parts the kinds."""
    columns = findings.explained([n for n in table.columns[2:] if table[n].notna().any()])
    header = ["model", "kind", *(column.name for column in columns)]
    units = ["", "", *(column.unit for column in columns)]
    rows = [
        [row["model"], row["kind"], *(findings.shown(c.name, row[c.name]) for c in columns)]
        for _, row in table.iterrows()
    ]
    widths = [max(map(len, column)) for column in zip(header, units, *rows, strict=True)]

    def line(row: list[str]) -> str:
        left, right = row[:2], row[2:]
        cells = [cell.ljust(width) for cell, width in zip(left, widths[:2], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(right, widths[2:], strict=True)]
        return "  ".join(cells).rstrip()

    lines, kind = [line(header), line(units)], None
    for row in rows:
        if row[1] != kind:
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        kind = row[1]
        lines.append(line(row))
    return "\n".join(lines)


def _models(workspace: Workspace) -> list[tuple[str, str, str]]:
    """Item, kind and method of every row: reference, floor, baselines, methods.

    The kind of a method is "method", or "with_retain" where it is given the retain set.
    """
    params.section(workspace.root, f"retrain.{REFERENCE}")
    retrained = [name for name in params.section(workspace.root, "retrain") if name != REFERENCE]
    entries = params.section(workspace.root, "unlearn") or {}
    made = [(str(name), str(entry["method"])) for name, entry in entries.items()]
    if not made:
        raise params.ParameterError(f"{params.FILE}: unlearn has no entry to report on")
    if both := sorted({name for name, _ in made} & {REFERENCE, *retrained}):
        raise params.ParameterError(f"{params.FILE}: {both} stand both in retrain and unlearn")
    kinds = {
        name: "with_retain" if entry.get("sees") == "retain" else "method"
        for name, entry in entries.items()
    }
    baselines = [(n, m) for baseline in BASELINES for n, m in made if m == baseline]
    return [
        (REFERENCE, "reference", "retrain"),
        *((str(name), "floor", "retrain") for name in retrained),
        *((name, "baseline", method) for name, method in baselines),
        *(
            (name, kind, method)
            for kind in findings.METHODS
            for name, method in made
            if method not in BASELINES and kinds[name] == kind
        ),
    ]


def _compared(workspace: Workspace, results: pd.DataFrame) -> findings.Compared:
    by_method = {method: item for item, _, method in reversed(_models(workspace))}
    return findings.Compared(
        table=results.set_index("model"),
        nothing=by_method.get("nothing"),
        mask=by_method.get("logit_mask"),
        class_wise=bool(workspace.read_request()["forget_classes"]),
    )


def _distances(compared: findings.Compared) -> list[figures.Distance]:
    models = compared.of_kind("baseline") + compared.methods
    names = [n for n in metrics.about() if compared.table[n].notna().all()]
    return [
        figures.Distance(
            metric=column.name,
            unit="points" if column.unit in ("%", "points") else column.unit,
            of_models={model: compared.distance(model, column.name) for model in models},
            of_floor=compared.floor(column.name),
        )
        for column in findings.explained(names)
    ]


def _influence(workspace: Workspace) -> dict[str, bytes]:
    found = artifacts.read_table(workspace.influence)
    manifest = workspace.read_manifest("forget")
    if found["id"].astype(str).tolist() != manifest["id"].tolist():
        raise artifacts.ArtifactError(
            f"{workspace.influence} lists other samples than the forget set: "
            "run `dvc repro influence`"
        )
    data = _dataset(workspace)
    found["row"] = workspace.rows("forget", data)
    found["name"] = [data.classes[label] for label in found["label"]]
    ordered = found.sort_values("influence", kind="stable")
    each = min(SHOWN, -(-len(ordered) // 2))
    ends = [
        ("Most influential: lowest score", ordered.head(each)),
        ("Least influential: highest score", ordered[each:].tail(each)),
    ]
    rows = [(title, part, data.images[part["row"]]) for title, part in ends if len(part)]
    return {
        "influence": figures.influences(found),
        "images": figures.samples(rows, data.scale),
    }


def _dataset(workspace: Workspace) -> LabelledImages:
    try:
        return workspace.dataset()
    except FileNotFoundError as error:
        raise artifacts.ArtifactError(str(error)) from error


def _courses(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """Trajectories of the methods; of the baselines when there is no method."""
    kinds = {item: kind for item, kind, _ in _models(workspace)}
    drawn = [item for item, kind in kinds.items() if kind in findings.METHODS]
    drawn = drawn or [item for item, kind in kinds.items() if kind == "baseline"]
    return {
        item: artifacts.read_table(workspace.evaluation(item) / "trajectory.csv") for item in drawn
    }


def _aims(workspace: Workspace, compared: findings.Compared) -> dict[str, list[float]]:
    """Accuracy in % per set: of the reference, and of every model of the floor."""
    found = {}
    for model in compared.of_kind("reference") + compared.of_kind("floor"):
        predicted = artifacts.read_table(workspace.evaluation(model) / "predictions.parquet")
        correct = predicted["predicted"] == predicted["label"]
        found[model] = 100 * correct.groupby(predicted["set"]).mean()
    return {str(name): row.tolist() for name, row in pd.DataFrame(found).iterrows()}


def _page(workspace: Workspace, compared: findings.Compared, drawn: dict[str, bytes]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    results = compared.table.dropna(axis="columns", how="all")
    request = workspace.read_request()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        request=request,
        seed=workspace.seed,
        trained=artifacts.read_json(workspace.runs / "train" / "metrics.json"),
        sizes={
            name: len(workspace.read_manifest(name))
            for name in ("train", "forget", "retain", "validation", "test")
        },
        floors=compared.of_kind("floor"),
        headlines=findings.headlines(compared),
        verdicts=findings.verdicts(compared),
        trivially=compared.trivial[1],
        cost_from="original" if compared.nothing else "reference",
        columns=findings.explained(list(results.columns[1:])),
        rows=[
            {
                "model": model,
                "kind": row["kind"],
                "cells": [findings.shown(name, row[name]) for name in results.columns[1:]],
            }
            for model, row in results.iterrows()
        ],
        figures={
            name: {"caption": caption, "png": base64.b64encode(drawn[name]).decode()}
            for name, caption in FIGURES.items()
        },
        parameters=(workspace.root / params.FILE).read_text(encoding="utf-8"),
    )


def _picture(workspace: Workspace, name: str) -> Path:
    return _out(workspace) / "figures" / f"{name}.png"


def _out(workspace: Workspace) -> Path:
    return workspace.runs / "report"
