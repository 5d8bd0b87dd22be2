"""The samples of a manifest as the library takes them."""

from collections.abc import Mapping
from typing import Any

import torch

from imu import discovery
from imu.datasets import Dataset
from imu.objectives import Objective, Samples
from tasks.files.workspace import Workspace


def load_samples(
    workspace: Workspace,
    name: str,
    data: Dataset,
    about: Mapping[str, Any],
    device: torch.device,
    *,
    stored: bool = False,
) -> tuple[Samples, Objective]:
    """What the manifest ``name`` lists as a network takes it, and how that network is asked.

    about: the network's description. Images are as stored; those of the forget set are in [0, 1],
    for methods that perturb them, unless ``stored``.
    Raises ArtifactError when a sample is not the one that was split.
    """
    objective = discovery.load("imu.objectives", about["objective"])
    rows = workspace.rows(name, data)
    perturbed = name == "forget" and not stored
    found: Samples = objective.samples(data, rows, about, device, perturbed=perturbed)
    return found, objective.objective(about)


def labels_of(workspace: Workspace, name: str) -> torch.Tensor:
    """Label of every sample that the manifest ``name`` lists: (n,)."""
    return torch.tensor(workspace.read_manifest(name)["label"].to_numpy())
