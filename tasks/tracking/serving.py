"""Load a logged model for serving: ``mlflow.pyfunc.load_model("models:/…")`` calls this file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from imu.objectives import normalised
from tasks.files.workspace import load_model


class Classifier:
    def __init__(self, path: Path):
        self.model, self.about = load_model(path)
        self.model.eval()

    @torch.inference_mode()
    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Class probabilities (n, classes) of images as stored: uint8 (n, channels, h, w)."""
        pixels = self.about["pixels"]
        inputs = normalised(
            torch.from_numpy(images), pixels["scale"], tuple(pixels["mean"]), tuple(pixels["std"])
        )
        return self.model(inputs).softmax(1).numpy()


def _load_pyfunc(path: str) -> Classifier:
    return Classifier(Path(path))
