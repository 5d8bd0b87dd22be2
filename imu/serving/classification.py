"""Class probabilities of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imu.objectives.classification import objective
from imu.serving import network, tensor

PACKAGES = ()


class Model:
    """The network, as ``network``, and what it takes and gives."""

    def __init__(self, path: Path):
        self.network, about = network(path)
        self.classes: list[str] = about["classes"]
        self.objective = objective(about)

    @torch.inference_mode()
    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Class probabilities (n, classes) of images as stored: uint8 (n, channels, h, w).

        Raises ValueError for other numbers, and for images brighter than the data can be.
        """
        check_stored(images, self.objective.scale)
        logits = self.objective.logits(self.network, torch.from_numpy(images))
        return logits.softmax(1).numpy()


def check_stored(images: np.ndarray, scale: float) -> None:
    """Raises ValueError for what is not uint8 of 0 to ``scale``."""
    brightest = images.max(initial=0)
    if images.dtype != np.uint8 or brightest > scale:
        raise ValueError(
            f"images must be uint8 of 0 to {scale:g}, as stored in data/, "
            f"got {images.dtype} up to {brightest:g}"
        )


def signature(about: Mapping[str, Any]) -> dict[str, str]:
    return {
        "inputs": tensor("uint8", [-1, *about["image"]]),
        "outputs": tensor("float32", [-1, len(about["classes"])]),
    }
