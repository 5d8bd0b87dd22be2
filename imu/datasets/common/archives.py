"""Published data sets, read by torchvision from their archives, which it downloads if need be."""

import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

import numpy as np

from imu.datasets.common import packed

T = TypeVar("T")
BLOCK = 1000  # images
TIMEOUT = 30.0  # seconds that a server may be silent
# What torchvision lets through: no network, a wrong MD5, an archive or its content cut short.
FAILURES = (OSError, HTTPException, RuntimeError, ValueError, EOFError, AssertionError)


@dataclass(frozen=True, kw_only=True)
class Archive:
    path: Path  # where it must lie
    url: str
    md5: str  # of the published file


def parts(open_part: Callable[[bool], T], archives: Sequence[Archive]) -> tuple[T, T]:
    """The training and the test part; no network is touched where the archives lie already.

    open_part: opens the training part when told True, the test part when told False, and
    downloads what is missing.

    Raises FileNotFoundError, naming every archive and its place, when that fails.
    """
    try:
        with _patience():
            return open_part(True), open_part(False)
    except FAILURES as error:
        raise FileNotFoundError(_explained(archives, error)) from error


def write(
    folder: Path,
    name: str,
    images: tuple[np.ndarray, np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    classes: Sequence[str],
    attributes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Pack the training and the test part, in this order, into ``folder``.

    images: uint8, (n, channels, height, width) each. labels: int, (n,) each. attributes: of all
    samples, training part first.
    """
    n_train, n_test = len(images[0]), len(images[1])
    packed.write(
        folder,
        name,
        _blocks(images),
        labels=np.concatenate(labels),
        ids=[f"{name}-{row:05d}" for row in range(n_train + n_test)],
        classes=classes,
        published_test=np.arange(n_train + n_test) >= n_train,
        attributes=attributes,
    )


def _blocks(images: tuple[np.ndarray, np.ndarray]) -> Iterator[np.ndarray]:
    for part in images:
        for start in range(0, len(part), BLOCK):
            yield part[start : start + BLOCK]


@contextmanager
def _patience() -> Iterator[None]:
    """A server that falls silent ends the download instead of holding it up for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _explained(archives: Sequence[Archive], error: BaseException) -> str:
    lines = [
        f"the archives are neither all in {archives[0].path.parent} nor could they be downloaded "
        f"({type(error).__name__}: {error}). Put there, and remove what was unpacked beside them:"
    ]
    for archive in archives:
        lines.append(
            f"  {archive.path.name} from {archive.url}, MD5 {archive.md5}: {_state(archive)}"
        )
    return "\n".join(lines)


def _state(archive: Archive) -> str:
    if not archive.path.is_file():
        return "missing"
    with archive.path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    return "is there" if found == archive.md5 else f"is there, but its MD5 is {found}"
