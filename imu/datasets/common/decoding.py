"""Image files of any size, decoded to squares."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from imu.datasets import Source

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# What these may hold, whatever they are called. Of others Pillow would start Ghostscript for some.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
BLOCK = 256  # images that are held at once
LARGEST = 2**26  # pixels of an image that is scaled for a crop
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
TURNED = "images turned as their EXIF orientation says"
ON_WHITE = "images with transparency, put on white"


class Decoded(NamedTuple):
    """pixels: RGB, (3, tall · size, size), uint8."""

    pixels: np.ndarray
    turned: bool
    transparent: bool


def blocks(
    paths: Sequence[Path],
    names: Sequence[str],
    source: Source,
    notes: Counter[str],
    tall: int = 1,
) -> Iterator[np.ndarray]:
    """The images at ``paths``, in order: uint8 arrays of shape (k, 3, tall · size, size).

    names: of the images, for the error. notes: what was done to how many is added to it.

    Raises ValueError at the first that ``decoded`` refuses.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BLOCK):
            chosen = slice(start, start + BLOCK)
            sources = [source] * len(paths[chosen])
            shapes = [tall] * len(paths[chosen])
            done = list(pool.map(decoded, paths[chosen], names[chosen], sources, shapes))
            notes += Counter({TURNED: sum(image.turned for image in done)})
            notes += Counter({ON_WHITE: sum(image.transparent for image in done)})
            yield np.stack([image.pixels for image in done])


def decoded(path: Path, name: str, source: Source, tall: int = 1) -> Decoded:
    """One image, turned upright as its EXIF orientation says, what is transparent on white.

    With ``source.fit`` "crop" its shorter side is scaled to ``source.resize`` pixels and the
    middle is cut out; with "stretch" both sides are scaled. Both as torchvision's ``Resize``
    (bilinear, antialiased) and ``CenterCrop`` do it, to the pixel. tall: height over width of the
    result.

    Raises ValueError, naming ``name``, when ``path`` is no readable image of 8 bits per channel, or
    so long that its crop would take all memory.
    """
    from PIL import Image, ImageOps
    from torchvision.transforms import functional

    try:
        with Image.open(path, formats=FORMATS) as image:
            mode, turned = image.mode, _orientation(image) in range(2, 9)
            upright = ImageOps.exif_transpose(image) if turned else image
            transparent = _is_transparent(upright)
            if transparent:
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright.convert("RGBA"))
            colours = upright.convert("RGB")
    # A damaged file makes Pillow's decoders raise almost anything.
    except Exception as error:
        raise ValueError(f"{name} is not a readable image: {error}") from error
    if mode == "F" or mode.startswith("I"):  # Pillow would cut their values off at 255
        raise ValueError(f"{name} has pixels of mode {mode}, must have 8 bits per channel")
    size = [tall * source.size, source.size]
    if source.fit == "stretch":
        fitted = functional.resize(colours, size)
    else:
        short, long = sorted(colours.size)
        sides = source.resize or source.size, (source.resize or source.size) * long // short
        if sides[0] * sides[1] > LARGEST:
            raise ValueError(
                f"{name} is too long for a crop: {colours.width} × {colours.height} pixels, scaled "
                f"{sides[1]} long; must be at most {LARGEST // sides[0]}"
            )
        scaled = functional.resize(colours, [sides[0]])
        fitted = functional.center_crop(scaled, size)
    return Decoded(np.asarray(fitted).transpose(2, 0, 1), turned, transparent)


def _orientation(image: "Image") -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing; the pixels may be whole
        return 1


def _is_transparent(image: "Image") -> bool:
    if not image.has_transparency_data:
        return False
    return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
