"""Seconds of stages. They lie beside the outputs, not in them: outputs are reproducible."""

from collections.abc import Mapping
from pathlib import Path

from imu.cost import rte
from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.tracking.runs import Tracker


def path(workspace: Workspace, name: str) -> Path:
    """Where the times of a stage are kept, with the key of what it was made from."""
    return workspace.times / f"{name}.json"


def curves(workspace: Workspace, name: str, key: str) -> dict[str, list[tuple[int, float]]]:
    """Seconds up to each step of the computation behind ``key``; {} where none were kept."""
    steps = workspace.step_seconds(name)
    if not steps.is_file() or artifacts.read_json(path(workspace, name))["key"] != key:
        return {}
    table = artifacts.read_table(steps)
    return {"method_seconds": list(zip(table["step"], table["seconds"], strict=True))}


def of_stage(
    workspace: Workspace, tracker: Tracker, name: str, item: str | None, keys: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of a stage and, for an evaluated method, RTE_time; as metrics and tags."""
    metrics: dict[str, float] = {}
    if path(workspace, name).is_file():
        took = artifacts.read_json(path(workspace, name))
        if took["key"] == keys[name]:
            metrics = {k: v for k, v in took.items() if k != "key" and v is not None}
    if item is None or not name.startswith("evaluate@"):
        return metrics, {}
    times, tags = rte_time(workspace, tracker, item.removeprefix("unlearn/"), keys)
    return metrics | times, tags


def rte_time(
    workspace: Workspace, tracker: Tracker, method: str, keys: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of retraining over those of the method, influence included.

    Absent where nothing was updated or no model was left, and with a tag that says so where a time
    is not known.
    """
    from tasks.unlearn import needs_influence

    made = artifacts.read_json(workspace.runs / "unlearn" / method / "metrics.json")
    if made["steps"] == 0 or made["failed"]:
        return {}, {}
    needed = ["retrain@reference", f"unlearn@{method}"]
    needed += ["influence"] if needs_influence(workspace, method) else []
    seconds = {stage: _seconds(workspace, tracker, stage, keys.get(stage)) for stage in needed}
    known = {stage: value for stage, value in seconds.items() if value is not None}
    if unknown := sorted(seconds.keys() - known.keys()):
        return {}, {"RTE_time": f"unknown: the time of {', '.join(unknown)} is not recorded"}
    retraining = known.pop("retrain@reference")
    return {"RTE_time": rte(retraining, sum(known.values()))}, {}


def _seconds(workspace: Workspace, tracker: Tracker, name: str, key: str | None) -> float | None:
    """Seconds that the computation behind ``key`` took: measured here, or known to MLflow."""
    if key is None:
        return None
    kept = path(workspace, name)
    if kept.is_file() and (took := artifacts.read_json(kept))["key"] == key:
        return took["seconds"]
    run = tracker.computed(key)
    return run.data.metrics.get("seconds") if run else None
