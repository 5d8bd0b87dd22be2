"""Images of people as cameras saw them: who is trained on, who is asked for, and where.

The field divides by people: those of the training set, and others, whose *query* images are
searched for in a *gallery* (Zheng et al. 2015, Market-1501). Whoever is forgotten was trained on,
so their retrieval needs images of them that no model saw. Some images of every person trained on
are therefore held out: of each camera the last quarter in the order of their ids, which in the
field's names is that of time, at least one. Each of them is searched for, and in the gallery for
the others: an image never finds itself, as what the query's own camera saw of its person is left
out. A camera with four images or more gives as many again, those before, to validation.

    part          of the training people          of others
    train         all that is not held out        none
    validation    held out, never in a gallery    none
    test          held out, "query and gallery"   "query", "gallery"; junk, which has no role

So a model is asked for (a) forgotten people and (b) people who stay, both trained on by the
original, and (c) people whom no model saw. Whom nothing is left of to train on is left out.

Labels 0 … k − 1 are the people trained on, those above are others. Attributes: ``subject``, the
person; ``camera``; ``role``.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from imu.datasets import LabelledImages, Source
from imu.datasets.common import packed
from imu.datasets.common.listing import PARTS

OBJECTIVE = "identification"
HELD = 4  # of so many images of a camera one is held out
QUERY, GALLERY, JUNK = "query", "gallery", "junk"
BOTH = f"{QUERY} and {GALLERY}"
LEFT_OUT = "people left out, of whom nothing would be left to train on"
UNANSWERED = "queries without an answer, as no other camera saw their person; they are not asked"


class Sighting(NamedTuple):
    """An image of a person. id: the name of its file."""

    id: str
    person: str
    camera: str
    part: Literal["train", "query", "gallery", "junk"]


class Placed(NamedTuple):
    seen: Sighting
    part: str  # one of PARTS
    role: str


def pack(
    folder: Path,
    name: str,
    sightings: Sequence[Sighting],
    images: Callable[[Sequence[Sighting]], Iterable[np.ndarray]],
    *,
    source: Source,
    settings: Sequence[str],
    notes: Counter[str],
) -> None:
    """Divide images as above and write them into ``folder``, all or nothing.

    images: those of some sightings, in order, in blocks as ``packed.write`` takes them. source,
    settings, notes: as there; what was left out is added to the notes.

    Raises ValueError, naming the person, for one trained on whom a single camera saw or who is
    asked for as well; when fewer than two are left; and when nobody can be asked for.
    """
    trained = _held_out([s for s in sightings if s.part == "train"], notes)
    asked = [
        Placed(s, "test", s.part if s.part != JUNK else "") for s in sightings if s.part != "train"
    ]
    people = sorted({p.seen.person for p in trained})
    if len(people) < 2:
        raise ValueError(f"{source.path}: there must be 2 or more people to train on")
    if both := sorted(set(people) & {p.seen.person for p in asked}):
        raise ValueError(
            f"person {both[0]!r} is among those trained on and among those asked for: no image of "
            "the latter may be known"
        )
    placed = sorted([*trained, *asked], key=lambda p: (PARTS.index(p.part), p.role, p.seen.id))
    others = sorted({p.seen.person for p in asked})
    number = {person: k for k, person in enumerate([*people, *others])}
    role, part = np.array([p.role for p in placed]), np.array([p.part for p in placed])
    labels = np.array([number[p.seen.person] for p in placed])
    cameras = np.array([p.seen.camera for p in placed])
    if unanswered := int((~answered(labels, cameras, role)).sum()):
        notes[UNANSWERED] = unanswered
    packed.write(
        folder,
        name,
        images([p.seen for p in placed]),
        labels=labels,
        ids=[p.seen.id for p in placed],
        classes=[*people, *others],
        published_test=part == "test",
        published_validation=part == "validation",
        attributes={
            "subject": [p.seen.person for p in placed],
            "camera": cameras.tolist(),
            "role": role.tolist(),
        },
        source=source,
        settings=settings,
        notes=notes,
    )


def load(folder: Path, name: str) -> LabelledImages:
    """Read what ``pack`` wrote. Raises as ``packed.load`` does."""
    return replace(packed.load(folder, name), objective=OBJECTIVE)


def trained_on(data: LabelledImages) -> int:
    """How many people are trained on; their labels come first.

    Raises ValueError where the images have no part of their own.
    """
    if data.published_test is None or data.published_validation is None:
        raise ValueError("images of people must have a part: train, validation or test")
    return 1 + int(data.labels[~(data.published_test | data.published_validation)].max())


def answered(labels: np.ndarray, cameras: np.ndarray, roles: np.ndarray) -> np.ndarray:
    """Which images another camera's gallery image answers, or are no query, (n,) bool."""
    where = defaultdict(set)
    for label, camera, role in zip(labels.tolist(), cameras, roles, strict=True):
        if role in (GALLERY, BOTH):
            where[label].add(camera)
    return np.array(
        [
            role not in (QUERY, BOTH) or bool(where[label] - {camera})
            for label, camera, role in zip(labels.tolist(), cameras, roles, strict=True)
        ],
        bool,
    )


def _held_out(sightings: Sequence[Sighting], notes: Counter[str]) -> list[Placed]:
    """Where each image of the people trained on goes."""
    by_person: dict[str, dict[str, list[Sighting]]] = defaultdict(lambda: defaultdict(list))
    for seen in sorted(sightings, key=lambda s: s.id):
        by_person[seen.person][seen.camera].append(seen)
    placed = []
    for person, cameras in sorted(by_person.items()):
        if len(cameras) < 2:
            raise ValueError(
                f"person {person!r} was seen by camera {next(iter(cameras))} alone, and cannot be "
                "searched for: each person trained on must be seen by 2 cameras or more"
            )
        theirs = []
        for images in cameras.values():
            held = max(1, len(images) // HELD)
            kept = len(images) - held - (held if len(images) >= HELD else 0)
            parts = ["train"] * kept + ["validation"] * (len(images) - held - kept)
            theirs += [
                Placed(seen, part, BOTH if part == "test" else "")
                for seen, part in zip(images, parts + ["test"] * held, strict=True)
            ]
        if any(p.part == "train" for p in theirs):
            placed += theirs
        else:
            notes[LEFT_OUT] += 1
    return placed
