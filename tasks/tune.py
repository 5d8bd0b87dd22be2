"""Candidates for the parameters of methods, judged without the reported data.

Runs in a cell of ``flows.searching.tuning``: another training seed, split seed and forget set than
any reported ones. A candidate is judged by its gap, a mean distance in points to that cell's
retrained reference on the forget set, the retain set and the validation set, as ``held`` of its
kind of problem in ``tasks/judging`` says. Test samples are never looked at. A candidate that fails
(it diverged, or gave up) is kept with its reason and counts as worse than any that did not.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from imu import discovery, methods
from imu.unseen import Unseen
from tasks import unlearn
from tasks.files import artifacts, params
from tasks.files.samples import load_samples
from tasks.files.workspace import Workspace, load_model

SETS = ("forget", "retain", "validation")


def run(workspace: Workspace, grids: Path | None = None) -> None:
    """Every candidate there is: ``runs/tune/candidates.csv`` with entry, candidate and verdict.

    grids: as ``gridded`` takes them; none: every method's SEARCH. A candidate that was judged
    before, by the same code on the same models, keeps what came out.
    """
    judged, rows = judge(workspace), []
    file = workspace.runs / "tune" / "judged.csv"
    before: dict[str, dict[str, Any]] = {}
    if file.exists():
        known = artifacts.read_table(file, made="str", failure="str").to_dict("records")
        before = {str(row["made"]): row for row in known}
    for name, method, candidate, config in gridded(grids) if grids else candidates():
        made = _made(workspace, method, config)
        if made not in before:
            before[made] = judged(method, config) | {"made": made}
            artifacts.write_table(file, pd.DataFrame([*before.values()]))
        found = {key: value for key, value in before[made].items() if key != "made"}
        rows.append({"entry": name, "candidate": json.dumps(candidate), **found})
        print(f"{name} {rows[-1]['candidate']}: gap {found['gap']} {found['failure']}", flush=True)
    artifacts.write_table(workspace.runs / "tune" / "candidates.csv", pd.DataFrame(rows))


def _made(workspace: Workspace, method: str, config: Any) -> str:
    """Of what a candidate is judged by: models, code and parameters."""
    folder = Path(str(methods.__file__)).parent
    files = [folder / f"{method}.py", *sorted((folder / "common").glob("*.py"))]
    files += [workspace.model("train"), workspace.model("retrain/reference")]
    content = hashlib.sha256(repr((method, config, workspace.seed)).encode())
    for path in files:
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def gridded(file: Path) -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """As ``candidates``, of a JSON file {name: {"entry": of params.yaml, "space": {path: values}}}.

    A space of nothing has one candidate, the entry as it stands.
    """
    for name, given in artifacts.read_json(file).items():
        space = given["space"]
        for values in product(*space.values()):
            candidate = dict(zip(space, values, strict=True))
            yield name, given["entry"]["method"], candidate, configured(given["entry"], candidate)


def asked(workspace: Workspace, file: Path) -> None:
    """Judge the candidates that ``file`` asks for, and write what became of them in their order.

    file: JSON, ``{"entry": an entry of params.yaml, "candidates": [{path: value}, ...]}``. Beside
    it, under ``answer``, a list as long as that of the candidates.
    """
    request, judged = artifacts.read_json(file), judge(workspace)
    found = []
    for candidate in request["candidates"]:
        config = configured(request["entry"], candidate)
        found.append(judged(request["entry"]["method"], config))
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


def candidates() -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """Entry, method, candidate (parameter -> value) and Config, over every method's SEARCH."""
    for method in methods.names():
        search = getattr(discovery.load("imu.methods", method), "SEARCH", {})
        for name, config in methods.variants(method).items() if search else ():
            for values in product(*search.values()):
                candidate = dict(zip(search, values, strict=True))
                yield name, method, candidate, changed(config, candidate)


def changed(config: Any, candidate: Mapping[str, Any]) -> Any:
    """``config`` with other values; a key may be a dotted path."""
    for path, value in candidate.items():
        field, _, rest = path.partition(".")
        new = changed(getattr(config, field), {rest: value}) if rest else value
        config = replace(config, **{field: new})
    return config
