"""What follows sequences of states."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imu.serving import network, tensor


class Model:
    """The network, as ``network``, and what it takes and gives."""

    def __init__(self, path: Path):
        from imu.objectives.sequences import objective

        self.network, about = network(path)
        self.objective = objective(about)
        self.states: int = about["states"]

    def predict(self, sequences: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Probabilities (n, states) of the state after sequences (n, length) of int64.

        Raises ValueError for other numbers, for a state that there is not, and for sequences of no
        state.
        """
        import torch

        given = np.ascontiguousarray(sequences)
        if given.dtype.kind not in "iu":
            raise ValueError(f"sequences must be int64, got {given.dtype}")
        seen = torch.from_numpy(given.astype(np.int64))
        if seen.dim() != 2 or seen.shape[1] < 1:
            raise ValueError(
                f"sequences must have the shape (n, 1 or more), got {tuple(seen.shape)}"
            )
        if seen.numel() and not 0 <= int(seen.min()) <= int(seen.max()) < self.states:
            raise ValueError(
                f"states must be in [0, {self.states}), got {int(seen.min())} to {int(seen.max())}"
            )
        with torch.inference_mode():
            return self.objective.logits(self.network, seen)[:, -1].softmax(1).numpy()


def packages(about: Mapping[str, Any]) -> tuple[str, ...]:
    return ("tokenizers",)  # which the networks for texts import


def signature(about: Mapping[str, Any]) -> dict[str, str]:
    return {
        "inputs": tensor("int64", [-1, -1]),
        "outputs": tensor("float32", [-1, about["states"]]),
    }
