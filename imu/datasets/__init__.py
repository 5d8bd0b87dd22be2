"""One data set per file, which offers ``write(folder, source)`` and ``load(folder)``.

``write`` makes a folder of arrays from a ``Source``; ``load`` reads it as ``LabelledImages``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ABOUT = "about.json"  # beside the arrays of a data set: what they are, and what they were made from


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a data set is made from.

    Raises ValueError where a field is out of range.
    """

    path: str = "downloads"  # folder of downloaded archives, folder of images, or table of images
    size: int = 32  # pixels per side, for image_folder and image_table

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a folder or a table, got ''")
        if self.size < 8:
            raise ValueError(f"size must be >= 8, got {self.size}")


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


def made_from(folder: Path) -> Source | None:
    """What the images in ``folder`` were made from; None where nothing else is possible."""
    try:
        recorded = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["source"]
        return Source(path=recorded["path"], size=recorded["size"])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # of a published data set, or damaged, which ``load`` explains
