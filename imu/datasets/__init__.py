"""One data set per file, which offers ``write(folder, source)`` and ``load(folder)``.

``write`` makes a folder of files from a ``Source``; ``load`` reads it as ``LabelledImages``, or as
the ``Texts`` of ``imu.datasets.common.texts`` where the file says ``OBJECTIVE = "language"``, or
as the ``Sequences`` beside them where it says "sequences".
``OF_THE_USER`` marks a file that reads what a user brings, which is rehearsed before it is used.
"""

import json
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from imu.bounds import MOST, SEED, check_fields

ABOUT = "about.json"  # beside the files of a data set: what they are, and what they were made from
PICTURES = ("path", "size", "fit", "resize", "classes")  # what of ``Source`` makes images
SHOWN = 30  # classes that a description lists


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a data set is made from.

    Raises ValueError where a field is out of range.
    """

    path: str = "downloads"  # folder of archives, images or texts; or a table of images or texts
    # pixels per side, for image_folder and image_table, as are those down to classes; and the width
    # of market1501
    size: int = 32
    fit: Literal["crop", "stretch"] = "crop"  # to the middle, or width and height each to size
    resize: int = 0  # pixels of the shorter side before the crop; 0: size
    classes: tuple[str, ...] = ()  # in the order of their numbers; none: in that of their names
    people: int = 60  # that biographies are written of, or identities drawn of
    seed: int = 0  # of the people and of what is true of them; of sequences
    states: int = 10  # of Markov chains, as are those below
    length: int = 20  # states of a sequence
    sequences: tuple[int, ...] = (10_000, 5_000, 5_000)  # of each chain
    leakage: float = 0.2  # probability to leave the states that a chain has for its own

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a folder or a table, got ''")
        check_fields(self, size="in [8, 4096]", people="in [3, 10000]", seed=SEED)
        check_fields(self, states="in [2, 1000]", length="in [2, 1000]", leakage="in [0, 1]")
        check_fields(self, resize="in [0, 65536]")
        several = 2 <= len(self.sequences) <= self.states
        if not several or not all(1 <= count <= MOST for count in self.sequences):
            raise ValueError(
                f"sequences must be a number in [1, {MOST}] for each of 2 to {self.states} chains "
                f"(states), got {self.sequences}"
            )
        if self.resize and (self.resize < self.size or self.fit == "stretch"):
            raise ValueError(
                f"resize must be 0, or >= size ({self.size}) where fit is 'crop', "
                f"got {self.resize} with {self.fit!r}"
            )


class Dataset(Protocol):
    """What the pipeline knows of any data set; the fields are as in ``LabelledImages``.

    objective: a file in ``imu/objectives``. together: an attribute, such as "subject", whose
    samples stay together when the set is split; "" for none.
    """

    @property
    def objective(self) -> str: ...
    @property
    def together(self) -> str: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def ids(self) -> np.ndarray: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def published_test(self) -> np.ndarray | None: ...
    @property
    def published_validation(self) -> np.ndarray | None: ...
    @property
    def attributes(self) -> Mapping[str, np.ndarray]: ...
    def content(self, row: int) -> bytes:
        """What is hashed to recognise a sample."""

    def summary(self) -> str:
        """What there is, in a line for people."""


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
    published_validation: likewise for validation.
    attributes: name -> str array of shape (n,), what else is known of a sample, such as "subject".
    objective: what is asked of them, a file in ``imu/objectives`` that takes images.

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
    published_validation: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    objective: str = "classification"
    together: ClassVar[str] = ""  # any sample may be split from any other

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
        for name in ("published_test", "published_validation"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        for name, array in arrays.items():
            if array.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), got {array.shape}")

    def content(self, row: int) -> bytes:
        """What makes a sample what it is: its pixels."""
        return self.images[row].tobytes()

    def summary(self) -> str:
        """How many, of which size, and the classes in the order of their numbers."""
        n, channels, height, width = self.images.shape
        counts = np.bincount(self.labels, minlength=len(self.classes))
        classes = [f"{k} {name!r} ({counts[k]})" for k, name in enumerate(self.classes)]
        if len(classes) > SHOWN:
            classes = [*classes[: SHOWN - 1], "…", classes[-1]]
        return (
            f"{n} images of {channels}×{height}×{width}, {len(self.classes)} classes in this "
            f"order: {', '.join(classes)}"
        )


def settings(folder: Path) -> tuple[str, ...]:
    """Names of those fields of ``Source`` that what lies in ``folder`` depends on."""
    try:
        recorded = _about(folder)["source"]
        if "images" in recorded:
            return PICTURES  # also where one of them came later than these images
        return tuple(f.name for f in fields(Source) if f.name in recorded)
    except (LookupError, TypeError):
        return ()


def made_from(folder: Path) -> Source | None:
    """What the samples in ``folder`` were made from; None where nothing else is possible.

    A setting that there was not yet when they were made has its default.
    """
    try:
        recorded = _about(folder)["source"]
        known = {f.name: recorded[f.name] for f in fields(Source) if f.name in recorded}
        lists = {name: tuple(of) for name, of in known.items() if isinstance(of, list)}
        return Source(**known | lists)
    except (ValueError, LookupError, TypeError):
        return None  # of a published data set, or damaged, which ``load`` explains


def described(folder: Path, data: Dataset) -> str:
    """What there is, how many samples each part has, and what was done when it was made.

    data: what ``folder`` holds.
    """
    lines = [data.summary()]
    parts = {
        name: int(apart.sum())
        for name, apart in (
            ("validation", data.published_validation),
            ("test", data.published_test),
        )
        if apart is not None
    }
    if parts:
        parts = {"train": len(data.ids) - sum(parts.values()), **parts}
        lines.append("parts: " + ", ".join(f"{name} {count}" for name, count in parts.items()))
    lines += [f"{what}: {count}" for what, count in _about(folder).get("notes", {}).items()]
    return "\n".join(lines)


def named(name: str) -> str:
    """A name in the one form in which it is kept: Unicode NFC, without spaces at its ends.

    Raises ValueError for a name of a file that is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the name {os.fsencode(name)!r} is not UTF-8: rename what is called so"
        ) from None
    return unicodedata.normalize("NFC", name).strip()


def alike(asked: Iterable[str], known: Iterable[str]) -> dict[str, list[str]]:
    """Name asked for -> the known ones that read the same, or none.

    More than one only in data that were made before names were brought into one form.
    """
    by_name: dict[str, list[str]] = {}
    for name in known:
        by_name.setdefault(named(name), []).append(name)
    return {name: by_name.get(named(name), []) for name in asked}


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
