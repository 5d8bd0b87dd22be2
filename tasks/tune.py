"""Candidates for the parameters of methods, judged without the reported data.

Runs in a cell of ``flows.searching.tuning``: another training seed, split seed and forget set than
any reported ones. A candidate is judged by its gap, a mean distance in points to that cell's
retrained reference on the forget set, the retain set and the validation set, as ``held`` of its
kind of problem in ``tasks/judging`` says. Test samples are never looked at. A candidate that fails
(it diverged, or gave up) is kept with its reason and counts as worse than any that did not.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imu import discovery, methods
from imu.unseen import Unseen
from tasks import unlearn
from tasks.files import artifacts, params
from tasks.files.samples import load_samples
from tasks.files.workspace import Workspace, load_model

SETS = ("forget", "retain", "validation")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a file asks for."""

    entry: dict[str, Any]  # as in params.yaml
    candidates: list[dict[str, Any]]  # values by path

    def __post_init__(self) -> None:
        if "method" not in self.entry:
            raise ValueError(f"entry must have a method, got {self.entry}")


def asked(workspace: Workspace, file: Path) -> None:
    """Judge the candidates that ``file`` asks for, and write what became of them in their order.

    file: JSON, ``{"entry": an entry of params.yaml, "candidates": [{path: value}, ...]}``. Beside
    it, under ``answer``, a list as long as that of the candidates.
    """
    request = params.parse(artifacts.read_json(file), "asked", Asked, file=str(file))
    judged = judge(workspace)
    found = []
    for candidate in request.candidates:
        config = configured(request.entry, candidate)
        found.append(judged(request.entry["method"], config))
        print(f"{json.dumps(candidate)}: {found[-1]['failure'] or found[-1]['gap']}", flush=True)
    artifacts.write_json(answer(file), found)


def answer(file: Path) -> Path:
    """Where ``asked`` writes."""
    return file.with_suffix(".judged.json")


def judge(workspace: Workspace) -> Callable[[str, Any], dict[str, Any]]:
    """A function of a method and its Config: numbers, ``gap`` (or None) and ``failure``."""
    device, data = workspace.device(), workspace.dataset()
    original, about = load_model(workspace.model("train"))
    reference, _ = load_model(workspace.model("retrain/reference"))
    loaded = {name: load_samples(workspace, name, data, about, device) for name in SETS}
    sets = {name: samples for name, (samples, _) in loaded.items()}
    objective = loaded["forget"][1]
    classes = tuple(workspace.read_request()["forget_classes"])
    kind = discovery.load("tasks.judging", about["objective"])
    held = kind.held(reference.to(device), objective, sets, classes)
    available = unlearn.available(workspace, sets, Unseen(**about["unseen"]), device)

    def judged(method: str, config: Any) -> dict[str, Any]:
        model = copy.deepcopy(original).to(device)
        try:
            for _ in methods.run(
                method, model, objective, config, seed=workspace.seed, available=available
            ):
                pass
        except (
            FloatingPointError,
            ValueError,
            methods.UnlearningError,
            torch.OutOfMemoryError,
        ) as error:
            return {"gap": None, "failure": str(error)}
        found, gap = held(model)
        return found | {"gap": gap, "failure": ""}

    return judged


def configured(entry: Mapping[str, Any], candidate: Mapping[str, Any]) -> Any:
    """The Config of an entry of ``params.yaml`` with a candidate's values.

    Raises ParameterError for a parameter that is not there, and a value that is not allowed.
    """
    changes = {f"entry.{path}": value for path, value in candidate.items()}
    content = params.changed({"entry": dict(entry)}, changes)["entry"]
    method = entry["method"]
    fields = {name: content[name] for name in content if name not in ("method", "data_access")}
    return params.parse(fields, method, discovery.load("imu.methods", method).Config)
