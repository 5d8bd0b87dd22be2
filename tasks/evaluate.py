"""Judge an unlearned or retrained model against the reference, which never saw the forget set."""

from collections.abc import Mapping

import pandas as pd
import torch
from torch import nn

from imu import metrics
from imu.cost import rte
from imu.objective import Objective, Samples, predictions
from tasks import artifacts, unlearn
from tasks.record import Record
from tasks.samples import load_samples
from tasks.workspace import Workspace, load_model

REFERENCE = "retrain/reference"
SETS = ("forget", "retain", "validation", "test")


def run(workspace: Workspace, item: str) -> float | None:
    """``item`` is the producer of the judged model: "unlearn/<name>" or "retrain/<name>"."""
    device = workspace.device()
    out = workspace.evaluation(name_of(item))
    data = workspace.dataset()
    sets = {name: load_samples(workspace, name, data, device) for name in SETS}
    classes = tuple(workspace.read_request()["forget_classes"])
    model, _ = load_model(workspace.model(item))
    reference, _ = load_model(workspace.model(REFERENCE))
    outputs = _outputs(model.to(device), sets, classes, workspace.seed)
    judged = metrics.measure(outputs)
    values = metrics.compare(
        judged, metrics.measure(_outputs(reference.to(device), sets, classes, workspace.seed))
    )
    if item.startswith("unlearn/"):
        values |= _work(workspace, name_of(item))
        artifacts.write_table(out / "trajectory.csv", _trajectory(workspace, item, sets, device))
    artifacts.write_table(out / "predictions.parquet", _predictions(workspace, outputs))
    artifacts.write_json(out / "metrics.json", values)
    print(", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    return None


def record(workspace: Workspace, item: str) -> Record:
    out = workspace.evaluation(name_of(item))
    curves = {}
    files = [out / "predictions.parquet"]
    if item.startswith("unlearn/"):
        files.append(out / "trajectory.csv")
        steps = artifacts.read_table(out / "trajectory.csv")
        curves = {
            f"{name}_accuracy": list(zip(steps["step"].tolist(), steps[name].tolist(), strict=True))
            for name in SETS
        }
    return Record(
        params={"judged": item, "reference": REFERENCE},
        metrics=artifacts.read_json(out / "metrics.json"),
        curves=curves,
        files={"evaluation": files},
        manifests={name: workspace.manifest(name) for name in SETS},
    )


def name_of(item: str) -> str:
    return item.rsplit("/", 1)[1]


Sets = Mapping[str, tuple[Samples, Objective]]


def _outputs(model: nn.Module, sets: Sets, classes: tuple[int, ...], seed: int) -> metrics.Outputs:
    logits = {n: predictions(model, task, samples.inputs) for n, (samples, task) in sets.items()}
    return metrics.Outputs(
        probabilities={n: z.double().softmax(1).cpu().numpy() for n, z in logits.items()},
        labels={name: samples.targets.cpu().numpy() for name, (samples, _) in sets.items()},
        forget_classes=classes,
        seed=seed,
    )


def _predictions(workspace: Workspace, outputs: metrics.Outputs) -> pd.DataFrame:
    tables = []
    for name in SETS:
        table = workspace.read_manifest(name)[["id", "label"]]
        table.insert(0, "set", name)
        table["predicted"] = outputs.probabilities[name].argmax(1)
        table["confidence"] = outputs.confidence(name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _trajectory(workspace: Workspace, item: str, sets: Sets, device: torch.device) -> pd.DataFrame:
    """Accuracy in % on each set at each stored step."""
    model, _ = load_model(workspace.model("train"))
    path = workspace.runs / item / "trajectory.safetensors"
    rows = []
    for step, state in unlearn.snapshots(path, dict(model.state_dict())):
        model.load_state_dict(state)
        model.to(device)
        row: dict[str, float] = {"step": step}
        for name, (samples, objective) in sets.items():
            right = predictions(model, objective, samples.inputs).argmax(1) == samples.targets
            row[name] = 100 * right.double().mean().item()
        rows.append(row)
    return pd.DataFrame(rows)


def _work(workspace: Workspace, name: str) -> dict[str, float]:
    """Retraining work over method work, influence included; absent where nothing was updated."""

    def read(producer: str) -> dict[str, float]:
        return artifacts.read_json(workspace.runs / producer / "metrics.json")

    done = read(f"unlearn/{name}")
    if done["steps"] == 0:
        return {}
    influence = read("influence")["flops"] if unlearn.needs_influence(workspace, name) else 0
    return {"RTE_work": rte(read(REFERENCE)["flops"], done["flops"] + influence)}
