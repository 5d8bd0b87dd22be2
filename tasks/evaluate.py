"""Judge an unlearned or retrained model against the reference, which never saw the forget set."""

import copy
from collections.abc import Mapping

import pandas as pd
import torch
from torch import nn

from imu import metrics
from imu.efficiency import rte
from imu.metrics import accuracy
from imu.objectives import Objective, Samples, predictions
from tasks.files import artifacts, params, unlearned
from tasks.files.samples import load_samples
from tasks.files.workspace import NOT_RETRAINED, Workspace, load_model
from tasks.pages import slices

REFERENCE = "retrain/reference"
SETS = ("forget", "retain", "validation", "test")
DRAWN = ("forget", "retain", "test")  # of the course
Sets = Mapping[str, tuple[Samples, Objective]]
State = Mapping[str, torch.Tensor]


def run(workspace: Workspace, item: str) -> None:
    """``item`` is the producer of the judged model: "unlearn/<name>" or "retrain/<name>"."""
    out, retrained = workspace.evaluation(item), workspace.original.retrain
    if not retrained and item.startswith("retrain/"):
        artifacts.write_table(out / "predictions.parquet", pd.DataFrame())
        artifacts.write_json(out / "metrics.json", {})
        print(NOT_RETRAINED)
        return
    failure = ""
    if item.startswith("unlearn/"):
        failure = unlearned.why_failed(workspace, item.removeprefix("unlearn/"))
        artifacts.write_json(workspace.failure(item), failure)
    device, data = workspace.device(), workspace.dataset()
    sets = {
        name: _laid_out(workspace, *load_samples(workspace, name, data, device, stored=True))
        for name in SETS
    }
    if failure:
        artifacts.write_table(
            out / "trajectory.csv", _trajectory(workspace, item, sets, device, {})
        )
        artifacts.write_table(out / "predictions.parquet", pd.DataFrame())
        artifacts.write_json(out / "metrics.json", {})
        print(f"no model to judge: {failure}")
        return
    models = {
        producer: _loaded(workspace, producer, device)
        for producer in ("train", *([REFERENCE] if retrained else []), item)
    }
    classes = tuple(workspace.read_request()["forget_classes"])
    objective = sets["forget"][1]
    samples = {name: of_set for name, (of_set, _) in sets.items()}
    outputs = {
        producer: metrics.outputs_of(
            model, objective, samples, forget_classes=classes, seed=workspace.seed
        )
        for producer, model in models.items()
    }
    judged = metrics.measure(
        metrics.Subject(
            model=models[item],
            objective=objective,
            samples=samples,
            outputs=outputs[item],
            original_accuracy=accuracy.measure(outputs["train"])["FA"],
        )
    )
    if not retrained:
        values = metrics.alone(judged)
    elif item.startswith("unlearn/"):
        known = artifacts.read_json(workspace.evaluation(REFERENCE) / "metrics.json")
        reference = metrics.Measured(outputs=outputs[REFERENCE], values=known)
        values = metrics.compare(judged, reference)
    else:
        of_reference = judged if item == REFERENCE else metrics.of_outputs(outputs[REFERENCE])
        values = metrics.compare(judged, of_reference)
    if item.startswith("unlearn/"):
        values |= _work(workspace, item) if retrained else {}
        if _same(models["train"].state_dict(), models[item].state_dict()):
            values["unchanged"] = 1.0
        known = {name: (models[name].state_dict(), outputs[name]) for name in ("train", item)}
        artifacts.write_table(
            out / "trajectory.csv", _trajectory(workspace, item, sets, device, known)
        )
    manifests = {name: workspace.read_manifest(name) for name in SETS}
    artifacts.write_table(
        out / "predictions.parquet",
        slices.predictions(manifests, outputs[item], outputs.get(REFERENCE), outputs["train"]),
    )
    artifacts.write_json(out / "metrics.json", values)
    print(", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    said, head = outputs[item], bool(outputs[item].features)
    absent = metrics.absent(said.labels, said.forget_classes, head=head)
    for line in metrics.by_reason(absent):
        print(f"not measured: {line}")


def _layout(workspace: Workspace) -> torch.memory_format:
    """Of images and weights: in channels-last convolutions are fastest, on CPU and GPU alike.

    A network of the user's gets images as it was trained on them: its code may need that order.
    """
    custom = params.section(workspace.root, "network.name") == "custom"
    return torch.contiguous_format if custom else torch.channels_last


def _loaded(workspace: Workspace, producer: str, device: torch.device) -> nn.Module:
    model, _ = load_model(workspace.model(producer))
    return model.to(device).to(memory_format=_layout(workspace))


def _laid_out(
    workspace: Workspace, samples: Samples, objective: Objective
) -> tuple[Samples, Objective]:
    assert isinstance(samples.inputs, torch.Tensor)
    images = samples.inputs.contiguous(memory_format=_layout(workspace))
    return Samples(images, samples.targets), objective


def _trajectory(
    workspace: Workspace,
    item: str,
    sets: Sets,
    device: torch.device,
    known: Mapping[str, tuple[State, metrics.Outputs]],
) -> pd.DataFrame:
    """Accuracy in % on the drawn sets at each stored step.

    known: weights whose outputs need not be computed: those at both ends.
    """
    model = _loaded(workspace, "train", device)
    path = workspace.runs / item / "trajectory.safetensors"
    rows = []
    for step, state in unlearned.snapshots(path, copy.deepcopy(model.state_dict())):
        model.load_state_dict(state)
        found = [out for weights, out in known.values() if _same(weights, model.state_dict())]
        row: dict[str, float] = {"step": step}
        for name in DRAWN:
            samples, objective = sets[name]
            if found:
                right = found[0].probabilities[name].argmax(1) == found[0].labels[name]
                row[name] = 100 * float(right.mean())
                continue
            said = predictions(model, objective, samples.inputs, metrics.BATCH).argmax(1)
            row[name] = 100 * (said == samples.targets).double().mean().item()
        rows.append(row)
    return pd.DataFrame(rows, columns=["step", *DRAWN])


def _same(one: State, other: State) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def _work(workspace: Workspace, item: str) -> dict[str, float]:
    """Retraining work over method work, influence included; absent where nothing was updated."""

    def read(producer: str) -> dict[str, float]:
        return artifacts.read_json(workspace.runs / producer / "metrics.json")

    done = read(item)
    if done["steps"] == 0:
        return {}
    influence = read("influence")["flops"] if done["uses_influence"] else 0
    return {"RTE_work": rte(read(REFERENCE)["flops"], done["flops"] + influence)}
