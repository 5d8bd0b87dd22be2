"""Handwritten digits: 1,797 grey images of 8×8 pixels, 10 classes.

The test part of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits"
(1998), https://doi.org/10.24432/C50P49, as shipped inside scikit-learn.
"""

import hashlib
from pathlib import Path

import numpy as np

from imu.datasets import LabelledImages, Source

SHA256 = {
    "images.npy": "05265c7b7b3337013810334acc678fb66b2b697784902a65d31eb141c82a682e",
    "labels.npy": "0e1c5e26d7ec59f910975e2cd61b6b76bc67b4bfaa8a4233726a6038d8e62a2c",
}


def write(folder: Path, source: Source | None = None) -> None:
    """Write ``images.npy`` (1797, 1, 8, 8) and ``labels.npy`` (1797,) into ``folder``.

    ``source`` is ignored: the images come with scikit-learn.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", digits.images.astype(np.uint8)[:, None])
    np.save(folder / "labels.npy", digits.target.astype(np.int64))


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote.

    Raises FileNotFoundError when a file is missing and ValueError when its content is not that
    of the published data set.
    """
    for name, expected in SHA256.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: run `make data` or `dvc pull`")
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(
                f"{folder / name} is not the published data set: SHA-256 is {found}, must be "
                f"{expected}; restore it with `git checkout data.dvc && dvc checkout -f data.dvc`"
            )
    labels = np.load(folder / "labels.npy")
    return LabelledImages(
        images=np.load(folder / "images.npy"),
        labels=labels,
        ids=np.array([f"digits-{i:04d}" for i in range(len(labels))]),
        classes=tuple("0123456789"),
        scale=16.0,
        mean=(0.3053,),
        std=(0.3760,),
    )
