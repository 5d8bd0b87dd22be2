"""Unlearn with one method. It is given the original model and what it declares in ``NEEDS``."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from imu import discovery, methods
from imu.cost import FlopCounter
from imu.objectives import Samples
from imu.unseen import Unseen
from tasks.files import artifacts, params
from tasks.files.progress import Progress
from tasks.files.samples import load_samples
from tasks.files.workspace import Stopwatch, Workspace, load_model

OFTEN = 1.0  # seconds between two lines that tell how far it is


def run(workspace: Workspace, item: str) -> float:
    """A method that diverges or gives up leaves no model, but its course and the reason."""
    device = workspace.device()
    entry = configured(workspace, item)
    out = workspace.runs / "unlearn" / item
    data = workspace.dataset()
    original, about = load_model(workspace.model("train"))
    forget, objective = load_samples(workspace, "forget", data, about, device)
    original.to(device)
    model = copy.deepcopy(original)
    sets = {"forget": forget}
    if entry.data_access == "retain":
        sets["retain"] = load_samples(workspace, "retain", data, about, device)[0]
    unseen = Unseen(**about["unseen"])
    given = available(workspace, sets, unseen, device)
    target: methods.ForgetSet = given["forget"]()
    one_label = forget.targets.dim() == 1
    if one_label and not target.classes and (lacking := unseen.without(forget.targets)):
        names = ", ".join(about["classes"][label] for label in lacking)
        print(f"no unseen sample of {names}: samples are held against those of all classes")
    watch, flops = Stopwatch(), FlopCounter()
    trajectory = Trajectory(original.state_dict(), params.load(workspace.root, "snapshots", int))
    steps: list[methods.Step] = []
    progress = methods.run(
        entry.method, model, objective, entry.config, seed=workspace.seed, available=given
    )
    lines = Progress(workspace, f"unlearn/{item}", methods.Step._fields)
    said, failure = 0.0, ""
    while True:
        try:
            with watch.running(), flops:
                step = next(progress, None)
        except (FloatingPointError, methods.UnlearningError) as error:
            if not steps and isinstance(error, FloatingPointError):
                raise  # nothing was updated yet: it is the inputs or the model that are bad
            failure = str(error)
            print(f"no model: {failure}")
            break
        if step is None:
            break
        steps.append(step)
        lines.add(*step)
        trajectory.add(step.step, model.state_dict())
        if step.step == 0 or perf_counter() - said > OFTEN:
            said = perf_counter()
            print(
                f"step {step.step}: forget loss {step.loss:.4f}, "
                f"forget accuracy {step.accuracy:.2f} %"
            )
    if steps and not failure:
        print(target.ended(steps[0], steps[-1]))
    curve = pd.DataFrame(steps, columns=methods.Step._fields)
    artifacts.write_table(out / "curve.csv", curve.drop(columns="seconds"))
    artifacts.write_tensors(out / "trajectory.safetensors", *trajectory.stored())
    if failure:
        artifacts.write_tensors(out / "model.safetensors", {}, about | {"failure": failure})
    else:
        artifacts.write_tensors(out / "model.safetensors", model.state_dict(), about)
    values = {
        "steps": 0.0,
        "flops": flops.total,
        "failed": float(bool(failure)),
        "uses_influence": float("influence" in methods.needs(entry.method)),
    }
    if steps:
        last = steps[-1]
        values |= {
            "steps": last.step,
            "forget_loss": last.loss,
            "forget_accuracy": last.accuracy,
            "forget_margin": last.margin,
        }
        if not target.classes:
            values["target_margin"] = target.wanted_margin(steps[0])
    artifacts.write_json(out / "metrics.json", values)
    return watch.seconds


class Entry(NamedTuple):
    """One entry of ``unlearn`` in ``params.yaml``."""

    method: str  # a file in imu/methods
    data_access: str  # "forget": the forget set alone; "retain": the retain set as well
    config: Any  # the method's Config


def configured(workspace: Workspace, item: str) -> Entry:
    """The entry ``unlearn.<item>``, checked.

    Raises ParameterError when ``data_access`` is not what the method needs: the graph gives
    a stage no more data than its entry states.
    """
    where = f"unlearn.{item}"
    method = params.parse(params.section(workspace.root, f"{where}.method"), f"{where}.method", str)
    key = f"{where}.data_access"
    data_access = params.parse(params.section(workspace.root, key), key, str)
    module = discovery.load("imu.methods", method)
    needed = "retain" if "retain" in methods.needs(method) else "forget"
    if data_access != needed:
        raise params.ParameterError(
            f"{params.FILE}: {key} must be {needed!r} for the method {method}, got {data_access!r}"
        )
    config = params.load(workspace.root, where, module.Config, without=("method", "data_access"))
    return Entry(method, data_access, config)


def available(
    workspace: Workspace, sets: Mapping[str, Samples], unseen: Unseen, device: torch.device
) -> dict[str, Callable[[], Any]]:
    """How a method comes to what it may need; the retain set only if ``sets`` has it.

    unseen: what the original model says of data that it had not seen.
    """
    given: dict[str, Callable[[], Any]] = {
        "forget": lambda: _forget_set(workspace, sets["forget"], unseen),
        "influence": lambda: _influence(workspace, device),
    }
    if "retain" in sets:
        given["retain"] = lambda: sets["retain"]
    return given


def entries() -> dict[str, dict[str, Any]]:
    """What ``unlearn`` in ``params.yaml`` would be with every method and variant there is."""
    found = {}
    for method in methods.names():
        needed = "retain" if "retain" in methods.needs(method) else "forget"
        for name, config in methods.variants(method).items():
            found[name] = {"method": method, "data_access": needed, **asdict(config)}
    return found


def _forget_set(workspace: Workspace, samples: Samples, unseen: Unseen) -> methods.ForgetSet:
    classes = workspace.read_request()["forget_classes"]
    if classes:
        return methods.ForgetSet.whole(samples, classes)
    return methods.ForgetSet.as_unseen(samples, unseen)


def _influence(workspace: Workspace, device: torch.device) -> Tensor:
    return torch.tensor(workspace.read_influence()["weight"].to_numpy(), device=device)


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
        changed = copy.deepcopy(  # of names of one tensor it makes names of one copy
            {n: tensor for n, tensor in state.items() if not torch.equal(tensor, self.original[n])}
        )
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
