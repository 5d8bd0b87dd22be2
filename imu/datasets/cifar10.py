"""CIFAR-10: 60,000 photographs of 32×32 pixels, 10 classes; 10,000 are set apart for testing.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from pathlib import Path

from imu.datasets import LabelledImages, Source
from imu.datasets.common import archives as _archives
from imu.datasets.common import cifar, packed

NAME = "cifar10"


def write(folder: Path, source: Source) -> None:
    """Pack the archive in ``source.path``, downloaded there if it is missing, into ``folder``.

    Raises FileNotFoundError, saying what to put where, when there is none and no network.
    """
    from torchvision.datasets import CIFAR10

    found = cifar.content(CIFAR10, source)
    labels = found.labels("labels", "label_names")
    _archives.write(folder, NAME, found.images(), labels.parts, labels.names)


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (60000, 3, 32, 32). Raises as ``packed.load`` does."""
    return packed.load(folder, NAME)
