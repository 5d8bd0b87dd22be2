"""A stored model, loaded where there is no pipeline: from its one file, or by MLflow.

``mlflow.pyfunc.load_model`` and ``mlflow models serve`` call ``_load_pyfunc``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from imu import discovery
from imu.objectives.classification import normalised


class Classifier:
    """The network of a ``model.safetensors``, as ``network``, and what it takes and gives."""

    def __init__(self, path: Path):
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        module = discovery.load("imu.models", about["network"])
        self.classes: list[str] = about["classes"]
        self.pixels: dict[str, Any] = about["pixels"]
        config = module.Config(**about["config"])
        self.network = module.build(config, tuple(about["image"]), len(self.classes)).eval()
        self.network.load_state_dict(tensors)

    @torch.inference_mode()
    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Class probabilities (n, classes) of images as stored: uint8 (n, channels, h, w)."""
        pixels = self.pixels
        inputs: Tensor = normalised(
            torch.from_numpy(images), pixels["scale"], tuple(pixels["mean"]), tuple(pixels["std"])
        )
        return self.network(inputs).softmax(1).numpy()


def _load_pyfunc(path: str) -> Classifier:
    return Classifier(Path(path))
