"""The samples of a manifest as the library takes them."""

import torch

from imu.datasets import LabelledImages
from imu.datasets.common.tensors import pixels
from imu.objectives import Classification, Samples
from tasks.files.workspace import Workspace


def load_samples(
    workspace: Workspace,
    name: str,
    data: LabelledImages,
    device: torch.device,
    *,
    stored: bool = False,
) -> tuple[Samples, Classification]:
    """Images and labels that the manifest ``name`` lists, and how a network sees them.

    Images are as stored; those of the forget set are in [0, 1], for methods that perturb them,
    unless ``stored``.
    Raises ArtifactError when a sample is not the one that was split.
    """
    images, labels = pixels(data, workspace.rows(name, data), device)
    if name == "forget" and not stored:
        images = images.float() / data.scale
    return Samples(images, labels), Classification(mean=data.mean, std=data.std, scale=data.scale)
