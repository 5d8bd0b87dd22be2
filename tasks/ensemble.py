"""Train families of many small networks, for the tests that need many models (U-LiRA, KLoM).

original: on the training set; each method unlearns every one of them. oracle: on the retain set,
so that they never saw the forget set. retrained: as oracle, with other seeds.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from imu import ensemble, training
from imu.bounds import check_fields
from imu.datasets import LabelledImages
from imu.objectives import predictions
from tasks.files import artifacts, params
from tasks.files.samples import load_samples
from tasks.files.workspace import Stopwatch, Workspace, built

SETS = ("forget", "retain", "validation")
IMAGES_ALONE = (
    f"{params.FILE}: ensemble.families must be none where the data are texts: many networks are "
    "trained together on images alone"
)
MOST = 1000  # networks in a family


class Family(NamedTuple):
    manifest: Literal["train", "retain"]  # what its networks are trained on
    number: int  # sets its seeds apart from those of the other families


FAMILIES = {
    "original": Family("train", 1),
    "oracle": Family("retain", 2),
    "retrained": Family("retain", 3),
}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    manifest: Literal["train", "retain"]


@dataclass(frozen=True, kw_only=True)
class Method:
    method: str  # that of the entry: its file is what the stage depends on


@dataclass(frozen=True, kw_only=True)
class Config:
    members: int = 16  # networks in each family
    families: dict[str, Manifest] = field(default_factory=dict)  # none, or all of ``FAMILIES``
    judged: dict[str, Method] = field(
        default_factory=dict
    )  # entries of `unlearn`, by many networks

    def __post_init__(self) -> None:
        check_fields(self, members=f"in [3, {MOST}]")
        every = {name: Manifest(manifest=family.manifest) for name, family in FAMILIES.items()}
        if self.families not in ({}, every):
            raise ValueError(f"families must be none or {every}, got {self.families}")
        if self.judged and not self.families:
            raise ValueError(f"judged needs families, got {', '.join(self.judged)} and none")


def seeds_of(item: str, seed: int, members: int) -> list[int]:
    """Seeds of a family. No two families share one, nor do those of different training seeds.

    Results over training seeds would not be independent otherwise.
    """
    first = (10 * seed + FAMILIES[item].number) * MOST
    return list(range(first, first + members))


def run(workspace: Workspace, item: str) -> float:
    if not workspace.original.retrain:  # without oracles they would tell nothing
        raise params.ParameterError(
            f"{params.FILE}: ensemble.families must be none where original.retrain is false"
        )
    params.section(workspace.root, f"ensemble.families.{item}")
    device, data = workspace.device(), workspace.dataset()
    if not isinstance(data, LabelledImages):
        raise params.ParameterError(IMAGES_ALONE)
    config = _config(workspace)
    recipe = params.load(workspace.root, "train", training.Config)
    family = FAMILIES[item]
    seeds = seeds_of(item, workspace.seed, config.members)
    made = [workspace.new_model(data, seed, "ensemble.network") for seed in seeds]
    networks, about = [network.to(device) for network, _ in made], made[0][1]
    rows = workspace.rows(family.manifest, data)
    watch = Stopwatch()
    progress = ensemble.fit(networks, data, rows, recipe, seeds=seeds, device=device)
    while True:
        with watch.running():
            epoch = next(progress, None)
        if epoch is None:
            break
        print(f"epoch {epoch.epoch}/{recipe.epochs}: loss {epoch.loss:.4f}")
    margins, right = {}, {}
    for name in SETS:
        samples, objective = load_samples(workspace, name, data, about, device)
        margins[name] = ensemble.margins(networks, objective, samples)
        found = [predictions(n, objective, samples.inputs).argmax(1) for n in networks]
        right[name] = (torch.stack(found) == samples.targets).double().mean().item()
    out = _out(workspace, item)
    artifacts.write_tensors(workspace.margins(item), margins, {})
    artifacts.write_tensors(out / "models.safetensors", _stored(networks), about)
    artifacts.write_json(
        out / "metrics.json",
        {f"{name}_accuracy": 100 * share for name, share in right.items()},
    )
    return watch.seconds


def read_networks(workspace: Workspace, item: str) -> tuple[list[nn.Module], dict[str, Any]]:
    """The networks of a family, and their description. Raises ArtifactError."""
    path = _out(workspace, item) / "models.safetensors"
    tensors, about = artifacts.read_tensors(path)
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, rest = name.partition("/")
        states.setdefault(number, {})[rest] = tensor
    return [built(path, state, about) for _, state in sorted(states.items(), key=_number)], about


def _config(workspace: Workspace) -> Config:
    return params.load(workspace.root, "ensemble", Config, without=("network",))


def _number(item: tuple[str, object]) -> int:
    return int(item[0])


def _stored(networks: list[nn.Module]) -> dict[str, Tensor]:
    """Tensors named "<member>/<parameter>"."""
    return {
        f"{number}/{name}": tensor
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def _out(workspace: Workspace, item: str) -> Path:
    return workspace.runs / "ensemble" / item
