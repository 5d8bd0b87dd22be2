"""What CIFAR-10 and CIFAR-100 have in common: archives of pickles, read as data alone.

A pickle is a program: to load one runs what is in it. These may name what arrays are made of, and
nothing else.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imu.datasets import Source
from imu.datasets.common import archives as _archives

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

# Published with the first name, of numpy 1; the second is what numpy 2 writes.
ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One kind of labels: of the training and of the test part, (n,) each."""

    parts: tuple[np.ndarray, np.ndarray]
    names: list[str]

    def named(self) -> list[str]:
        """The name of every sample's label, training part first."""
        return np.array(self.names)[np.concatenate(self.parts)].tolist()


class Content(NamedTuple):
    """Of an archive: the files of each part, and the one that names the labels."""

    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    meta: dict[str, Any]

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8, (n, 3, 32, 32) each."""
        train, test = (
            np.concatenate([file["data"] for file in part]).reshape(-1, 3, 32, 32)
            for part in (self.train, self.test)
        )
        return train, test

    def labels(self, key: str, names: str) -> Labels:
        """key, names: under which the files hold the labels, and the last one their names."""
        train, test = (
            np.concatenate([np.array(file[key]) for file in part])
            for part in (self.train, self.test)
        )
        return Labels(parts=(train, test), names=self.meta[names])


def content(kind: "type[CIFAR10]", source: Source) -> Content:
    """What the archive in ``source.path`` holds, downloaded there if it is missing.

    kind: CIFAR10 or CIFAR100 of torchvision, which knows its files and their checksums.

    Raises FileNotFoundError when the archive is neither there nor can be downloaded, and
    ValueError when a file names what is no part of an array.
    """
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    folder = Path(source.path) / kind.base_folder
    meta = (kind.meta["filename"], kind.meta["md5"])
    archive = _archives.Archive(
        path=Path(source.path) / kind.filename, url=kind.url, md5=kind.tgz_md5
    )

    def intact() -> bool:
        listed = (*kind.train_list, *kind.test_list, meta)
        return all(check_integrity(folder / name, md5) for name, md5 in listed)

    def names(train: bool) -> list[str]:
        if not intact():
            download_and_extract_archive(kind.url, source.path, md5=kind.tgz_md5)
        if not intact():
            raise RuntimeError(f"a file in {folder} is missing, or not the published one")
        return [name for name, _ in (kind.train_list if train else kind.test_list)]

    train, test = (
        [_unpickled(folder / name) for name in part] for part in _archives.parts(names, [archive])
    )
    return Content(train, test, _unpickled(folder / meta[0]))


def cifar100(source: Source) -> tuple[tuple[np.ndarray, np.ndarray], Labels, Labels]:
    """Images (n, 3, 32, 32) of both parts, their classes and their superclasses.

    Raises as ``content`` does.
    """
    from torchvision.datasets import CIFAR100

    found = content(CIFAR100, source)
    fine, coarse = (
        found.labels(f"{kind}_labels", f"{kind}_label_names") for kind in ("fine", "coarse")
    )
    return found.images(), fine, coarse


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def _unpickled(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            found: dict[str, Any] = _Unpickler(file, encoding="latin1").load()
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} holds more than arrays, lists and text, or is damaged ({error}). It was "
                "not loaded, as a pickle can run code: remove it, and take it from the publisher"
            ) from error
    return found
