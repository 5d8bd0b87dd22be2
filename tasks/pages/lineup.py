"""The models that a report compares, in the order of its tables, and their table of results."""

import shutil
from typing import NamedTuple

import pandas as pd

from imu import discovery, metrics, verdicts
from tasks.files import artifacts, params
from tasks.files.margins import read_margins
from tasks.files.workspace import BASELINES, Workspace
from tasks.pages import findings

SETS = ("forget", "retain", "validation", "test")
REFERENCE = "reference"  # the item of `retrain` that every model is compared with


class Row(NamedTuple):
    """One model of the table: who made it ("unlearn/imu"), its kind, and by which method.

    The kind of a method is "method", or "with_retain" where it is given the retain set.
    """

    producer: str
    kind: str
    method: str

    @property
    def model(self) -> str:
        return self.producer.rsplit("/", 1)[1]

    @property
    def stage(self) -> str:
        """Name in DVC of the stage that evaluates it."""
        of_method = self.producer.startswith("unlearn/")
        return f"{'evaluate' if of_method else 'evaluate_retrain'}@{self.model}"


def rows(workspace: Workspace) -> list[Row]:
    """Every row in the table's order: reference, retrained with other seeds, baselines, methods.

    Where nothing is retrained there is neither of the first two.
    """
    retrained = list(params.section(workspace.root, "retrain"))
    params.section(workspace.root, f"retrain.{REFERENCE}")
    retrained = [REFERENCE, *(name for name in retrained if name != REFERENCE)]
    entries = params.section(workspace.root, "unlearn") or {}
    made = [(str(name), str(entry["method"])) for name, entry in entries.items()]
    if not made:
        raise params.ParameterError(f"{params.FILE}: unlearn has no entry to report on")
    if both := sorted({name for name, _ in made} & set(retrained)):
        raise params.ParameterError(f"{params.FILE}: {both} stand both in retrain and unlearn")
    kinds = {
        name: "with_retain" if entry.get("data_access") == "retain" else "method"
        for name, entry in entries.items()
    }
    baselines = [(n, m) for baseline in BASELINES for n, m in made if m == baseline]
    return [
        *(
            Row(f"retrain/{name}", "reference" if name == REFERENCE else "retrained", "retrain")
            for name in retrained
            if workspace.original.retrain
        ),
        *(Row(f"unlearn/{name}", "baseline", method) for name, method in baselines),
        *(
            Row(f"unlearn/{name}", kind, method)
            for kind in findings.METHODS
            for name, method in made
            if method not in BASELINES and kinds[name] == kind
        ),
    ]


def table(workspace: Workspace) -> pd.DataFrame:
    """One row per model: model, kind, every metric, work; NaN where a value does not exist.

    A method that left no model has no values but those of many networks.
    Raises ArtifactError when an evaluation is missing or was made with other metrics.
    """
    columns = [*metrics.about(workspace.read_request()["objective"]), findings.WORK]
    lines, expected = [], None
    for row in rows(workspace):
        path = workspace.evaluation(row.producer) / "metrics.json"
        values = artifacts.read_json(path)
        names = values.keys() - {findings.WORK, findings.UNCHANGED}
        if not names and failure(workspace, row):
            lines.append({"model": row.model, "kind": row.kind} | _per_sample(workspace, row))
            continue
        expected = names if expected is None else expected
        if names != expected or not names <= set(columns):
            raise artifacts.ArtifactError(
                f"{path} has the metrics {sorted(names)}, must have {sorted(expected)}: "
                "evaluate again with `dvc repro`"
            )
        lines.append({"model": row.model, "kind": row.kind} | values | _per_sample(workspace, row))
    return pd.DataFrame(lines, columns=["model", "kind", *columns])


def absent(workspace: Workspace, results: pd.DataFrame) -> list[str]:
    """What could be measured of no model, and why: a line per reason."""
    kind = discovery.load("tasks.judging", workspace.read_request()["objective"])
    reasons = kind.unmeasured(workspace, results)
    unknown = {name: why for name, why in reasons.items() if results[name].isna().all()}
    return metrics.by_reason(unknown)


def compared(workspace: Workspace, results: pd.DataFrame) -> findings.Compared:
    by_method = {row.method: row.model for row in reversed(rows(workspace))}
    classes = workspace.read_request()["forget_classes"]
    return findings.Compared(
        table=results.set_index("model"),
        nothing=by_method.get("nothing"),
        mask=by_method.get("logit_mask" if classes else "token_mask"),
        class_wise=bool(classes),
        limits=params.load(workspace.root, "verdict", verdicts.Config),
        sizes=verdicts.sizes(
            {n: workspace.read_manifest(n)["label"].tolist() for n in ("forget", "retain", "test")},
            classes,
        ),
        failures={row.model: why for row in rows(workspace) if (why := failure(workspace, row))},
        unchanged={row.model for row in rows(workspace) if unchanged(workspace, row)},
    )


def failure(workspace: Workspace, row: Row) -> str:
    """Why there is no model of ``row``, although its method ran; "" where there is one."""
    if not row.producer.startswith("unlearn/"):
        return ""
    why: str = artifacts.read_json(workspace.failure(row.producer))
    return why


def unchanged(workspace: Workspace, row: Row) -> bool:
    """Whether a method left the weights as they were; to do so is what ``nothing`` is for."""
    found = artifacts.read_json(workspace.evaluation(row.producer) / "metrics.json")
    return findings.UNCHANGED in found and row.method != "nothing"


def prune(workspace: Workspace) -> None:
    """Remove evaluations of entries that ``params.yaml`` no longer has."""
    many = params.section(workspace.root, "ensemble")
    known = {row.producer for row in rows(workspace)}
    known |= {f"retrain/{name}" for name in params.section(workspace.root, "retrain")}
    known |= {f"per_sample/{name}" for name in many["judged"]}
    known |= {f"ensemble/{name}" for name in many["families"]}
    for folder in sorted(workspace.evaluation("").glob("*/*/")):
        producer = f"{folder.parent.name}/{folder.name}"
        if producer not in known:
            shutil.rmtree(folder)
            print(f"removed runs/evaluate/{producer}: not in params.yaml; DVC's cache still has it")


def _per_sample(workspace: Workspace, row: Row) -> dict[str, float]:
    """What many networks say: of a method, and of retraining, which all its models share."""
    many = params.section(workspace.root, "ensemble")
    if row.kind == "retrained" and many["families"]:
        families = (read_margins(workspace, family) for family in ("retrained", "oracle"))
        return metrics.over_models(*families)
    if row.model not in many["judged"] or row.kind in ("reference", "retrained"):
        return {}
    found: dict[str, float] = artifacts.read_json(workspace.per_sample(row.model) / "metrics.json")
    return found
