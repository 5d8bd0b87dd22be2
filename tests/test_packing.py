import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imu.datasets import Source, described, made_from
from imu.datasets.common import packed
from tests.tiny_sources import random_images

IMAGES = random_images(0, 7, 2, 3, 5)


def pack(folder: Path, blocks=None, **changes) -> None:
    arguments = {
        "labels": np.arange(7) % 2,
        "ids": [f"i{row}" for row in range(7)],
        "classes": ["é", "b"],
        "published_test": np.arange(7) > 4,
        "attributes": {"subject": [f"p{row % 3}" for row in range(7)]},
    }
    blocks = [IMAGES[:3], IMAGES[3:]] if blocks is None else blocks
    packed.write(folder, "x", blocks, **{**arguments, **changes})


def edit(folder: Path, **changes) -> None:
    path = folder / "about.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**about, **changes}))


def test_what_is_loaded_is_what_was_packed(tmp_path):
    pack(tmp_path / "a")
    data = packed.load(tmp_path / "a", "x")
    assert isinstance(data.images, np.memmap)
    assert np.array_equal(data.images, IMAGES)
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert data.ids.tolist() == ["i0", "i1", "i2", "i3", "i4", "i5", "i6"]
    assert data.classes == ("é", "b")
    assert data.scale == 255
    assert data.published_test.tolist() == [False] * 5 + [True] * 2
    assert data.attributes["subject"].tolist() == ["p0", "p1", "p2", "p0", "p1", "p2", "p0"]


def test_what_is_not_known_is_not_made_up(tmp_path):
    pack(tmp_path / "a", published_test=None, attributes=None)
    data = packed.load(tmp_path / "a", "x")
    assert data.published_test is None
    assert data.attributes == {}


@pytest.mark.parametrize("size", [1, 3, 7])
def test_mean_and_deviation_are_those_of_all_pixels_whatever_the_blocks(size, tmp_path):
    pack(tmp_path / "a", [IMAGES[start : start + size] for start in range(0, 7, size)])
    data = packed.load(tmp_path / "a", "x")
    pixels = IMAGES.astype(np.float64) / 255
    # Sums of 105 numbers below 1, in float64.
    assert np.allclose(data.mean, pixels.mean((0, 2, 3)), rtol=0, atol=1e-13)
    assert np.allclose(data.std, pixels.std((0, 2, 3)), rtol=0, atol=1e-13)
    assert np.array_equal(data.images, IMAGES)


def test_a_constant_channel_is_refused(tmp_path):
    images = IMAGES.copy()
    images[:, 1] = 9
    with pytest.raises(ValueError, match="channel 1 has the same value in every pixel"):
        pack(tmp_path / "a", [images])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("blocks", [[], [IMAGES[:6]]])
def test_every_label_has_an_image(blocks, tmp_path):
    with pytest.raises(ValueError, match=f"there are {sum(map(len, blocks))} images for 7 labels"):
        pack(tmp_path / "a", blocks)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing(error, tmp_path):
    seen = []

    def blocks():
        yield IMAGES[:3]
        seen.extend(path.name for path in tmp_path.rglob("*"))
        raise error

    with pytest.raises(error):
        pack(tmp_path / "a", blocks())
    assert "images.npy" in seen
    assert not list(tmp_path.iterdir())


def test_what_a_kill_left_is_removed(tmp_path):
    left = tmp_path / ".a.4711.tmp"
    left.mkdir()
    (left / "images.npy").write_bytes(b"half")
    (tmp_path / ".ab.1.tmp").mkdir()  # somebody else's
    pack(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ab.1.tmp", "a"]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    (tmp_path / "b").write_text("mine")
    for name in "ab":
        with pytest.raises(FileExistsError, match=f"{name} exists already: remove it"):
            pack(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "mine.txt"]


ARRAYS = ("labels.npy", "ids.npy", "published_test.npy", "attribute_subject.npy")


@pytest.mark.parametrize("name", ["about.json", "images.npy", *ARRAYS])
def test_a_missing_file_is_named(name, tmp_path):
    pack(tmp_path / "a")
    (tmp_path / "a" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{name} is missing: run `make data` or `dvc pull"
    ):
        packed.load(tmp_path / "a", "x")


@pytest.mark.parametrize("name", ARRAYS)
def test_a_changed_array_is_refused(name, tmp_path):
    pack(tmp_path / "a")
    path = tmp_path / "a" / name
    array = np.load(path)
    np.save(path, np.roll(array, 1))
    with pytest.raises(ValueError, match=rf"{name} is not what about.json says: its sha256 is"):
        packed.load(tmp_path / "a", "x")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (IMAGES[:6], r"its shape is \[6, 2, 3, 5\], must be \[7, 2, 3, 5\]; restore it"),
        (IMAGES.astype(np.int8), r"its dtype is \|i1, must be \|u1; restore it"),
    ],
)
def test_images_of_another_shape_or_type_are_refused(array, message, tmp_path):
    pack(tmp_path / "a")
    np.save(tmp_path / "a" / "images.npy", array)
    with pytest.raises(ValueError, match=rf"images.npy is not what about.json says: {message}"):
        packed.load(tmp_path / "a", "x")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_a_truncated_array_is_refused(name, tmp_path):
    pack(tmp_path / "a")
    path = tmp_path / "a" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{name} is truncated or damaged .*: restore it with"):
        packed.load(tmp_path / "a", "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'dataset'"),
        ('{"dataset": "y"}', "it describes the data set 'y', not 'x'"),
        ('{"dataset": "x", "arrays": {}, "attributes": []}', "it does not describe images.npy"),
    ],
)
def test_a_damaged_description_is_refused(content, message, tmp_path):
    pack(tmp_path / "a")
    (tmp_path / "a" / "about.json").write_text(content)
    with pytest.raises(ValueError, match=rf"about.json is damaged \(.*{message}.*restore it with"):
        packed.load(tmp_path / "a", "x")
    assert made_from(tmp_path / "a") is None


@pytest.mark.parametrize("arrays", [{"images.npy": {}}, {"images.npy": None}, []])
def test_a_damaged_list_of_arrays_is_refused(arrays, tmp_path):
    pack(tmp_path / "a")
    edit(tmp_path / "a", arrays=arrays)
    with pytest.raises(ValueError, match=r"about.json is damaged \("):
        packed.load(tmp_path / "a", "x")


def test_the_source_is_kept(tmp_path):
    source = Source(path="photos", size=16, resize=20, classes=("é", "b"))
    pack(tmp_path / "a", source=source)
    assert made_from(tmp_path / "a") == source
    about = json.loads((tmp_path / "a" / "about.json").read_text(encoding="utf-8"))
    assert about["source"] == {
        "path": "photos",
        "size": 16,
        "fit": "crop",
        "resize": 20,
        "classes": ["é", "b"],
        "images": 7,
    }
    pack(tmp_path / "b")
    assert made_from(tmp_path / "b") is None
    assert made_from(tmp_path / "nowhere") is None


def test_data_from_before_there_was_a_choice_are_those_of_the_defaults(tmp_path):
    pack(tmp_path / "a", source=Source(path="photos", size=16))
    edit(tmp_path / "a", source={"path": "photos", "size": 16, "images": 7})
    assert made_from(tmp_path / "a") == Source(path="photos", size=16)
    assert packed.load(tmp_path / "a", "x").published_validation is None


def test_a_validation_part_and_notes_are_kept(tmp_path):
    notes = Counter({"turned": 2})

    def blocks():
        yield IMAGES
        notes["on white"] += 1  # what is known only when all were read

    pack(tmp_path / "a", blocks(), published_validation=np.arange(7) == 2, notes=notes)
    data = packed.load(tmp_path / "a", "x")
    assert data.published_validation.tolist() == [row == 2 for row in range(7)]
    assert described(tmp_path / "a", data).splitlines() == [
        "7 images of 2×3×5, 2 classes in this order: 0 'é' (4), 1 'b' (3)",
        "parts: train 4, validation 1, test 2",
        "on white: 1",
        "turned: 2",
    ]


def test_of_many_classes_the_first_and_the_last_are_listed(tmp_path):
    names = [f"c{k}" for k in range(40)]
    pack(tmp_path / "a", classes=names, published_test=None)
    first, *more = described(tmp_path / "a", packed.load(tmp_path / "a", "x")).splitlines()
    assert first.endswith("27 'c27' (0), 28 'c28' (0), …, 39 'c39' (0)")
    assert not more
