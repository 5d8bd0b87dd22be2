"""What ``params.yaml`` asks of its network, tried on a few images before anything runs.

Not a stage: it needs the data set alone, and leaves nothing.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from imu import checkpoint, discovery, ensemble, influences, splitting, training
from imu.datasets import Dataset, LabelledImages
from imu.metrics import Subject
from imu.objectives import Samples
from imu.rehearsal import Method, Trial, few, rehearse, shortened
from tasks.ensemble import IMAGES_ALONE
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace, load_model
from tasks.unlearn import configured

BATCH = 8  # samples of a step of training


class RehearsalError(RuntimeError):
    """Something that is configured will fail."""


def run(workspace: Workspace) -> None:
    """Prints what was tried. Raises RehearsalError, naming all that will fail."""
    begin = perf_counter()
    try:
        device = workspace.device()
    except params.ParameterError as error:
        print(f"{error}: rehearsed on the CPU")
        device = torch.device("cpu")
    data = workspace.dataset()
    model, about = workspace.new_model(data, workspace.seed)
    if given := workspace.original.checkpoint:
        checkpoint.load_into(model, workspace.root / given)
    classes = _forgotten_class(workspace, data)
    units = data.attributes[data.together] if data.together else data.labels
    rows = few(np.unique(units, return_inverse=True)[1] if data.together else units, classes)
    kind = discovery.load("imu.objectives", data.objective)
    sets: dict[str, Samples] = {
        name: kind.samples(data, of_set, about, device, perturbed=name == "forget")
        for name, of_set in rows.items()
    }
    methods = {}
    for item in params.section(workspace.root, "unlearn"):
        entry = configured(workspace, item)
        methods[item] = Method(entry.method, entry.config)
    recipe = params.load(workspace.root, "train", training.Config)
    short = replace(shortened(recipe), batch_size=min(recipe.batch_size, BATCH), compile=False)
    known = rows["forget"] + rows["retain"]
    objective = kind.objective(about)

    def train(network: nn.Module) -> None:
        list(training.fit(network, data, known, short, seed=0, device=device, about=about))

    def store(network: nn.Module) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            artifacts.write_tensors(path, network.state_dict(), about)
            load_model(path)

    def stack(_: nn.Module) -> None:
        if not isinstance(data, LabelledImages):
            raise params.ParameterError(IMAGES_ALONE)
        seeds = (0, 1)
        networks = [workspace.new_model(data, seed, "ensemble.network")[0] for seed in seeds]
        networks = [network.to(device) for network in networks]
        list(ensemble.fit(networks, data, known, short, seeds=seeds, device=device))

    def attacked(network: nn.Module) -> Subject:
        judging = discovery.load("tasks.judging", data.objective)
        outputs = judging.found(network, objective, sets, data, rows, about, classes)
        return Subject(model=network, objective=objective, samples=sets, outputs=outputs)

    faults = []
    for trial in rehearse(
        model.to(device),
        objective,
        sets,
        influence=params.load(workspace.root, "influence", influences.Config),
        methods=methods,
        classes=classes,
        also={"train": train, "model.safetensors": store}
        | ({"ensemble": stack} if params.section(workspace.root, "ensemble.families") else {}),
        attacked=attacked,
    ):
        if trial.fault:
            faults.append(trial)
            print(f"rehearsed {trial.what}: does not work")
    print(f"rehearsed in {perf_counter() - begin:.1f} s")
    if faults:
        raise RehearsalError(_explained(faults))


def _forgotten_class(workspace: Workspace, data: Dataset) -> tuple[int, ...]:
    """One class that is to be forgotten whole, if any is."""
    split = params.load(workspace.root, "split", splitting.Config)
    if split.scenario != "class":
        return ()
    known = [data.classes.index(name) for name in split.by_class.classes if name in data.classes]
    return tuple(known[:1])


def _explained(faults: list[Trial]) -> str:
    """All faults, those with one reason together, and what may be left out."""
    reasons: dict[str, list[str]] = {}
    for trial in faults:
        reasons.setdefault(trial.fault, []).append(trial.what)
    lines = [f"- {', '.join(whats)}: {fault}" for fault, whats in reasons.items()]
    if any(trial.what == "influence" for trial in faults):
        lines.append("influence.parameters can name other layers; none stands for the head.")
    if any(trial.what.startswith("unlearn.") for trial in faults):
        lines.append(f"Entries of `unlearn` can be taken out of {params.FILE}.")
    return "\n".join(["this would fail later:", *lines])
