"""Any folder of images: ``<class>/**/<image>``, the layout of torchvision's ``ImageFolder``.

Or ``train/<class>/**/<image>`` and ``test/<class>/**/<image>``, where the test images count as
set apart by the authors. Hidden files and files that are no images are passed over.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imu.datasets import LabelledImages, Source
from imu.datasets.common import decoding, packed

NAME = "image_folder"
PARTS = ["test", "train"]


class Image(NamedTuple):
    path: Path
    label: str
    test: bool


def write(folder: Path, source: Source) -> None:
    """Decode the images below ``source.path`` to size×size pixels, RGB, and pack them.

    The training images come first; within a part they are sorted by class and path. An id is the
    path below ``source.path``.

    Raises FileNotFoundError when there is no such folder. Raises ValueError, naming the folder or
    the file, when there are fewer than two classes, a class is empty, the classes of the two
    parts differ, or an image cannot be read.
    """
    root = Path(source.path)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root} to take images from")
    listed = _listed(root)
    classes = sorted({image.label for image in listed})
    is_test = np.array([image.test for image in listed])
    paths = [image.path for image in listed]
    packed.write(
        folder,
        NAME,
        decoding.blocks(paths, [str(path) for path in paths], source.size),
        labels=np.searchsorted(classes, [image.label for image in listed]),
        ids=[path.relative_to(root).as_posix() for path in paths],
        classes=classes,
        published_test=is_test if is_test.any() else None,
        source=source,
    )


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (n, 3, size, size). Raises as ``packed.load`` does."""
    return packed.load(folder, NAME)


def _listed(root: Path) -> list[Image]:
    if _folders(root) != PARTS or not all(_folders(root / part) for part in PARTS):
        return _of_part(root, _classes(root), test=False)
    classes = {part: _classes(root / part) for part in PARTS}
    for part, other in (PARTS, PARTS[::-1]):
        if missing := sorted(set(classes[other]) - set(classes[part])):
            raise ValueError(
                f"{root / part} has no folder {missing[0]!r}, which {root / other} has: the "
                "training and the test part must have the same classes"
            )
    return _of_part(root / "train", classes["train"], test=False) + _of_part(
        root / "test", classes["test"], test=True
    )


def _of_part(part: Path, classes: list[str], *, test: bool) -> list[Image]:
    return [Image(path, label, test) for label in classes for path in _images_below(part / label)]


def _classes(part: Path) -> list[str]:
    found = _folders(part)
    if len(found) < 2:
        raise ValueError(
            f"{part} must have a folder of images for each of 2 or more classes, "
            f"it has {', '.join(map(repr, found)) or 'none'}"
        )
    return found


def _folders(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    found = sorted(
        Path(place, file)
        for place, _, files in os.walk(folder, followlinks=True)
        for file in files
        if file.lower().endswith(decoding.SUFFIXES) and not file.startswith(".")
    )
    if not found:
        raise ValueError(
            f"{folder} holds no image: remove it, or put in files that end in "
            f"{', '.join(decoding.SUFFIXES)}"
        )
    return found
