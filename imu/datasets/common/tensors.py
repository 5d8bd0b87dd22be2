"""Samples of a data set as tensors."""

import numpy as np
import torch
from torch import Tensor

from imu.datasets import LabelledImages

Batch = tuple[Tensor, Tensor]  # images (n, channels, height, width), uint8, and labels (n,)


def pixels(data: LabelledImages, rows: list[int], device: torch.device) -> Batch:
    """Images (n, channels, height, width), uint8, and labels (n,) of the given rows."""
    images = torch.from_numpy(np.asarray(data.images[rows])).to(device)
    return images, torch.from_numpy(data.labels[rows]).to(device)
