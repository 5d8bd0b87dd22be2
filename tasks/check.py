"""Every parameter at once, before anything runs, as far as that goes without the data."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imu import discovery, influences, splitting, training, verdicts
from imu.bounds import MOST
from imu.datasets import Source
from imu.influences.parameters import chosen
from imu.methods.common.block import last_block
from tasks import ensemble, retrain, unlearn
from tasks.files import params
from tasks.files.params import ParameterError
from tasks.files.workspace import OWN, Original, Pixels, Runtime, Seed, Workspace

IMAGES = "classification"  # what a file is for that does not say
# What the names of a network's layers do not hang on: an image and classes, or a vocabulary.
SHAPE, VOCABULARY = ((3, 32, 32), 10), 100
STEPS = ("epochs", "max_epochs", "max_steps")  # fields of methods: 0 leaves the model as it was
SECTIONS = {
    "seed": Seed,
    "snapshots": int,
    "runtime": Runtime,
    "data": Source,
    "split": splitting.Config,
    "original": Original,
    "pixels": Pixels,
    "train": training.Config,
    "influence": influences.Config,
    "verdict": verdicts.Config,
}


def everything(workspace: Workspace, *, elsewhere: bool = False) -> None:
    """Check all of ``params.yaml``. Raises ParameterError at the first fault.

    elsewhere: stages may run on other hosts, so that this one needs no GPU.
    """
    root = workspace.root
    known = {*SECTIONS, "network", "ensemble", "retrain", "unlearn"}
    if unknown := sorted(params.read(root).keys() - known):
        raise ParameterError(
            f"{params.FILE}: unknown section {unknown[0]}; known are {', '.join(sorted(known))}"
        )
    params.require_safe(root, params.read(root))
    for name, config in SECTIONS.items():
        params.load(root, name, config)
    params.load(root, "ensemble", ensemble.Config, without=("network",))
    unlearn.Trajectory({}, params.load(root, "snapshots", int))  # knows how many there must be
    _require_request(root)
    _require_name(root, "split.dataset", "imu.datasets")
    for section in ("network", "ensemble.network"):
        network = discovery.load("imu.models", _require_name(root, f"{section}.name", "imu.models"))
        config = params.load(root, section, network.Config, without=("name",))
        if hasattr(network, "source_file"):
            _require_own(root, section, network.source_file(config))
    kinds = {
        where: getattr(discovery.load(package, params.section(root, where)), "OBJECTIVE", IMAGES)
        for where, package in (("split.dataset", "imu.datasets"), ("network.name", "imu.models"))
    }
    objective = discovery.load("imu.objectives", kinds["split.dataset"])
    if kinds["network.name"] != getattr(objective, "NETWORKS", kinds["split.dataset"]):
        said = ", ".join(
            f"{where} {params.section(root, where)!r} for {kinds[where]}" for where in kinds
        )
        raise ParameterError(f"{params.FILE}: data and network must be of one kind, got {said}")
    given = workspace.original.checkpoint
    if given and not (root / given).is_file():
        raise ParameterError(f"{params.FILE}: original.checkpoint: there is no file {given}")
    batch = params.load(root, "train", training.Config).batch_size
    processes = params.load(root, "runtime", Runtime).processes
    if batch % processes:
        raise ParameterError(
            f"{params.FILE}: train.batch_size ({batch}) must be divisible by runtime.processes "
            f"({processes})"
        )
    _require_seeds(root)
    if not params.section(root, "unlearn"):
        raise ParameterError(
            f"{params.FILE}: unlearn must have at least one entry, such as one of the method "
            "nothing where only retraining is wanted; got none"
        )
    model = _model(root)
    if model:
        named = params.load(root, "influence", influences.Config).parameters
        _require_layers("influence.parameters", model, named)
    for item in params.section(root, "unlearn"):
        if item in (*params.section(root, "retrain"), "original"):
            raise ParameterError(
                f"{params.FILE}: unlearn.{item}: a name must not stand in retrain as well, nor be "
                "original"
            )
        _require_name(root, f"unlearn.{item}.method", "imu.methods")
        config = unlearn.configured(workspace, item).config
        _require_steps(f"unlearn.{item}", config)
        if model:
            _require_layers(f"unlearn.{item}.layers", model, getattr(config, "layers", ()))
            if params.section(root, "split.scenario") == "class":
                _require_entrance(f"unlearn.{item}", model, config)
    if not elsewhere:
        workspace.device()
    print("parameters are valid")


def _model(root: Path) -> nn.Module | None:
    """The network, without weights. None: it is the user's, or hangs on the data."""
    network = discovery.load("imu.models", params.section(root, "network.name"))
    if hasattr(network, "source_file") or hasattr(network, "pretrained"):
        return None
    config = params.load(root, "network", network.Config, without=("name",))
    words = getattr(network, "OBJECTIVE", IMAGES) == "language"
    try:
        with torch.device("meta"):
            model: nn.Module = network.build(config, *((VOCABULARY,) if words else SHAPE))
    except ValueError:  # it takes images of another size
        return None
    return model


def _require_layers(where: str, model: nn.Module, names: tuple[str, ...]) -> None:
    try:
        if names:
            chosen(model, names)
    except ValueError as error:
        raise ParameterError(f"{params.FILE}: {where}: {error}") from error


def _require_entrance(where: str, model: nn.Module, config: Any) -> None:
    """Something lies before the blocks that a method trains, where it moves what enters them."""
    count = getattr(config, "blocks", 0)
    if not count or config.layers or not config.neighbours:
        return
    whole = last_block(model, MOST)
    there = next(n for n in range(1, MOST) if last_block(model, n) == whole)
    if there == 1:
        raise ParameterError(
            f"{params.FILE}: {where}.neighbours must be 0, as this network has one block before "
            f"its head and nothing lies before that, got {config.neighbours:g}"
        )
    if count >= there:
        raise ParameterError(
            f"{params.FILE}: {where}.blocks must be in [1, {there - 1}] where neighbours are "
            f"moved, as this network has {there} before its head, got {count}"
        )


def _require_steps(where: str, config: Any) -> None:
    for path, value in params.flattened(asdict(config)).items():
        if path.split(".")[-1] in STEPS and value == 0:
            raise ParameterError(
                f"{params.FILE}: {where}.{path} must be >= 1, got 0: the model would stay as it "
                "is, which the method nothing is for"
            )


def _require_name(root: Path, where: str, package: str) -> str:
    name, choices = params.section(root, where), discovery.names(package)
    if name not in choices:
        raise ParameterError(
            f"{params.FILE}: {where} must be one of {', '.join(choices)}, got {name!r}"
        )
    return name


def _require_request(root: Path) -> None:
    """What is to be forgotten is named, as far as can be told without the data."""
    split = params.load(root, "split", splitting.Config)
    named = {
        "class": ("by_class.classes", split.by_class.classes),
        "group": ("by_group.values", split.by_group.values),
        "subject": ("by_subject.subjects", split.by_subject.subjects),
    }
    where, names = named.get(split.scenario, ("", ("",)))
    if not names:
        raise ParameterError(f"{params.FILE}: split.{where} must name at least one")
    if split.scenario == "ids" and not (root / split.by_ids.file).is_file():
        raise ParameterError(f"{params.FILE}: split.by_ids.file: there is no {split.by_ids.file}")
    if not (root / split.forgotten_before).is_file():
        raise ParameterError(
            f"{params.FILE}: split.forgotten_before: there is no {split.forgotten_before}; a list "
            "of nothing is a file with the one line `id`"
        )


def _require_seeds(root: Path) -> None:
    """There is a reference, and every retrained model has a seed of its own."""
    params.section(root, "retrain.reference")
    items: dict[int, str] = {}
    for item in params.section(root, "retrain"):
        offset = params.load(root, f"retrain.{item}", retrain.Config).seed_offset
        if offset in items:
            raise ParameterError(
                f"{params.FILE}: retrain.{item}.seed_offset must differ from that of "
                f"{items[offset]}, got {offset}: it would be the same model"
            )
        items[offset] = item


def _require_own(root: Path, section: str, file: Path) -> None:
    """Code of this folder must lie where stages see that it changed; packages may lie elsewhere."""
    watched = any(file.is_relative_to(root / folder) for folder in (OWN, ".venv"))
    if file.is_relative_to(root) and not watched:
        raise ParameterError(
            f"{params.FILE}: {section}.factory: {file.relative_to(root)} must lie in {OWN}/, "
            "which stages depend on"
        )
