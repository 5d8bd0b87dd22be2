"""The samples of a manifest as the library takes them."""

import torch

from imu import training
from imu.datasets import LabelledImages
from imu.objective import Classification, Samples
from tasks.workspace import Workspace


def load_samples(
    workspace: Workspace, name: str, data: LabelledImages, device: torch.device
) -> tuple[Samples, Classification]:
    """Images in [0, 1] and labels that the manifest ``name`` lists, and how a network sees them.

    Raises ArtifactError when a sample is not the one that was split.
    """
    images, labels = training.pixels(data, workspace.rows(name, data), device)
    samples = Samples(images.float() / data.scale, labels)
    return samples, Classification(mean=data.mean, std=data.std)
