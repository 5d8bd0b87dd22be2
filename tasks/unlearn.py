"""Unlearn with one method. It sees the original model and what it declares in ``NEEDS``."""

import copy
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from imu import discovery, training
from imu import unlearn as methods
from imu.cost import FlopCounter
from tasks import artifacts, params
from tasks.record import Record
from tasks.workspace import Stopwatch, Workspace, load_model


def run(workspace: Workspace, item: str) -> float:
    device = workspace.device()
    method, config = configured(workspace, item)
    out = workspace.runs / "unlearn" / item
    original, about = load_model(workspace.model("train"))
    original.to(device)
    model = copy.deepcopy(original)
    available = {
        "forget": lambda: _forget_set(workspace, about["unseen"]["accuracy"], device),
        "influence": lambda: _influence(workspace, device),
    }
    watch, flops = Stopwatch(), FlopCounter()
    trajectory = Trajectory(original.state_dict(), params.load(workspace.root, "snapshots", int))
    steps: list[methods.Step] = []
    progress = methods.run(method, model, config, seed=workspace.seed, available=available)
    while True:
        with watch.running(), flops:
            step = next(progress, None)
        if step is None:
            break
        steps.append(step)
        trajectory.add(step.step, model.state_dict())
        print(
            f"step {step.step}: forget loss {step.loss:.4f}, forget accuracy {step.accuracy:.2f} %"
        )
    artifacts.write_table(out / "curve.csv", pd.DataFrame(steps))
    artifacts.write_tensors(out / "trajectory.safetensors", *trajectory.stored())
    artifacts.write_tensors(out / "model.safetensors", model.state_dict(), about)
    artifacts.write_json(
        out / "metrics.json",
        {
            "steps": steps[-1].step,
            "forget_loss": steps[-1].loss,
            "forget_accuracy": steps[-1].accuracy,
            "flops": flops.total,
        },
    )
    return watch.seconds


def record(workspace: Workspace, item: str) -> Record:
    method, config = configured(workspace, item)
    out = workspace.runs / "unlearn" / item
    curve = artifacts.read_table(out / "curve.csv")
    needs = discovery.load("imu.unlearn", method).NEEDS
    return Record(
        params={"unlearn": {"method": method, "needs": sorted(needs), **asdict(config)}},
        metrics=artifacts.read_json(out / "metrics.json"),
        curves={
            f"forget_{name}": list(zip(curve["step"].tolist(), curve[name].tolist(), strict=True))
            for name in ("loss", "accuracy")
        },
        files={"curves": [out / "curve.csv"]},
        model=out / "model.safetensors",
        manifests={"forget": workspace.manifest("forget")},
    )


def configured(workspace: Workspace, item: str) -> tuple[str, Any]:
    """Method and checked configuration of ``unlearn.<item>`` in ``params.yaml``."""
    where = f"unlearn.{item}"
    method = params.parse(params.section(workspace.root, f"{where}.method"), f"{where}.method", str)
    config = discovery.load("imu.unlearn", method).Config
    return method, params.load(workspace.root, where, config, without=("method",))


def _forget_set(
    workspace: Workspace, unseen_accuracy: float, device: torch.device
) -> methods.ForgetSet:
    data = workspace.dataset()
    images, labels = training.pixels(data, workspace.rows("forget", data), device)
    classes, n = tuple(workspace.read_request()["forget_classes"]), len(labels)
    return methods.ForgetSet(
        images=training.normalised(images, data),
        labels=labels,
        classes=classes,
        # A multiple of 1/n: of few samples none must be broken to get below the target.
        target_accuracy=0.0 if classes else 100 * ceil(unseen_accuracy * n / 100) / n,
    )


def _influence(workspace: Workspace, device: torch.device) -> Tensor:
    table = artifacts.read_table(workspace.influence)
    if not table["id"].equals(workspace.read_manifest("forget")["id"].astype(table["id"].dtype)):
        raise artifacts.ArtifactError(
            f"{workspace.influence} lists other samples than the forget set: "
            "run `dvc repro influence`"
        )
    return torch.tensor(table["weight"].to_numpy(), device=device)


class Trajectory:
    """Weights along the way, at most ``limit`` times: when full, every second one is dropped."""

    def __init__(self, original: dict[str, Tensor], limit: int):
        if limit < 2:
            raise params.ParameterError(f"{params.FILE}: snapshots must be >= 2, got {limit}")
        self.original = {name: tensor.clone() for name, tensor in original.items()}
        self.limit = limit
        self.stride = 1
        self.seen = 0
        self.kept: dict[int, dict[str, Tensor]] = {}
        self.last: tuple[int, dict[str, Tensor]] | None = None

    def add(self, step: int, state: dict[str, Tensor]) -> None:
        changed = {
            name: tensor.clone()
            for name, tensor in state.items()
            if not torch.equal(tensor, self.original[name])
        }
        self.last = (step, changed)
        if self.seen % self.stride == 0:
            self.kept[step] = changed
            if len(self.kept) > self.limit:
                self.kept = dict(list(self.kept.items())[::2])
                self.stride *= 2
        self.seen += 1

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors named "<step>/<parameter>", only those that differ from the original model."""
        kept = self.kept | ({self.last[0]: self.last[1]} if self.last else {})
        tensors = {
            f"{step}/{name}": tensor
            for step, state in kept.items()
            for name, tensor in state.items()
        }
        return tensors, {"steps": sorted(kept)}


def snapshots(path: Path, original: dict[str, Tensor]) -> list[tuple[int, dict[str, Tensor]]]:
    """Step and full state of every stored snapshot, in order."""
    tensors, about = artifacts.read_tensors(path)
    found = []
    for step in about["steps"]:
        prefix = f"{step}/"
        changed = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        found.append((step, original | changed))
    return found
