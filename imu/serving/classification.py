"""Class probabilities of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imu.serving import network, tensor

if TYPE_CHECKING:
    import torch


class Model:
    """The network, as ``network``, and what it takes and gives."""

    def __init__(self, path: Path):
        from imu.objectives.classification import objective

        self.network, about = network(path)
        self.classes: list[str] = about["classes"]
        self.image: list[int] = about["image"]  # channels, height, width
        self.objective = objective(about)

    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Class probabilities (n, classes) of images as stored: uint8 (n, channels, h, w).

        Raises ValueError for other numbers, for another size or number of channels than the network
        was trained on, and for images brighter than the data can be.
        """
        import torch

        given = stored(images, self.image, self.objective.scale)
        with torch.inference_mode():
            return self.objective.logits(self.network, given).softmax(1).numpy()


def stored(images: np.ndarray, image: Sequence[int], scale: float) -> "torch.Tensor":
    """Raises ValueError for what is not uint8 of 0 to ``scale``, of shape (n, *image)."""
    import torch

    images = np.ascontiguousarray(images)
    if images.dtype != np.uint8 or images.max(initial=0) > scale:
        got = f" up to {images.max(initial=0):g}" if images.dtype.kind in "biuf" else ""
        raise ValueError(
            f"images must be uint8 of 0 to {scale:g}, as stored in data/, got {images.dtype}{got}"
        )
    if images.ndim != 4 or images.shape[1:] != tuple(image):
        sides = ", ".join(map(str, image))
        raise ValueError(f"images must have the shape (n, {sides}), got {images.shape}")
    return torch.from_numpy(images)


def packages(about: Mapping[str, Any]) -> tuple[str, ...]:
    return ()


def signature(about: Mapping[str, Any]) -> dict[str, str]:
    return {
        "inputs": tensor("uint8", [-1, *about["image"]]),
        "outputs": tensor("float32", [-1, len(about["classes"])]),
    }
