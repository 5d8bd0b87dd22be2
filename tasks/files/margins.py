"""What families of many networks say of each sample."""

from safetensors.numpy import load_file  # a report need not import torch

from imu import metrics
from tasks.files import artifacts
from tasks.files.workspace import Workspace


def read_margins(workspace: Workspace, family: str) -> metrics.Family:
    """Raises ArtifactError where they are missing."""
    path = workspace.margins(family)
    artifacts.require(path)
    return metrics.Family(margins=load_file(path))
