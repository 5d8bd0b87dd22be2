"""What MLflow is told of a stage, read back from its outputs on disk.

A record needs nothing but the disk. So a stage can be logged as it ends, later, or by a run that
restored it from DVC's cache, and MLflow shows the same.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imu import discovery
from imu.efficiency import rte
from tasks.files import artifacts, params, progress, unlearned
from tasks.files.workspace import NOT_RETRAINED, Workspace
from tasks.graph import lock

if TYPE_CHECKING:
    import pandas as pd


SETS = ("train", "forget", "retain", "validation", "test")
LISTED = 16  # samples in a table


@dataclass(frozen=True, kw_only=True)
class Record:
    """params: nested. metrics: final values. curves: name -> (step, value) pairs.

    files: folder in MLflow -> local files. tables: path in MLflow -> table, in which an array
    (height, width) or (height, width, 3), uint8, is an image. model: a safetensors file from
    ``tasks``. manifests: role -> CSV of samples that the stage read or made.
    """

    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)
    tables: dict[str, "pd.DataFrame"] = field(default_factory=dict)
    model: Path | None = None
    manifests: dict[str, Path] = field(default_factory=dict)


def record(workspace: Workspace, stage: str, item: str | None) -> Record:
    """What a stage left on disk. Raises ArtifactError where something is missing."""
    return _RECORDS[stage](workspace, item or "")


def model_of(stage: str, item: str | None) -> str:
    """Producer of the model that a stage makes or judges, such as "unlearn/imu".

    "" where it tells of none, or of many: that belongs to the run of the pipeline.
    """
    if stage == "train":
        return "train"
    if stage in ("retrain", "unlearn"):
        return f"{stage}/{item}"
    if stage == "per_sample":
        return f"unlearn/{item}"
    judged = item or ""
    return judged if judged.startswith(("retrain/", "unlearn/")) else ""


def present(workspace: Workspace) -> dict[str, lock.Locked]:
    """The stages of ``dvc.lock`` that ``params.yaml`` still has, but the one that logs.

    DVC keeps the entries of those that are gone.
    """
    content = params.read(workspace.root)
    items = {
        "retrain": content["retrain"],
        "unlearn": content["unlearn"],
        "ensemble": content["ensemble"]["families"],
        "per_sample": content["ensemble"]["judged"],
    }
    found = {}
    for name, at in lock.locked_stages(workspace.root).items():
        made = f"{at.stage}/{at.item}" if at.stage != "evaluate" else str(at.item)
        kind, _, item = made.partition("/")
        if at.stage != "track" and (kind not in items or item in items[kind]):
            found[name] = at
    return found


def pipeline_key(workspace: Workspace) -> str:
    """Equal if and only if all stages were made from the same; ``track`` makes nothing."""
    return lock.joint_key({name: at.key for name, at in present(workspace).items()})


def curve(table: "pd.DataFrame | None") -> dict[str, list[tuple[int, float]]]:
    """Every column over the first one."""
    if table is None:
        return {}
    steps = table.iloc[:, 0].tolist()
    return {
        str(name): list(zip(steps, table[name].tolist(), strict=True)) for name in table.columns[1:]
    }


def _split(workspace: Workspace, item: str) -> Record:
    manifests = {name: workspace.manifest(name) for name in SETS}
    request = workspace.read_request()
    return Record(
        metrics={f"n_{name}": float(len(workspace.read_manifest(name))) for name in manifests}
        | {f"requested/{name}": float(n) for name, n in request["requested"].items()}
        | {"n_left_out": float(sum(request["left_out"].values()))}
        | {"n_twins": float(len(request["twins"]))},
        files={"split": [*manifests.values(), workspace.request]},
        manifests=manifests,
    )


def _train(workspace: Workspace, item: str) -> Record:
    given = workspace.original
    recipe = {} if given.checkpoint else {"train": params.section(workspace.root, "train")}
    return _fitted(workspace, "train", {"original": asdict(given), **recipe}, workspace.seed)


def _retrain(workspace: Workspace, item: str) -> Record:
    if not workspace.original.retrain:
        return Record(params={"original": asdict(workspace.original)})
    seed = workspace.seed + params.section(workspace.root, f"retrain.{item}.seed_offset")
    recipe = {"train": params.section(workspace.root, "train")}
    return _fitted(workspace, f"retrain/{item}", recipe, seed)


def _fitted(workspace: Workspace, producer: str, recipe: dict[str, Any], seed: int) -> Record:
    out, manifest = workspace.runs / producer, "train" if producer == "train" else "retain"
    return Record(
        params={"seed": seed, **recipe, "network": params.section(workspace.root, "network")},
        metrics=artifacts.read_json(out / "metrics.json") | progress.took(workspace, producer),
        curves=curve(artifacts.read_table(out / "curve.csv")),
        files={"curves": [out / "curve.csv"]},
        model=workspace.model(producer),
        manifests={manifest: workspace.manifest(manifest)},
    )


def _influence(workspace: Workspace, item: str) -> Record:
    found = workspace.influence
    return Record(files={"influence": [found, found.with_name("metrics.json")]})


def _unlearn(workspace: Workspace, item: str) -> Record:
    out, failure = workspace.runs / "unlearn" / item, unlearned.why_failed(workspace, item)
    curves = curve(artifacts.read_table(out / "curve.csv"))
    times = progress.took(workspace, f"unlearn/{item}")
    course = curve(progress.course(workspace, f"unlearn/{item}"))
    curves |= {name: points for name, points in course.items() if name == "seconds"}
    return Record(
        params={
            "seed": workspace.seed,
            "unlearn": params.section(workspace.root, f"unlearn.{item}"),
            **({"failure": failure} if failure else {}),
        },
        metrics=artifacts.read_json(out / "metrics.json") | times,
        curves={f"forget_{name}": points for name, points in curves.items()},
        files={"curves": [out / "curve.csv"]},
        model=None if failure else workspace.model(f"unlearn/{item}"),
        manifests={"forget": workspace.manifest("forget")},
    )


def _evaluate(workspace: Workspace, item: str) -> Record:
    out = workspace.evaluation(item)
    metrics = artifacts.read_json(out / "metrics.json")
    curves, tables, failure = {}, {}, ""
    files = [out / "predictions.parquet"]
    if item.startswith("unlearn/"):
        files.append(out / "trajectory.csv")
        steps = curve(artifacts.read_table(out / "trajectory.csv"))
        curves = {f"{name}_accuracy": points for name, points in steps.items()}
        failure = artifacts.read_json(workspace.failure(item))
        metrics |= _rte_time(workspace, item)
        if saved := metrics.get("RTE_work"):
            metrics["work"] = round(100 / saved, 2)  # as the report has it
        if not failure:
            tables = _tables(workspace, artifacts.read_table(files[0], id="str"))
    return Record(
        params={"reference": "retrain/reference" if workspace.original.retrain else NOT_RETRAINED},
        metrics=_printed(metrics),
        curves=curves,
        files={"evaluation": files},
        tables=tables,
    )


def _printed(values: dict[str, float]) -> dict[str, float]:
    """Metrics as they are printed: MLflow's table shows all digits, or cuts them off.

    ``runs/evaluate`` has all of them.
    """
    from tasks.pages import findings

    known = {*findings.about(), *findings.COSTS}
    return {
        name: float(findings.shown(name, value)) if name in known else value
        for name, value in values.items()
    }


def _rte_time(workspace: Workspace, producer: str) -> dict[str, float]:
    """Seconds of retraining over those of the method, influence included.

    Absent where nothing was updated, no model was left, or a time is not of this machine.
    """
    made = artifacts.read_json(workspace.runs / producer / "metrics.json")
    if made["steps"] == 0 or made["failed"]:
        return {}
    needed = ["retrain/reference", producer]
    if made["uses_influence"]:
        needed.append("influence")
    seconds = [progress.took(workspace, name).get("seconds") for name in needed]
    if None in seconds:
        return {}
    retraining, *spent = [value for value in seconds if value is not None]
    return {"RTE_time": rte(retraining, sum(spent))}


def _tables(workspace: Workspace, found: "pd.DataFrame") -> dict[str, "pd.DataFrame"]:
    """The slices: by class, and the samples that stand out, with their images."""
    import pandas as pd

    from tasks.pages import slices

    data = workspace.dataset()
    tables = {"slices/by_class.json": slices.by_class(found)}
    for kind, name, table in (
        ("least_forgotten", "forget", slices.least_forgotten(found, workspace.read_influence())),
        ("got_worse", "retain", slices.got_worse(found)),
    ):
        manifest = workspace.read_manifest(name).set_index("id")["index"]
        table = table.head(LISTED)
        pages = discovery.load("tasks.pages.kinds", data.objective)
        shown = pages.shown(data, manifest[table["id"]].tolist())
        tables[f"slices/{kind}.json"] = pd.DataFrame({**shown, **table})
    return tables


def _ensemble(workspace: Workspace, item: str) -> Record:
    found = artifacts.read_json(workspace.runs / "ensemble" / item / "metrics.json")
    return Record(metrics={f"ensemble_{item}_{name}": value for name, value in found.items()})


def _per_sample(workspace: Workspace, item: str) -> Record:
    out = workspace.per_sample(item)
    many = params.section(workspace.root, "ensemble")
    return Record(
        params={"ensemble": {name: many[name] for name in ("members", "network")}},
        metrics=_printed(artifacts.read_json(out / "metrics.json")),
        files={"per_sample": [out / "samples.parquet"]},
    )


def _report(workspace: Workspace, item: str) -> Record:
    out = workspace.runs / "report"
    found = sorted(path for path in out.glob("*") if path.is_file())
    return Record(
        params=params.read(workspace.root), files={"": [workspace.root / params.FILE, *found]}
    )


_RECORDS: dict[str, Callable[[Workspace, str], Record]] = {
    "split": _split,
    "train": _train,
    "retrain": _retrain,
    "influence": _influence,
    "unlearn": _unlearn,
    "evaluate": _evaluate,
    "ensemble": _ensemble,
    "per_sample": _per_sample,
    "report": _report,
}
