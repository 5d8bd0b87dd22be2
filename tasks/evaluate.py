"""Judge an unlearned or retrained model against the reference, which never saw the forget set."""

import copy
from collections.abc import Mapping

import pandas as pd
import torch
from torch import nn

from imu import discovery, metrics
from imu.efficiency import rte
from imu.objectives import answered
from tasks.files import artifacts, unlearned
from tasks.files.workspace import NOT_RETRAINED, Workspace, load_model
from tasks.judging import SETS, Judge
from tasks.pages import slices

REFERENCE = "retrain/reference"
DRAWN = ("forget", "retain", "test")  # of the course
State = Mapping[str, torch.Tensor]
Answers = Mapping[str, pd.DataFrame]  # by set


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
    original, about = load_model(workspace.model("train"))
    kind = discovery.load("tasks.judging", about["objective"])
    judge: Judge = kind.Judge(workspace, data, about, device)
    original = judge.placed(original)
    if failure:
        artifacts.write_table(
            out / "trajectory.csv", _trajectory(workspace, item, judge, original, {})
        )
        artifacts.write_table(out / "predictions.parquet", pd.DataFrame())
        artifacts.write_json(out / "metrics.json", {})
        print(f"no model to judge: {failure}")
        return
    models = {"train": original} | {
        producer: judge.placed(load_model(workspace.model(producer))[0])
        for producer in ([REFERENCE] if retrained else []) + [item]
    }
    outputs = {producer: judge.outputs(model) for producer, model in models.items()}
    judged = metrics.measure(judge.subject(models[item], outputs[item], outputs["train"]))
    if not retrained:
        values = metrics.alone(judged)
    elif item.startswith("unlearn/"):
        known = artifacts.read_json(workspace.evaluation(REFERENCE) / "metrics.json")
        reference = metrics.Measured(outputs=outputs[REFERENCE], values=known)
        values = metrics.compare(judged, reference)
    else:
        of_reference = judged if item == REFERENCE else metrics.of_outputs(outputs[REFERENCE])
        values = metrics.compare(judged, of_reference)
    answers = {
        producer: {name: judge.answers(found, name) for name in SETS}
        for producer, found in outputs.items()
    }
    if item.startswith("unlearn/"):
        values |= _work(workspace, item) if retrained else {}
        if _same(original.state_dict(), models[item].state_dict()):
            values["unchanged"] = 1.0
        ends = {name: (models[name].state_dict(), answers[name]) for name in ("train", item)}
        artifacts.write_table(
            out / "trajectory.csv", _trajectory(workspace, item, judge, original, ends)
        )
    artifacts.write_table(
        out / "predictions.parquet",
        slices.predictions(
            {name: judge.manifest(name) for name in SETS},
            answers[item],
            answers.get(REFERENCE),
            answers["train"],
        ),
    )
    artifacts.write_json(out / "metrics.json", values)
    print(", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    for line in metrics.by_reason(judge.absent(outputs[item])):
        print(f"not measured: {line}")


def _trajectory(
    workspace: Workspace,
    item: str,
    judge: Judge,
    original: nn.Module,
    known: Mapping[str, tuple[State, Answers]],
) -> pd.DataFrame:
    """Accuracy in % on the drawn sets at each stored step.

    known: weights whose answers need not be asked for: those at both ends.
    """
    model = copy.deepcopy(original)
    path = workspace.runs / item / "trajectory.safetensors"
    rows = []
    for step, state in unlearned.snapshots(path, copy.deepcopy(model.state_dict())):
        model.load_state_dict(state)
        found = [said for weights, said in known.values() if _same(weights, model.state_dict())]
        row: dict[str, float] = {"step": step}
        for name in DRAWN:
            if found:
                right = found[0][name]["right"].mean()
            else:
                right = answered(model, judge.objective, judge.samples[name]).right.mean().item()
            row[name] = 100 * float(right)
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
