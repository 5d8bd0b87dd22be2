"""Image files of any size, decoded to squares."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
BLOCK = 256  # images that are held at once


def blocks(paths: Sequence[Path], names: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """The images at ``paths``, in order: uint8 arrays of shape (k, 3, size, size).

    names: of the images, for the error. Raises ValueError at the first that ``decoded`` refuses.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BLOCK):
            chosen = slice(start, start + BLOCK)
            sizes = [size] * len(paths[chosen])
            yield np.stack(list(pool.map(decoded, paths[chosen], names[chosen], sizes)))


def decoded(path: Path, name: str, size: int) -> np.ndarray:
    """One image as RGB, (3, size, size), uint8.

    The shorter side is scaled to ``size`` pixels (bilinear, antialiased), the longer one is
    cropped to its middle; an image of size×size stays as it is. The orientation that a camera
    noted is ignored. Raises ValueError, naming ``name``, when ``path`` is no readable image of
    8 bits per channel.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
            colours = image.convert("RGB")
    # A damaged file makes Pillow's decoders raise almost anything.
    except Exception as error:
        raise ValueError(f"{name} is not a readable image: {error}") from error
    if mode == "F" or mode.startswith("I"):  # Pillow would cut their values off at 255
        raise ValueError(f"{name} has pixels of mode {mode}, must have 8 bits per channel")
    width, height = colours.size
    width, height = (side * size // min(width, height) for side in (width, height))
    scaled = colours.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(scaled.crop((left, top, left + size, top + size))).transpose(2, 0, 1)
