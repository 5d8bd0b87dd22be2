"""Images and what is known of them: their classes, parts and names."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imu.datasets import Source, named
from imu.datasets.common import decoding, packed

PARTS = ("train", "validation", "test")
NAMED_PARTS = {  # what a part may be called
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
AS_TEST = "validation images, set apart for testing as there is no test part"
RENAMED = "names brought to one form (Unicode NFC, no spaces at the ends)"


class Listed(NamedTuple):
    """An image and what is known of it; names are in the form of ``named``."""

    path: Path
    where: str  # for errors
    id: str
    label: str
    part: str  # one of PARTS
    subject: str | None = None


def pack(
    folder: Path, name: str, images: Sequence[Listed], source: Source, notes: Counter[str]
) -> None:
    """Decode images and write them into ``folder``, part by part, otherwise in their order.

    notes: what was done to how many; decoding adds to it. Without a test part the validation
    part is what was set apart for testing.

    Raises ValueError, naming what is wrong, when an id is repeated, ``source.classes`` are not
    those of the images, or one cannot be read.
    """
    images = sorted(images, key=lambda image: PARTS.index(image.part))
    first: dict[str, str] = {}
    for image in images:
        if image.id in first:
            raise ValueError(
                f"{image.where}: the id {image.id!r} is already that of {first[image.id]}"
            )
        first[image.id] = image.where
    classes = ordered({image.label for image in images}, source.classes)
    number = {label: k for k, label in enumerate(classes)}
    parts = np.array([image.part for image in images])
    apart = [part for part in PARTS[1:] if (parts == part).any()]
    if apart == ["validation"]:
        notes[AS_TEST] = int((parts == "validation").sum())
    subjects = [image.subject for image in images if image.subject is not None]
    packed.write(
        folder,
        name,
        decoding.blocks(
            [image.path for image in images], [image.where for image in images], source, notes
        ),
        labels=np.array([number[image.label] for image in images]),
        ids=[image.id for image in images],
        classes=classes,
        published_test=parts == apart[-1] if apart else None,
        published_validation=parts == apart[0] if len(apart) == 2 else None,
        attributes={"subject": subjects} if subjects else None,
        source=source,
        notes=notes,
    )


def ordered(found: Iterable[str], wanted: Sequence[str] = ()) -> list[str]:
    """Classes in the order of their numbers: as ``wanted``, or sorted, as numbers if all are.

    So "2" comes before "10". Raises ValueError when other classes are wanted than were found.
    """
    there, classes = set(found), [named(name) for name in wanted]
    if not classes:
        numbers = all(re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", name) for name in there)
        return sorted(there, key=lambda name: (float(name) if numbers else 0, name))
    if len(set(classes)) < len(classes):
        raise ValueError(f"data.classes names a class more than once, got {classes}")
    if differ := sorted(there.symmetric_difference(classes)):
        fault = "lacks" if differ[0] in there else "names"
        raise ValueError(
            f"data.classes {fault} {differ[0]!r}; it must name each class of the data: "
            + ", ".join(map(repr, ordered(there)))
        )
    return classes
