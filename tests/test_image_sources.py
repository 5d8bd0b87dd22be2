"""Folders and tables of the user's own images."""

import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision.transforms import v2

from imu.datasets import Source, described, image_folder, image_table, made_from
from imu.datasets.common import decoding, listing
from tests.tiny_sources import random_images, save

SQUARE = random_images(0, 3, 8, 8)


def folder_of(root: Path, *paths: str) -> Source:
    for seed, path in enumerate(paths):
        save(root / path, random_images(seed, 3, 8, 8))
    return Source(path=str(root), size=8)


def table_of(root: Path, text: str, images=("a.png", "b.png", "c.png")) -> Source:
    folder_of(root, *images)
    (root / "table.csv").write_text(text, encoding="utf-8")
    return Source(path=str(root / "table.csv"), size=8)


def pixels(path: Path, size: int = 8, **settings) -> np.ndarray:
    return decoding.decoded(path, "picture a", Source(size=size, **settings)).pixels


def packed(module, source: Source, folder: Path):
    module.write(folder, source)
    return module.load(folder)


def scaled(pixels: np.ndarray, size: int) -> np.ndarray:
    """Naive: (h, w, 3) to (size, w', 3) or (h', size, 3) by a triangle filter, side by side.

    The filter is as wide as two output pixels are in the input, or two input pixels if enlarged.
    """
    shorter = min(pixels.shape[:2])
    result = pixels.astype(np.float64)
    for axis in (1, 0):
        old = result.shape[axis]
        new = old * size // shorter
        ratio = old / new
        width = max(ratio, 1)
        rows = []
        for target in range(new):
            centre = (target + 0.5) * ratio
            weights = [max(0.0, 1 - abs(x + 0.5 - centre) / width) for x in range(old)]
            column = np.array(weights) / sum(weights)
            rows.append(np.tensordot(column, result, (0, axis)))
        # Pillow rounds after each direction.
        result = np.floor(np.stack(rows, axis) + 0.5)
    return result


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [(16, 16, 0, 0), (16, 20, 0, 1), (27, 16, 2, 0), (4, 9, 0, 5), (9, 10, 0, 0), (8, 13, 0, 2)],
)
def test_images_are_scaled_and_cropped_to_their_middle(height, width, top, left, tmp_path):
    image = random_images(1, 3, height, width)
    save(tmp_path / "a.png", image)
    found = pixels(tmp_path / "a.png")
    expected = scaled(image.transpose(1, 2, 0), 8)[top : top + 8, left : left + 8]
    # Weights are simple fractions, so that many a sum lies half-way between two grey levels.
    assert np.abs(found.transpose(1, 2, 0) - expected).max() <= 1


@pytest.mark.parametrize(("height", "width", "top", "left"), [(8, 8, 0, 0), (8, 11, 0, 2)])
def test_pixels_of_the_right_size_stay_as_they_are(height, width, top, left, tmp_path):
    image = random_images(2, 3, height, width)
    save(tmp_path / "a.png", image)
    expected = image[:, top : top + 8, left : left + 8]
    assert np.array_equal(pixels(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("height", [8, 11, 13, 16, 31])
@pytest.mark.parametrize("width", [8, 9, 12, 21, 30])
@pytest.mark.parametrize(
    ("settings", "transforms"),
    [
        ({}, [v2.Resize(8), v2.CenterCrop(8)]),
        ({"resize": 11}, [v2.Resize(11), v2.CenterCrop(8)]),
        ({"fit": "stretch"}, [v2.Resize((8, 8))]),
    ],
)
def test_pixels_are_those_of_torchvision(height, width, settings, transforms, tmp_path):
    """Also where the margins are odd, and where an image is enlarged."""
    save(tmp_path / "a.png", random_images(4, 3, height, width))
    expected = np.asarray(v2.Compose(transforms)(Image.open(tmp_path / "a.png")))
    assert np.array_equal(pixels(tmp_path / "a.png", **settings), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_put_on_white(mode, tmp_path):
    """White drawings on nothing, as icons are, would else be white all over, or black."""
    if mode == "P":
        image = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8) % 2, (8, 1)), "P")
        image.putpalette([0, 0, 0, 200, 100, 0])
        image.save(tmp_path / "a.png", transparency=0)
        drawn = (200, 100, 0)
    else:
        image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        image.paste((100, 100, 100, 255), (1, 0, 2, 8))
        image.paste((0, 0, 0, 51), (3, 0, 4, 8))
        image.convert(mode).save(tmp_path / "a.png")
        drawn = (100, 100, 100)
    found = decoding.decoded(tmp_path / "a.png", "a", Source(size=8))
    assert found.transparent
    assert found.pixels[:, 0, 0].tolist() == [255] * 3
    assert tuple(found.pixels[:, 0, 1].tolist()) == drawn
    if mode != "P":
        assert found.pixels[:, 0, 3].tolist() == [204] * 3  # a fifth of black on white


def test_an_alpha_channel_that_hides_nothing_changes_nothing(tmp_path):
    Image.fromarray(SQUARE.transpose(1, 2, 0)).convert("RGBA").save(tmp_path / "a.png")
    found = decoding.decoded(tmp_path / "a.png", "a", Source(size=8))
    assert not found.transparent
    assert np.array_equal(found.pixels, SQUARE)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, :, ::-1]),
        (3, lambda image: image[:, ::-1, ::-1]),
        (6, lambda image: image[:, ::-1].transpose(0, 2, 1)),
        (8, lambda image: image[:, :, ::-1].transpose(0, 2, 1)),
        (99, lambda image: image),
    ],
)
def test_images_are_turned_as_the_camera_noted(orientation, upright, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(SQUARE.transpose(1, 2, 0))
    image.save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
    found = decoding.decoded(tmp_path / f"a.{suffix}", "a", Source(size=8))
    assert found.turned == (orientation not in (1, 99))
    assert np.array_equal(found.pixels, upright(SQUARE))


def test_damaged_exif_does_not_cost_the_image(tmp_path):
    image = Image.fromarray(SQUARE.transpose(1, 2, 0))
    image.save(tmp_path / "a.png", exif=b"Exif\0\0garbagegarbage")
    assert np.array_equal(pixels(tmp_path / "a.png"), SQUARE)


def test_what_was_done_to_images_and_names_is_told(tmp_path):
    source = folder_of(tmp_path / "s", "ant/1.png", "ant/2.png", "bee /1.png", "bee /Ü.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGBA", (8, 8)).save(tmp_path / "s" / "ant" / "3.png", exif=exif)
    for name in ("a.gif", "b.GIF", "notes", ".hidden", "c.heic"):
        (tmp_path / "s" / "ant" / name).write_text("")
    (tmp_path / "s" / ".git").mkdir()
    (tmp_path / "s" / ".git" / "config").write_text("")
    data = packed(image_folder, source, tmp_path / "a")
    assert described(tmp_path / "a", data).splitlines() == [
        "5 images of 3×8×8, 2 classes in this order: 0 'ant' (3), 1 'bee' (2)",
        "files passed over, .gif: 2",
        "files passed over, .heic: 1",
        "files passed over, without a suffix: 1",
        "images turned as their EXIF orientation says: 1",
        "images with transparency, put on white: 1",
        "names brought to one form (Unicode NFC, no spaces at the ends): 1",
    ]


# Classes and names


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "2", "1", "0"], ["0", "1", "2", "10"]),
        (["-1", "+1", "0.5", "01", "1"], ["-1", "0.5", "+1", "01", "1"]),
        (["10", "2", "x"], ["10", "2", "x"]),
        (["nan", "1e3", "2"], ["1e3", "2", "nan"]),
        (["2", "10", "²"], ["10", "2", "²"]),
    ],
)
def test_classes_are_numbered_in_the_order_of_their_names(names, order):
    assert listing.ordered(names) == order


def test_classes_are_numbered_as_wanted(tmp_path):
    paths = [f"{name}/1.png" for name in ("cat", "Mu\u0308ller", "10", "9")]
    source = folder_of(tmp_path / "s", *paths)
    wanted = ("9", "Müller", "cat ", "10")
    source = Source(path=source.path, size=8, classes=wanted)
    data = packed(image_folder, source, tmp_path / "a")
    assert data.classes == ("9", "Müller", "cat", "10")
    by_id = dict(zip(data.ids.tolist(), data.labels.tolist(), strict=True))
    assert by_id == {"9/1.png": 0, "Müller/1.png": 1, "cat/1.png": 2, "10/1.png": 3}
    assert made_from(tmp_path / "a") == source


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("a", "b"), r"data\.classes lacks '10'; it must name each class .*: '10', 'a', 'b'$"),
        (("a", "b", "10", "x"), r"data\.classes names 'x'"),
        (
            ("a", "b", "b ", "10"),
            r"data\.classes names a class more than once, got \['a', 'b', 'b'",
        ),
    ],
)
def test_other_classes_than_there_are_are_refused(wanted, message):
    with pytest.raises(ValueError, match=message):
        listing.ordered(["b", "a", "10"], wanted)


def test_names_that_read_the_same_are_one(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    paths = [f"{nfc}/1.png", f"{nfd}/2.png", f"{nfc} /3.png", f"bee/{nfd}.png"]
    source = folder_of(tmp_path / "s", *paths)
    data = packed(image_folder, source, tmp_path / "a")
    assert data.classes == (nfc, "bee")
    assert data.ids.tolist() == [f"{nfc}/2.png", f"{nfc}/1.png", f"{nfc} /3.png", f"bee/{nfc}.png"]
    assert data.labels.tolist() == [0, 0, 0, 1]
    text = f"path,label,subject\n{nfc}/2.png,x ,{nfd}\n{nfc}/1.png,x,{nfc}\nbee/{nfd}.png ,y, y\n"
    (tmp_path / "s" / "table.csv").write_text(text, encoding="utf-8")
    source = Source(path=str(tmp_path / "s" / "table.csv"), size=8)
    data = packed(image_table, source, tmp_path / "b")
    assert data.classes == ("x", "y")
    assert data.attributes["subject"].tolist() == [nfc, nfc, "y"]
    assert data.ids.tolist() == [f"{nfc}/2.png", f"{nfc}/1.png", f"bee/{nfc}.png"]
    for row, seed in enumerate((1, 0, 3)):  # the files whose names read so
        assert np.array_equal(data.images[row], random_images(seed, 3, 8, 8))


def test_two_images_of_one_name_are_refused(tmp_path):
    source = folder_of(tmp_path / "s", "bee/ü.png", "bee/u\u0308.png", "ant/1.png")
    with pytest.raises(ValueError, match=r"the id 'bee/ü\.png' is already that of .*/bee/u"):
        image_folder.write(tmp_path / "a", source)


def test_a_name_that_is_not_utf_8_is_named(tmp_path):
    source = folder_of(tmp_path / "s", "ant/1.png", "bee/1.png", "bee/2.png")
    os.rename(tmp_path / "s" / "bee" / "2.png", os.fsencode(tmp_path / "s" / "bee") + b"/M\xfc.png")
    with pytest.raises(
        ValueError, match=r"the name b'bee/M\\xfc.png' is not UTF-8: rename"
    ) as raised:
        image_folder.write(tmp_path / "a", source)
    str(raised.value).encode()  # can be printed
    os.rename(tmp_path / "s" / "bee", os.fsencode(tmp_path / "s") + b"/M\xfcller")
    with pytest.raises(ValueError, match=r"the name b'M\\xfcller' is not UTF-8: rename"):
        image_folder.write(tmp_path / "a", source)


def test_jpeg_is_decoded_as_pillow_does(tmp_path):
    Image.fromarray(SQUARE.transpose(1, 2, 0)).save(tmp_path / "a.jpg")
    expected = np.asarray(Image.open(tmp_path / "a.jpg")).transpose(2, 0, 1)
    assert np.array_equal(pixels(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_colours_become_rgb(mode, tmp_path):
    image = Image.fromarray(SQUARE.transpose(1, 2, 0)).convert(mode)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(pixels(tmp_path / "a.png"), expected)


@pytest.mark.parametrize(("dtype", "mode"), [(np.uint16, "I;16"), (np.float32, "F")])
def test_more_than_eight_bits_are_refused_instead_of_cut_off(dtype, mode, tmp_path):
    Image.fromarray(np.full((8, 8), 300, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=f"picture a has pixels of mode {mode}, must have 8 bits"):
        pixels(tmp_path / "a.tif")


def test_blocks_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK", 3)
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    images = random_images(3, 8, 3, 8, 8)
    for path, image in zip(paths, images, strict=True):
        save(path, image)
    blocks = list(decoding.blocks(paths, list(map(str, paths)), Source(size=8), Counter()))
    assert [len(block) for block in blocks] == [3, 3, 2]
    assert np.array_equal(np.concatenate(blocks), images)


# Folders


def test_a_folder_without_parts_has_no_published_test(tmp_path):
    source = folder_of(tmp_path / "s", "bee/2.png", "bee/10.png", "ant/x/1.png", "ant/.x.png")
    (tmp_path / "s" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "s" / "README.md").write_text("no class")
    (tmp_path / "s" / ".git").mkdir()
    data = packed(image_folder, source, tmp_path / "a")
    assert data.ids.tolist() == ["ant/x/1.png", "bee/10.png", "bee/2.png"]
    assert data.classes == ("ant", "bee")
    assert data.labels.tolist() == [0, 1, 1]
    assert data.published_test is None
    for row, seed in enumerate((2, 1, 0)):
        assert np.array_equal(data.images[row], random_images(seed, 3, 8, 8))


def test_links_are_followed(tmp_path):
    source = folder_of(tmp_path / "s", "ant/1.png", "bee/1.png")
    save(tmp_path / "elsewhere" / "2.png", SQUARE)
    (tmp_path / "s" / "bee" / "more").symlink_to(tmp_path / "elsewhere")
    data = packed(image_folder, source, tmp_path / "a")
    assert data.ids.tolist() == ["ant/1.png", "bee/1.png", "bee/more/2.png"]
    assert np.array_equal(data.images[2], SQUARE)


def test_training_images_come_first(tmp_path):
    paths = ("test/ant/1.png", "train/bee/1.png", "train/ant/1.png", "test/bee/1.png")
    data = packed(image_folder, folder_of(tmp_path / "s", *paths), tmp_path / "a")
    assert data.ids.tolist() == [paths[2], paths[1], paths[0], paths[3]]
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.published_test.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "valid", "Test"),
        ("training", "validation", "testing"),
        ("train", "dev", "test"),
    ],
)
def test_a_validation_part_is_kept(names, tmp_path):
    paths = [f"{part}/{c}/1.png" for part in names for c in ("ant", "bee")]
    data = packed(image_folder, folder_of(tmp_path / "s", *paths[::-1]), tmp_path / "a")
    assert data.ids.tolist() == paths
    assert data.classes == ("ant", "bee")
    assert data.labels.tolist() == [0, 1] * 3
    assert data.published_validation.tolist() == [False, False, True, True, False, False]
    assert data.published_test.tolist() == [False] * 4 + [True] * 2
    assert "parts: train 2, validation 2, test 2" in described(tmp_path / "a", data)


def test_validation_without_test_is_what_was_set_apart_for_testing(tmp_path):
    paths = [f"{part}/{c}/1.png" for part in ("train", "val") for c in ("ant", "bee")]
    data = packed(image_folder, folder_of(tmp_path / "s", *paths), tmp_path / "a")
    assert data.published_validation is None
    assert data.published_test.tolist() == [False, False, True, True]
    text = described(tmp_path / "a", data)
    assert "parts: train 2, test 2\nvalidation images, set apart for testing as there" in text


@pytest.mark.parametrize(
    "paths", [("test/1.png", "train/1.png"), ("b/1.png", "test/a/1.png", "train/1.png")]
)
def test_test_and_train_can_be_classes(paths, tmp_path):
    data = packed(image_folder, folder_of(tmp_path / "s", *paths), tmp_path / "a")
    assert data.classes == tuple(path.split("/")[0] for path in paths)
    assert data.published_test is None


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["a.png"],
            "{root} must have a folder of images for each of 2 or more classes, it has none",
        ),
        (["ant/a.png"], "{root} must have a folder .* classes, it has 'ant'"),
        (["ant/a.png", "bee/.a.png"], "{root}/bee holds no image: .* end in .bmp, .jpeg, .jpg, "),
        (
            ["train/ant/a.png", "test/ant/a.png"],
            "{root}/train must have a folder .* classes, it has 'ant'",
        ),
        (
            [f"{part}/{c}/a.png" for part in ("train", "val", "extra") for c in ("ant", "bee")],
            "{root} has the parts 'train', 'val', and 'extra' beside them, which is none: move it",
        ),
        (
            [f"{part}/{c}/a.png" for part in ("train", "val", "dev") for c in ("ant", "bee")],
            "{root} has the parts 'dev', 'train', 'val': there must be one of training, and at",
        ),
        (
            [f"{part}/{c}/a.png" for part in ("test", "val") for c in ("ant", "bee")],
            "{root} has the parts 'test', 'val': there must be one of training",
        ),
        (
            ["train/ant/a.png", "train/bee/a.png", "test/ant/a.png", "test/cat/a.png"],
            "{root}/test has no folder 'bee', which {root}/train has: .* the same classes",
        ),
        (
            [
                "train/ant/a.png",
                "train/bee/a.png",
                *(f"test/{c}/a.png" for c in ("ant", "bee", "cat")),
            ],
            "{root}/train has no folder 'cat', which {root}/test has",
        ),
    ],
)
def test_wrong_folders_are_refused(paths, message, tmp_path):
    source = folder_of(tmp_path / "s", *paths)
    with pytest.raises(ValueError, match=message.format(root=source.path)):
        image_folder.write(tmp_path / "a", source)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_missing_folder_is_named(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=f"there is no folder .*{name} to take images from"):
        image_folder.write(tmp_path / "a", Source(path=str(tmp_path / name)))


def test_a_link_that_leads_back_is_refused(tmp_path):
    source = folder_of(tmp_path / "s", "ant/a.png", "bee/b.png")
    for name in ("again", "other"):
        (tmp_path / "s" / "bee" / name).symlink_to("..")
    with pytest.raises(ValueError, match="is a link to a folder in which it lies itself"):
        image_folder.write(tmp_path / "a", source)


def test_a_pipe_is_no_image_to_wait_for(tmp_path):
    source = folder_of(tmp_path / "s", "ant/a.png", "bee/b.png")
    os.mkfifo(tmp_path / "s" / "bee" / "c.png")
    assert len(packed(image_folder, source, tmp_path / "a").ids) == 2


@pytest.mark.parametrize(("width", "height"), [(60_000, 2), (2, 60_000)])
def test_an_image_without_end_is_refused(width, height, tmp_path):
    Image.fromarray(np.zeros((height, width), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a is too long for a crop: .* must be at most 1048576"):
        decoding.decoded(tmp_path / "a.png", "a", Source(size=64))


DAMAGED = {"text": b"no image", "script": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}


@pytest.mark.parametrize("damage", [*DAMAGED, "truncated"])
def test_an_unreadable_image_is_named(damage, tmp_path):
    source = folder_of(tmp_path / "s", "ant/a.png", "bee/b.png", "bee/c.png")
    path = tmp_path / "s" / "bee" / "b.png"
    path.write_bytes(DAMAGED.get(damage, path.read_bytes()[:-40]))
    why = "image file is truncated" if damage == "truncated" else "cannot identify image file"
    with pytest.raises(ValueError, match=f"{path} is not a readable image: {why}"):
        image_folder.write(tmp_path / "a", source)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]


# Tables


def test_a_table_alone_gives_ids_and_no_more(tmp_path):
    source = table_of(tmp_path / "s", "\ufefflabel,path,age\nx,b.png,\n\n07,a.png,3\nNA,c.png,\n")
    data = packed(image_table, source, tmp_path / "a")
    assert data.ids.tolist() == ["b.png", "a.png", "c.png"]
    assert data.classes == ("07", "NA", "x")
    assert data.labels.tolist() == [2, 0, 1]
    assert data.published_test is None
    assert data.attributes == {}
    for row, seed in enumerate((1, 0, 2)):
        assert np.array_equal(data.images[row], random_images(seed, 3, 8, 8))


def test_ids_subjects_and_parts_follow_their_images(tmp_path):
    text = (
        "id,path,label,subject,part\n"
        '1,a.png,y,"Mr. A, B",test\n'
        f"2,{tmp_path / 's' / 'b.png'},x,C,train\n"
        "3,c.png,y,D,train\n"
    )
    data = packed(image_table, table_of(tmp_path / "s", text), tmp_path / "a")
    assert data.ids.tolist() == ["2", "3", "1"]
    assert data.labels.tolist() == [0, 1, 1]
    assert data.attributes["subject"].tolist() == ["C", "D", "Mr. A, B"]
    assert data.published_test.tolist() == [False, False, True]
    for row, seed in enumerate((1, 2, 0)):
        assert np.array_equal(data.images[row], random_images(seed, 3, 8, 8))


def test_a_table_can_have_a_validation_part(tmp_path):
    text = "path,label,part\na.png,x,test\nb.png,y,dev\nc.png,x, Train\n"
    data = packed(image_table, table_of(tmp_path / "s", text), tmp_path / "a")
    assert data.ids.tolist() == ["c.png", "b.png", "a.png"]
    assert data.published_validation.tolist() == [False, True, False]
    assert data.published_test.tolist() == [False, False, True]


def test_parquet_gives_the_same_as_csv(tmp_path):
    text = "id,path,label,subject,part\n1,a.png,10,5,test\n2,b.png,9,6,train\n3,c.png,10,6,train\n"
    source = table_of(tmp_path / "s", text)
    frame = pd.read_csv(source.path)
    assert frame["label"].dtype == np.int64  # numbers, which become text
    frame.to_parquet(tmp_path / "s" / "table.parquet")
    one = packed(image_table, source, tmp_path / "a")
    other = packed(
        image_table, Source(path=str(tmp_path / "s" / "table.parquet"), size=8), tmp_path / "b"
    )
    for name in ("images", "labels", "ids", "published_test"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.classes == other.classes == ("9", "10")
    assert one.attributes["subject"].tolist() == other.attributes["subject"].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,kind\na.png,x\n", "{table} has no column 'label', only 'path', 'kind'"),
        ("", "{table} has no column 'path', only $"),
        ("path,label,path\na.png,x,b.png\n", "{table} has the column 'path' more than once"),
        ("path,label\na.png,x\nb.png,\n", "{table}, line 3: label is missing"),
        ("path,label\n\n,x\nb.png,y\n", "{table}, line 3: path is missing"),
        ("path,label,id\na.png,x,\n", "{table}, line 2: id is missing"),
        ("path,label,subject\na.png,x,\n", "{table}, line 2: subject is missing"),
        ("path,label,part\na.png,x,\n", "{table}, line 2: part is missing"),
        (
            "path,label,part\na.png,x,train\nb.png,y,eval\n",
            "{table}, line 3: part must be one of train, training, val, .*, got 'eval'",
        ),
        (
            "path,label,id\na.png,x,1\nb.png,y,2\nc.png,x,1\n",
            "{table}, line 4: .*: the id '1' is already that of {table}, line 2: {folder}/a.png",
        ),
        (
            "path,label\na.png,x\nb.png,y\na.png,x\n",
            "{table}, line 4: .*: the id 'a.png' is already that of {table}, line 2",
        ),
        ("path,label\na.png, \n", "{table}, line 2: label is missing"),
        ("path,label\na.png,x,y\n", "{table}, line 2: there are 3 cells below a header of 2"),
        (
            "path,label\na.png,x\nb.png,x\n",
            "{table} must have images of 2 or more classes, its labels are 'x'",
        ),
        ("path,label\n", "{table} must have images of 2 or more classes, its labels are none"),
        (
            "path,label\na.png,x\nz.png,y\n",
            "{table}, line 3: {folder}/z.png is not a readable image: .*No such file",
        ),
        ("path,label\na.png,x\ntable.csv,y\n", "{table}, line 3: {folder}/table.csv is not a read"),
    ],
)
def test_wrong_tables_are_refused(text, message, tmp_path):
    source = table_of(tmp_path / "s", text)
    expected = message.format(table=source.path, folder=tmp_path / "s")
    with pytest.raises(ValueError, match=expected):
        image_table.write(tmp_path / "a", source)
    assert os.listdir(tmp_path) == ["s"]


def test_a_missing_value_of_parquet_is_refused(tmp_path):
    folder_of(tmp_path, "a.png", "b.png")
    table = tmp_path / "table.parquet"
    pd.DataFrame({"path": ["a.png", "b.png"], "label": [1, None]}).to_parquet(table)
    with pytest.raises(ValueError, match=f"{table}, row 2: label is missing"):
        image_table.write(tmp_path / "a", Source(path=str(table)))


@pytest.mark.parametrize(
    ("name", "message"),
    [("table.csv", "is not a CSV table in UTF-8"), ("table.parquet", "is not a parquet table")],
)
def test_a_table_of_another_kind_is_refused(name, message, tmp_path):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(ValueError, match=f"{name} {message}"):
        image_table.write(tmp_path / "a", Source(path=str(tmp_path / name)))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no table .*x\.csv to take images from"):
        image_table.write(tmp_path / "a", Source(path=str(tmp_path / "x.csv")))
