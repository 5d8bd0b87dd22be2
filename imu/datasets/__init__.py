"""One data set per file; a file offers ``write(folder)`` and ``load(folder) -> LabelledImages``."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images and labels as stored, before normalisation.

    images: uint8 array of shape (n, channels, height, width).
    labels: int64 array of shape (n,), values in [0, len(classes)).
    ids: str array of shape (n,), unique; what an erasure request names.
    classes: one name per class.
    scale, mean, std: a pixel x becomes (x / scale - mean) / std, which has mean 0 and standard
    deviation 1 over the data set, to 0.01.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    classes: tuple[str, ...]
    scale: float
    mean: float
    std: float
