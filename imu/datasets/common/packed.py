"""Images packed into arrays: written once, mapped into memory by every stage.

A folder holds ``images.npy`` uint8 (n, channels, height, width), ``labels.npy`` int64 (n,),
``ids.npy`` str (n,), ``published_test.npy`` and ``published_validation.npy`` bool (n,) where the
authors set samples apart, ``attribute_<name>.npy`` str (n,), and ``about.json``: names of the
classes, mean and standard deviation of the pixels, of every array its shape, type and SHA-256, and
what was done to how many images.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imu.datasets import ABOUT, PICTURES, LabelledImages, Source
from imu.datasets.common.origin import fingerprint

IMAGES = "images.npy"
LABELS = "labels.npy"
IDS = "ids.npy"
TEST = "published_test.npy"
VALIDATION = "published_validation.npy"
SCALE = 255
RESTORE = (
    "restore it with `git checkout data.dvc && dvc checkout -f data.dvc`, or remove the folder "
    "and run `make data`"
)


def write(
    folder: Path,
    name: str,
    blocks: Iterable[np.ndarray],
    *,
    labels: np.ndarray,
    ids: Sequence[str],
    classes: Sequence[str],
    published_test: np.ndarray | None = None,
    published_validation: np.ndarray | None = None,
    attributes: Mapping[str, Sequence[str]] | None = None,
    source: Source | None = None,
    settings: Sequence[str] = PICTURES,
    notes: Mapping[str, int] | None = None,
) -> None:
    """Pack a data set into ``folder``, all or nothing.

    name: of the data set. blocks: uint8 arrays of shape (k, channels, height, width), in order;
    one block is held at a time. The others are as in ``LabelledImages``, (n,) each. source: what
    the images were made from, where there is a choice. settings: the fields of it that they depend
    on. notes: what was done to how many of them, read when all blocks are taken.

    Raises FileExistsError when ``folder`` holds files, and ValueError when the number of images
    is not that of the labels or a channel has the same value everywhere.
    """
    attributes = attributes or {}
    arrays: dict[str, np.ndarray] = {LABELS: labels.astype(np.int64), IDS: np.array(ids)}
    if published_test is not None:
        arrays[TEST] = published_test
    if published_validation is not None:
        arrays[VALIDATION] = published_validation
    arrays |= {_attribute(key): np.array(values) for key, values in attributes.items()}
    with appearing(folder) as temporary:
        mean, std = moments(_write_images(temporary / IMAGES, len(labels), blocks))
        for file, array in arrays.items():
            np.save(temporary / file, array)
        about = {
            "dataset": name,
            "classes": list(classes),
            "scale": SCALE,
            "mean": mean.tolist(),
            "std": std.tolist(),
            "attributes": list(attributes),
            "arrays": {file: asdict(_stored(temporary / file)) for file in (IMAGES, *arrays)},
        }
        if source is not None:
            about["source"] = {key: getattr(source, key) for key in settings}
            if settings == PICTURES:
                about["source"]["images"] = len(labels)
            if "path" in settings:
                about["fingerprint"] = fingerprint(Path(source.path))
        if notes:
            about["notes"] = dict(sorted(notes.items()))
        text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (temporary / ABOUT).write_text(text, encoding="utf-8")


def load(folder: Path, name: str) -> LabelledImages:
    """Read what ``write`` wrote; the images stay on disk until they are used.

    Raises FileNotFoundError when a file is missing and ValueError when its content is not what
    ``about.json`` says. Of the images only shape and type are checked: their hash would cost
    every stage 0.7 s per GB, and the manifests of a split hold one of every sample.
    """
    path = folder / ABOUT
    require(path)
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["dataset"] != name:
            raise ValueError(f"it describes the data set {about['dataset']!r}, not {name!r}")
        arrays = {file: Stored(**stored) for file, stored in about["arrays"].items()}
        needed = [IMAGES, LABELS, IDS, *map(_attribute, about["attributes"])]
        if missing := [file for file in needed if file not in arrays]:
            raise ValueError(f"it does not describe {missing[0]}")
        known: dict[str, Any] = {key: tuple(about[key]) for key in ("classes", "mean", "std")}
        scale = float(about["scale"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): {RESTORE}"
        ) from error
    read = {file: _read(folder / file, stored) for file, stored in arrays.items()}
    return LabelledImages(
        images=read[IMAGES],
        labels=read[LABELS],
        ids=read[IDS],
        scale=scale,
        published_test=read.get(TEST),
        published_validation=read.get(VALIDATION),
        attributes={key: read[_attribute(key)] for key in about["attributes"]},
        **known,
    )


def moments(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (channels,) each, of pixels in [0, 1].

    counts: int array of shape (channels, 256), how often each value occurs. So the result is
    that of all pixels at once in float64, whatever the blocks were.

    Raises ValueError when a channel has the same value everywhere.
    """
    values = np.arange(256) / SCALE
    total = counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / total)
    if constant := np.flatnonzero((counts > 0).sum(1) == 1).tolist():
        raise ValueError(f"channel {constant[0]} has the same value in every pixel of every image")
    return mean, std


def _write_images(path: Path, n: int, blocks: Iterable[np.ndarray]) -> np.ndarray:
    """How often each value occurs in what is written to ``path``: (channels, 256)."""
    images, done = None, 0
    for block in blocks:
        if images is None:
            images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *block.shape[1:]))
            counts = np.zeros((block.shape[1], 256), np.int64)
        images[done : done + len(block)] = block
        for channel in range(len(counts)):
            counts[channel] += np.bincount(block[:, channel].ravel(), minlength=256)
        done += len(block)
    if images is None or done != n:
        raise ValueError(f"there are {done} images for {n} labels")
    images.flush()
    return counts


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its name when the block ends without error.

    What a kill leaves behind is hidden and removed by the next call for the same ``folder``.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already: remove it to have it written again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(left)
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _attribute(name: str) -> str:
    return f"attribute_{name}.npy"


@dataclass(frozen=True)
class Stored:
    """What ``about.json`` says of an array."""

    shape: list[int]
    dtype: str
    sha256: str | None


def _stored(path: Path, *, hashed: bool = True) -> Stored:
    array = np.load(path, mmap_mode="r")
    sha256 = None
    if hashed:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Stored(list(array.shape), array.dtype.str, sha256)


def _read(path: Path, expected: Stored) -> np.ndarray:
    require(path)
    is_images = path.name == IMAGES
    try:
        found = _stored(path, hashed=not is_images)
        array = np.load(path, mmap_mode="r" if is_images else None)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): {RESTORE}") from error
    for key, value in asdict(found).items():
        if value not in (None, asdict(expected)[key]):
            raise ValueError(
                f"{path} is not what {ABOUT} says: its {key} is {value}, must be "
                f"{asdict(expected)[key]}; {RESTORE}"
            )
    return array


def require(path: Path) -> None:
    """Raises FileNotFoundError, saying how to get it, when there is no such file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `make data` or `dvc pull`")
