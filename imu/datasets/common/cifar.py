"""What CIFAR-10 and CIFAR-100 have in common, and the two kinds of labels of CIFAR-100."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imu.datasets import Source
from imu.datasets.common import archives as _archives

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


def parts(kind: "type[CIFAR10]", source: Source) -> "tuple[CIFAR10, CIFAR10]":
    """The training and the test part; ``kind`` is CIFAR10 or CIFAR100 of torchvision.

    Raises FileNotFoundError when the archive is neither in ``source.path`` nor can be downloaded.
    """
    archive = _archives.Archive(
        path=Path(source.path) / kind.filename, url=kind.url, md5=kind.tgz_md5
    )
    return _archives.parts(
        lambda train: kind(root=source.path, train=train, download=True), [archive]
    )


def images(pair: "tuple[CIFAR10, CIFAR10]") -> tuple[np.ndarray, np.ndarray]:
    """uint8, (n, 3, 32, 32) each."""
    return pair[0].data.transpose(0, 3, 1, 2), pair[1].data.transpose(0, 3, 1, 2)


def targets(part: "CIFAR10") -> np.ndarray:
    """int64, (n,)."""
    return np.array(part.targets)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One kind of labels: of the training and of the test part, (n,) each."""

    parts: tuple[np.ndarray, np.ndarray]
    names: list[str]

    def named(self) -> list[str]:
        """The name of every sample's label, training part first."""
        return np.array(self.names)[np.concatenate(self.parts)].tolist()


def cifar100(source: Source) -> tuple[tuple[np.ndarray, np.ndarray], Labels, Labels]:
    """Images (n, 3, 32, 32) of both parts, their classes and their superclasses.

    Raises FileNotFoundError as ``parts`` does.
    """
    from torchvision.datasets import CIFAR100

    pair = parts(CIFAR100, source)
    folder = Path(source.path) / CIFAR100.base_folder
    # torchvision leaves the superclasses out. It has just checked the MD5 of these files.
    train, test = (_unpickled(folder / name) for name in ("train", "test"))
    names = _unpickled(folder / CIFAR100.meta["filename"])
    fine, coarse = (
        Labels(
            parts=(np.array(train[f"{kind}_labels"]), np.array(test[f"{kind}_labels"])),
            names=names[f"{kind}_label_names"],
        )
        for kind in ("fine", "coarse")
    )
    return images(pair), fine, coarse


def _unpickled(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content: dict[str, Any] = pickle.load(file, encoding="latin1")
    return content
