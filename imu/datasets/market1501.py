"""Market-1501: people on a campus, seen by six cameras, and any data in its folder layout.

Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015. Nothing is downloaded:
its authors hand it out. ``source.path`` holds

    bounding_box_train    people to train on
    query                 others, who are searched for
    bounding_box_test     where they are searched for: the gallery

of files such as ``0002_c1s1_000451_03.jpg``: person, camera (and sequence), frame, number of the
box. In the gallery the person ``0000`` is a distractor, nobody who is searched for, and counts as
wrong; ``-1`` is junk, a box that holds nobody well, and is left out. Other files, such as
``Thumbs.db``, and other folders are passed over. MSMT17 or DukeMTMC-reID renamed to this layout
are read as well.

Of each person trained on some images are held out, see ``common/people.py``; so a network here is
trained on fewer images than those that others report.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from imu.datasets import LabelledImages, Source
from imu.datasets.common import decoding, people
from imu.datasets.common.people import Sighting

OBJECTIVE = people.OBJECTIVE
OF_THE_USER = True
NAME = "market1501"
FOLDERS: dict[str, Literal["train", "query", "gallery"]] = {
    "bounding_box_train": "train",
    "query": "query",
    "bounding_box_test": "gallery",
}
FORM = re.compile(r"(?P<person>-1|\d+)_c(?P<camera>\d+)(s\d+)?_.+")
NOBODY, DISTRACTOR = "-1", 0
TALL = 2  # height over width, as in the field
SETTINGS = ("path", "size")


def write(folder: Path, source: Source) -> None:
    """Decode the images to ``source.size`` pixels in width and twice that in height; pack them.

    An id is the name of the file with its folder. Sides are scaled each, as in the field.

    Raises FileNotFoundError for a folder that is not there. Raises ValueError, naming the file,
    for a name of another form, junk or a distractor outside of the gallery, and an image that
    cannot be read; and as ``people.pack`` does.
    """
    root, notes = Path(source.path), Counter[str]()
    if missing := [name for name in FOLDERS if not (root / name).is_dir()]:
        raise FileNotFoundError(
            f"there is no folder {root / missing[0]}: put the folders {', '.join(FOLDERS)} of "
            f"Market-1501 into {root}, or set data.path to where they lie"
        )
    found = [
        _seen(path, part)
        for name, part in FOLDERS.items()
        for path in sorted((root / name).iterdir())
        if path.name.lower().endswith(decoding.SUFFIXES) and not path.name.startswith(".")
    ]
    for part in FOLDERS.values():
        if not any(seen.part == part for seen in found):
            raise ValueError(f"{root}: the folder of the part {part!r} holds no image")
    notes["distractors in the gallery"] = sum(int(s.person) == DISTRACTOR for s in found)
    notes["junk, left out of every search"] = sum(s.part == "junk" for s in found)

    def images(seen: Sequence[Sighting]) -> Iterator[np.ndarray]:
        paths = [root / s.id for s in seen]
        shape = Source(path=source.path, size=source.size, fit="stretch")
        return decoding.blocks(paths, [str(path) for path in paths], shape, notes, TALL)

    people.pack(folder, NAME, found, images, source=source, settings=SETTINGS, notes=notes)


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (n, 3, 2 · size, size). Raises as ``packed.load`` does."""
    return people.load(folder, NAME)


def _seen(path: Path, part: Literal["train", "query", "gallery"]) -> Sighting:
    name = FORM.fullmatch(path.stem)
    if name is None:
        raise ValueError(
            f"{path}: the name must be of the form 0002_c1s1_000451_03.jpg: person, camera, the "
            "rest; persons are numbers, and -1 is junk"
        )
    person, asked = name["person"], part == "gallery"
    if not asked and int(person) <= DISTRACTOR:
        what = "junk" if person == NOBODY else "a distractor"
        raise ValueError(f"{path}: {what} ({person}) may lie in the gallery alone")
    return Sighting(
        f"{path.parent.name}/{path.name}",
        person,
        str(int(name["camera"])),
        "junk" if person == NOBODY else part,
    )
