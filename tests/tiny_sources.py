"""Tiny data sets in the formats in which the real ones are published, and what is in them."""

import gzip
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imu.datasets import Source


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A source, and what must come out of it: (n, channels, height, width) and (n,)."""

    source: Source
    images: np.ndarray
    labels: np.ndarray
    classes: list[str]
    n_test: int
    attributes: dict[str, list[str]] = field(default_factory=dict)


def make(name: str, folder: Path, patch: pytest.MonkeyPatch) -> Tiny:
    return BUILDERS[name](folder, patch)


def random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cifar10(folder: Path, patch: pytest.MonkeyPatch) -> Tiny:
    from torchvision.datasets import CIFAR10

    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    classes = [f"class {c}" for c in "jihgfedcba"]  # the published order is not that of names
    images = random_images(0, 6, 10, 3072)
    labels = [np.random.default_rng(i).permutation(10).tolist() for i in range(6)]
    members = {
        name: pickle.dumps({"data": batch, "labels": of_batch, "filenames": []}, protocol=4)
        for name, batch, of_batch in zip(names, images, labels, strict=True)
    }
    members["batches.meta"] = pickle.dumps({"label_names": classes})
    tarred(folder, CIFAR10, members, patch)
    return Tiny(
        source=Source(path=str(folder)),
        images=images.reshape(60, 3, 32, 32),
        labels=np.concatenate(labels),
        classes=classes,
        n_test=10,
    )


def cifar100(folder: Path, patch: pytest.MonkeyPatch) -> Tiny:
    from torchvision.datasets import CIFAR100

    fine_names, coarse_names = [f"fine {i}" for i in range(100)], [f"coarse {i}" for i in range(20)]
    of_fine = np.random.default_rng(5).permutation(100) % 20  # superclass of each class
    images = {"train": random_images(1, 200, 3072), "test": random_images(2, 100, 3072)}
    fine = {
        "train": np.random.default_rng(3).permutation(200) % 100,
        "test": np.random.default_rng(4).permutation(100),
    }
    members = {
        part: pickle.dumps(
            {
                "data": images[part],
                "fine_labels": fine[part].tolist(),
                "coarse_labels": of_fine[fine[part]].tolist(),
            },
            protocol=4,
        )
        for part in ("train", "test")
    }
    members["meta"] = pickle.dumps(
        {"fine_label_names": fine_names, "coarse_label_names": coarse_names}
    )
    tarred(folder, CIFAR100, members, patch)
    labels = np.concatenate([fine["train"], fine["test"]])
    return Tiny(
        source=Source(path=str(folder)),
        images=np.concatenate([images["train"], images["test"]]).reshape(-1, 3, 32, 32),
        labels=labels,
        classes=fine_names,
        n_test=100,
        attributes={"superclass": [coarse_names[of_fine[label]] for label in labels]},
    )


def cifar100_super(folder: Path, patch: pytest.MonkeyPatch) -> Tiny:
    tiny = cifar100(folder, patch)
    superclass = tiny.attributes["superclass"]
    classes = [f"coarse {i}" for i in range(20)]
    return Tiny(
        source=tiny.source,
        images=tiny.images,
        labels=np.array([classes.index(name) for name in superclass]),
        classes=classes,
        n_test=tiny.n_test,
        attributes={"subclass": [tiny.classes[label] for label in tiny.labels]},
    )


def svhn(folder: Path, patch: pytest.MonkeyPatch) -> Tiny:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images = {"train": random_images(6, 20, 3, 32, 32), "test": random_images(7, 10, 3, 32, 32)}
    labels = {"train": np.arange(20) % 10, "test": np.arange(10)[::-1]}
    listed = {}
    folder.mkdir(parents=True)
    for part in images:
        path = folder / f"{part}_32x32.mat"
        published = np.where(labels[part] == 0, 10, labels[part])[:, None].astype(np.uint8)
        savemat(path, {"X": images[part].transpose(2, 3, 1, 0), "y": published})
        listed[part] = [f"http://nowhere.invalid/{path.name}", path.name, md5(path)]
    patch.setattr(SVHN, "split_list", listed)
    return Tiny(
        source=Source(path=str(folder)),
        images=np.concatenate([images["train"], images["test"]]),
        labels=np.concatenate([labels["train"], labels["test"]]),
        classes=list("0123456789"),
        n_test=10,
    )


def fashion_mnist(folder: Path, patch: pytest.MonkeyPatch) -> Tiny:
    from torchvision.datasets import FashionMNIST

    images = {"train": random_images(8, 30, 28, 28), "t10k": random_images(9, 10, 28, 28)}
    labels = {"train": np.arange(30)[::-1] % 10, "t10k": np.arange(10)}
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    resources = []
    for part in images:
        for kind, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            path = raw / f"{part}-{kind}-ubyte.gz"
            header = np.array([0x800 + array.ndim, *array.shape], ">i4").tobytes()
            path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
            resources.append((path.name, md5(path)))
    patch.setattr(FashionMNIST, "resources", resources)
    patch.setattr(FashionMNIST, "mirrors", ["http://nowhere.invalid/"])
    return Tiny(
        source=Source(path=str(folder)),
        images=np.concatenate([images["train"], images["t10k"]])[:, None],
        labels=np.concatenate([labels["train"], labels["t10k"]]),
        classes=list(FashionMNIST.classes),
        n_test=10,
    )


def image_folder(folder: Path, patch: pytest.MonkeyPatch) -> Tiny:
    """Parts, two classes, of which one has a subfolder; pixels are stored without loss."""
    images = random_images(10, 5, 3, 8, 8)
    paths = ("train/ant/b/2.png", "train/ant/c.PNG", "train/bee/a.png", "test/ant/z.png")
    for path, image in zip((*paths, "test/bee/a.bmp"), images, strict=True):
        save(folder / path, image)
    return Tiny(
        source=Source(path=str(folder), size=8),
        images=images,
        labels=np.array([0, 0, 1, 0, 1]),
        classes=["ant", "bee"],
        n_test=2,
    )


def image_table(folder: Path, patch: pytest.MonkeyPatch) -> Tiny:
    """The test image stands first in the table, and last in what is made of it."""
    images = random_images(11, 4, 3, 8, 8)
    rows = ["path,label,part,subject"]
    listed = (("d.png", "bee", "test", "p2"), ("a.png", "bee", "train", "p1"))
    listed += (("b.png", "ant", "train", "p2"), ("c.png", "NA", "train", "p1"))
    for path, label, part, subject in listed:
        save(folder / "pictures" / path, images["abcd".index(path[0])])
        rows.append(f"pictures/{path},{label},{part},{subject}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return Tiny(
        source=Source(path=str(folder / "table.csv"), size=8),
        images=images,
        labels=np.array([2, 1, 0, 2]),
        classes=["NA", "ant", "bee"],
        n_test=1,
        attributes={"subject": ["p1", "p2", "p1", "p2"]},
    )


BUILDERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Tiny]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "cifar100_super": cifar100_super,
    "svhn": svhn,
    "fashion_mnist": fashion_mnist,
    "image_folder": image_folder,
    "image_table": image_table,
}
PUBLISHED = ("cifar10", "cifar100", "cifar100_super", "svhn", "fashion_mnist")


def save(path: Path, image: np.ndarray) -> None:
    """``image`` is (3, height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.transpose(1, 2, 0)).save(path)


def tarred(folder: Path, kind: Any, members: dict[str, bytes], patch: pytest.MonkeyPatch) -> None:
    """The archive of ``kind``, whose checksums become those of the tiny one."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / kind.filename, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    sums = {name: hashlib.md5(content).hexdigest() for name, content in members.items()}
    for listed in ("train_list", "test_list"):
        patch.setattr(kind, listed, [[name, sums[name]] for name, _ in getattr(kind, listed)])
    patch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
    patch.setattr(kind, "tgz_md5", md5(folder / kind.filename))
    patch.setattr(kind, "url", f"https://nowhere.invalid/{kind.filename}")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


class Malicious:
    """Unpickling it writes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.proof)!r}, 'w').close()",)
