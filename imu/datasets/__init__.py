"""One data set per file; a file offers ``write(folder)`` and ``load(folder) -> LabelledImages``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images and labels as stored, before normalisation.

    images: uint8 array of shape (n, channels, height, width); it may be a memory map.
    labels: int64 array of shape (n,), values in [0, len(classes)).
    ids: str array of shape (n,), unique; what an erasure request names.
    classes: one name per class.
    scale, mean, std: a pixel x becomes (x / scale - mean) / std, which has mean 0 and standard
    deviation 1 over the data set, to 0.01. One mean and one std per channel.
    published_test: bool array of shape (n,), the samples that the data set's authors set apart
    for testing; None where they set none apart.
    attributes: name -> str array of shape (n,), what else is known of a sample, such as "subject".

    Raises ValueError where these shapes do not fit.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    classes: tuple[str, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    published_test: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                "images must be uint8 of shape (n, channels, height, width), got "
                f"{self.images.dtype} of shape {self.images.shape}"
            )
        n, channels = self.images.shape[:2]
        for name in ("mean", "std"):
            if len(getattr(self, name)) != channels:
                raise ValueError(
                    f"{name} must have one number for each of {channels} channels, "
                    f"got {getattr(self, name)}"
                )
        arrays = {"labels": self.labels, "ids": self.ids, **self.attributes}
        if self.published_test is not None:
            arrays["published_test"] = self.published_test
        for name, array in arrays.items():
            if array.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), got {array.shape}")
