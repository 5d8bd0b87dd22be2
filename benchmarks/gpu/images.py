"""Where images come from: an archive of photographs, or a generator of random numbers."""

import tarfile
from pathlib import Path
from time import perf_counter

import numpy as np

from imu.datasets import LabelledImages, Source, image_folder

PACKED = "cifar10"  # folder of arrays
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def unpack(archive: Path | None, scratch: Path) -> dict[str, object]:
    """CIFAR-10 as a folder of JPEG images in an archive, decoded to arrays in ``scratch``."""
    if archive is None:
        return {"what": "no archive"}
    begin = perf_counter()
    folder = scratch / "images"
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    unpacked = perf_counter()
    image_folder.write(scratch / PACKED, Source(path=str(folder), size=32))
    return {
        "what": archive.name,
        "images": len(load(scratch).labels),
        "unpacking": unpacked - begin,
        "decoding": perf_counter() - unpacked,
    }


def load(scratch: Path) -> LabelledImages:
    return image_folder.load(scratch / PACKED)


def drawn(counts: tuple[int, int]) -> LabelledImages:
    """Noise around one pattern per class: something to learn where there are no photographs.

    counts: images of a class, for training and for testing.
    """
    draw, n = np.random.default_rng(0), len(CLASSES)
    labels = np.concatenate([np.repeat(np.arange(n), count) for count in counts])
    patterns = draw.integers(64, 192, (n, 3, 1, 1))
    noise = draw.integers(-64, 64, (len(labels), 3, 32, 32), dtype=np.int16)
    return LabelledImages(
        images=(patterns[labels] + noise).clip(0, 255).astype(np.uint8),
        labels=labels,
        ids=np.arange(len(labels)).astype(str),
        classes=CLASSES,
        scale=255.0,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        published_test=np.arange(len(labels)) >= n * counts[0],
    )
