"""What ``params.yaml`` asks of its network, tried on a few images before anything runs.

Not a stage: it needs the data set alone, and leaves nothing.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from imu import checkpoint, ensemble, influences, splitting, training
from imu.datasets import LabelledImages
from imu.datasets.common.tensors import pixels
from imu.objectives import Samples
from imu.objectives.classification import Classification
from imu.rehearsal import Method, Trial, few, rehearse, shortened
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace, load_model
from tasks.unlearn import configured

BATCH = 8  # images of a step of training


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
    rows = few(data.labels, classes)
    sets = {name: _samples(data, of_set, name, device) for name, of_set in rows.items()}
    methods = {}
    for item in params.section(workspace.root, "unlearn"):
        entry = configured(workspace, item)
        methods[item] = Method(entry.method, entry.config)
    recipe = params.load(workspace.root, "train", training.Config)
    short = replace(shortened(recipe), batch_size=min(recipe.batch_size, BATCH), compile=False)
    known = rows["forget"] + rows["retain"]

    def train(network: nn.Module) -> None:
        list(training.fit(network, data, known, short, seed=0, device=device))

    def store(network: nn.Module) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            artifacts.write_tensors(path, network.state_dict(), about)
            load_model(path)

    def stack(_: nn.Module) -> None:
        seeds = (0, 1)
        networks = [workspace.new_model(data, seed, "ensemble.network")[0] for seed in seeds]
        networks = [network.to(device) for network in networks]
        list(ensemble.fit(networks, data, known, short, seeds=seeds, device=device))

    faults = []
    for trial in rehearse(
        model.to(device),
        Classification(mean=data.mean, std=data.std, scale=data.scale),
        sets,
        influence=params.load(workspace.root, "influence", influences.Config),
        methods=methods,
        classes=classes,
        also={"train": train, "model.safetensors": store}
        | ({"ensemble": stack} if params.section(workspace.root, "ensemble.families") else {}),
    ):
        if trial.fault:
            faults.append(trial)
            print(f"rehearsed {trial.what}: does not work")
    print(f"rehearsed in {perf_counter() - begin:.1f} s")
    if faults:
        raise RehearsalError(_explained(faults))


def _forgotten_class(workspace: Workspace, data: LabelledImages) -> tuple[int, ...]:
    """One class that is to be forgotten whole, if any is."""
    split = params.load(workspace.root, "split", splitting.Config)
    if split.scenario != "class":
        return ()
    known = [data.classes.index(name) for name in split.by_class.classes if name in data.classes]
    return tuple(known[:1])


def _samples(data: LabelledImages, rows: list[int], name: str, device: torch.device) -> Samples:
    """As stages take them: those of the forget set in [0, 1]."""
    images, labels = pixels(data, rows, device)
    return Samples(images.float() / data.scale if name == "forget" else images, labels)


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
