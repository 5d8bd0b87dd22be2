"""Street View House Numbers: 99,289 digits of 32×32 pixels; 26,032 are set apart for testing.

The cropped digits, without the easier "extra" part.
Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning" (2011),
http://ufldl.stanford.edu/housenumbers/
"""

from pathlib import Path

from imu.datasets import LabelledImages, Source
from imu.datasets.common import archives as _archives
from imu.datasets.common import packed

NAME = "svhn"
PARTS = ("train", "test")


def write(folder: Path, source: Source) -> None:
    """Pack the archives in ``source.path``, downloaded there if they are missing.

    Raises FileNotFoundError, saying what to put where, when there are none and no network.
    """
    from torchvision.datasets import SVHN

    archives = [
        _archives.Archive(path=Path(source.path) / file, url=url, md5=md5)
        for url, file, md5 in (SVHN.split_list[part] for part in PARTS)
    ]
    train, test = _archives.parts(
        lambda train: SVHN(source.path, split=PARTS[0 if train else 1], download=True), archives
    )
    images, labels = (train.data, test.data), (train.labels, test.labels)
    _archives.write(folder, NAME, images, labels, "0123456789")


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (99289, 3, 32, 32). Raises as ``packed.load`` does."""
    return packed.load(folder, NAME)
