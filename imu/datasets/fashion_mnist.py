"""Fashion-MNIST: 70,000 grey images of 28×28 pixels, 10 classes; 10,000 are set apart for testing.

H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
Machine Learning Algorithms" (2017), https://arxiv.org/abs/1708.07747
"""

from pathlib import Path

from imu.datasets import LabelledImages, Source
from imu.datasets.common import archives as _archives
from imu.datasets.common import packed

NAME = "fashion_mnist"
FOLDER = Path("FashionMNIST", "raw")  # where torchvision looks, below ``source.path``


def write(folder: Path, source: Source) -> None:
    """Pack the archives in ``source.path``/FashionMNIST/raw, downloaded if they are missing.

    Raises FileNotFoundError, saying what to put where, when there are none and no network.
    """
    from torchvision.datasets import FashionMNIST

    archives = [
        _archives.Archive(
            path=Path(source.path) / FOLDER / file, url=FashionMNIST.mirrors[0] + file, md5=md5
        )
        for file, md5 in FashionMNIST.resources
    ]
    train, test = _archives.parts(
        lambda train: FashionMNIST(source.path, train=train, download=True), archives
    )
    images = train.data.numpy()[:, None], test.data.numpy()[:, None]
    labels = train.targets.numpy(), test.targets.numpy()
    _archives.write(folder, NAME, images, labels, train.classes)


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (70000, 1, 28, 28). Raises as ``packed.load`` does."""
    return packed.load(folder, NAME)
