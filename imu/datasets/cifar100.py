"""CIFAR-100: 60,000 photographs of 32×32 pixels, 100 classes; 10,000 are set apart for testing.

Every class belongs to one of 20 superclasses, the attribute ``superclass``.
A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from pathlib import Path

from imu.datasets import LabelledImages, Source
from imu.datasets.common import archives as _archives
from imu.datasets.common import cifar, packed

NAME = "cifar100"


def write(folder: Path, source: Source) -> None:
    """Pack the archive in ``source.path``, downloaded there if it is missing, into ``folder``.

    Raises FileNotFoundError, saying what to put where, when there is none and no network.
    """
    images, fine, coarse = cifar.cifar100(source)
    attributes = {"superclass": coarse.named()}
    _archives.write(folder, NAME, images, fine.parts, fine.names, attributes)


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (60000, 3, 32, 32). Raises as ``packed.load`` does."""
    return packed.load(folder, NAME)
