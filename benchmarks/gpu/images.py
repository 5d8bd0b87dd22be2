"""Where images come from: an archive of photographs, or a generator of random numbers."""

import tarfile
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from imu.datasets import LabelledImages, image_folder
from imu.datasets.common import packed

PACKED = "cifar10"  # folder of arrays
SIDE = 32  # pixels
BLOCK = 500  # images that a process decodes at once
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def unpack(archive: Path | None, scratch: Path) -> dict[str, object]:
    """CIFAR-10 as an archive of ``<part>/<class>/<n>.jpg``, decoded to arrays in ``scratch``.

    Nothing else is written: to remove 60,000 small files can take minutes.
    """
    if archive is None:
        return {"what": "no archive"}
    begin = perf_counter()
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as file:
        for member in file:  # in their order: the archive is compressed as a whole
            if (content := file.extractfile(member)) is not None:
                found[member.name.removeprefix("./")] = content.read()
    unpacked = perf_counter()
    names = sorted(found)
    parts, labels = zip(*(Path(name).parts[-3:-1] for name in names), strict=True)
    classes = sorted(set(labels))
    blocks = [[found[n] for n in names[i : i + BLOCK]] for i in range(0, len(names), BLOCK)]
    with get_context("fork").Pool() as pool:
        packed.write(
            scratch / PACKED,
            image_folder.NAME,
            pool.imap(_decoded, blocks),
            labels=np.searchsorted(classes, labels),
            ids=names,
            classes=classes,
            published_test=np.array(parts) == "test",
        )
    return {
        "what": archive.name,
        "images": len(names),
        "unpacking": unpacked - begin,
        "decoding": perf_counter() - unpacked,
    }


def _decoded(block: list[bytes]) -> np.ndarray:
    pictures = [np.asarray(Image.open(BytesIO(content)).convert("RGB")) for content in block]
    return np.stack(pictures).transpose(0, 3, 1, 2)  # (k, 3, height, width)


def load(scratch: Path) -> LabelledImages:
    return image_folder.load(scratch / PACKED)


def drawn(counts: tuple[int, int]) -> LabelledImages:
    """Noise around one pattern per class: something to learn where there are no photographs.

    counts: images of a class, for training and for testing.
    """
    draw, n = np.random.default_rng(0), len(CLASSES)
    labels = np.concatenate([np.repeat(np.arange(n), count) for count in counts])
    patterns = draw.integers(64, 192, (n, 3, 1, 1))
    noise = draw.integers(-64, 64, (len(labels), 3, SIDE, SIDE), dtype=np.int16)
    return LabelledImages(
        images=(patterns[labels] + noise).clip(0, 255).astype(np.uint8),
        labels=labels,
        ids=np.arange(len(labels)).astype(str),
        classes=CLASSES,
        scale=255.0,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        published_test=np.arange(len(labels)) >= n * counts[0],
    )
