"""Features of images of people: the cosine of two says how alike their people are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imu.serving import network, tensor
from imu.serving.classification import stored


class Model:
    """The network, as ``network``, and what it takes and gives."""

    def __init__(self, path: Path):
        from imu.objectives.identification import objective

        self.network, about = network(path)
        self.people: list[str] = about["classes"]  # whom it was trained on
        self.image: list[int] = about["image"]  # channels, height, width
        self.objective = objective(about)

    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Features (n, d) of length 1 of images as stored: uint8 (n, channels, h, w).

        Their products are cosines: the largest names the gallery image that is most alike.
        Raises ValueError as images of classes do.
        """
        import torch

        from imu.objectives import features_and_logits

        given = stored(images, self.image, self.objective.scale)
        with torch.inference_mode():
            features, _ = features_and_logits(self.network, self.objective, given)
            return torch.nn.functional.normalize(features, dim=1).numpy()


def packages(about: Mapping[str, Any]) -> tuple[str, ...]:
    return ()


def signature(about: Mapping[str, Any]) -> dict[str, str]:
    return {
        "inputs": tensor("uint8", [-1, *about["image"]]),
        "outputs": tensor("float32", [-1, -1]),
    }
