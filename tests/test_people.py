"""Data sets of people: the layout of Market-1501, junk and distractors too, and the stand-in."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imu.datasets import Source, described, identities, made_from, market1501
from imu.datasets.common import people

TRAIN, QUERY, GALLERY = market1501.FOLDERS
# Person -> images of each camera, in the training folder.
TRAINED = {"0002": (4, 4, 1), "0007": (3, 2), "0011": (8, 1, 1, 1), "0020": (1, 1)}
SIZE = 8


def save(root: Path, folder: str, name: str, shade: int) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 256, (24, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / folder / name)


def market(root: Path) -> Path:
    """A folder in the layout; its file names are those of the field."""
    shade = 0
    for person, cameras in TRAINED.items():
        for camera, count in enumerate(cameras, start=1):
            for frame in range(count):
                save(
                    root,
                    TRAIN,
                    f"{person}_c{camera}s1_{1000 * frame:06d}_01.jpg",
                    shade := shade + 1,
                )
    for name in ("0001_c1s1_001051_00.jpg", "0001_c2s1_000301_00.jpg", "0003_c6s3_083392_00.jpg"):
        save(root, QUERY, name, shade := shade + 1)
    for name in (
        *("0001_c1s1_002301_02.jpg", "0001_c2s1_000351_01.jpg", "0001_c3s2_000001_01.jpg"),
        "0003_c6s4_000001_01.jpg",  # by the query's own camera alone: no answer
        *("0000_c1s1_000151_01.jpg", "0000_c4s6_018502_04.jpg"),
        *("-1_c1s1_000401_03.jpg", "-1_c3s3_077419_07.jpg"),
    ):
        save(root, GALLERY, name, shade := shade + 1)
    (root / GALLERY / "Thumbs.db").write_bytes(b"no image")
    (root / "gt_bbox").mkdir()
    return root


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def packed(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "market1501"
    market1501.write(folder, Source(path=str(layout), size=SIZE))
    return folder


def test_the_layout_of_the_field_is_read(packed: Path, layout: Path) -> None:
    data = market1501.load(packed)
    assert data.objective == "identification"
    assert data.images.shape == (36, 3, 2 * SIZE, SIZE)
    assert data.classes == ("0002", "0007", "0011", "-1", "0000", "0001", "0003")
    assert people.trained_on(data) == 3
    named = {name: data.classes[label] for name, label in zip(data.ids, data.labels, strict=True)}
    assert all(Path(name).name.startswith(f"{person}_c") for name, person in named.items())
    assert data.attributes["subject"].tolist() == list(named.values())
    cameras = [Path(name).name.split("_c")[1][0] for name in named]
    assert data.attributes["camera"].tolist() == cameras
    roles = dict(zip(data.ids.tolist(), data.attributes["role"].tolist(), strict=True))
    assert Counter(roles[name] for name in roles if name.startswith(QUERY)) == {"query": 3}
    in_gallery = {n: role for n, role in roles.items() if n.startswith(GALLERY)}
    assert {n for n, role in in_gallery.items() if role == ""} == {
        f"{GALLERY}/-1_c1s1_000401_03.jpg",
        f"{GALLERY}/-1_c3s3_077419_07.jpg",
    }
    assert Counter(in_gallery.values()) == {"gallery": 6, "": 2}
    said = described(packed, data)
    for line in (
        "distractors in the gallery: 2",
        "junk, left out of every search: 2",
        "people left out, of whom nothing would be left to train on: 1",
        "they are not asked: 1",
    ):
        assert line in said
    assert made_from(packed) == Source(path=str(layout), size=SIZE)


def test_of_each_camera_the_last_images_are_held_out(packed: Path) -> None:
    data = market1501.load(packed)
    part = np.where(
        data.published_test, "test", np.where(data.published_validation, "val", "train")
    )
    found = {
        (person, camera): part[(data.labels == label) & (data.attributes["camera"] == camera)]
        for label, person in enumerate(data.classes[:3])
        for camera in "1234"
    }
    assert found["0002", "1"].tolist() == ["train", "train", "val", "test"]
    assert found["0002", "3"].tolist() == ["test"]  # never seen by this camera
    assert found["0007", "1"].tolist() == ["train", "train", "test"]
    assert found["0007", "2"].tolist() == ["train", "test"]
    assert found["0011", "1"].tolist() == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    held = data.published_test & (data.labels < 3)
    assert set(data.attributes["role"][held]) == {"query and gallery"}
    assert set(data.attributes["role"][~data.published_test]) == {""}
    # Whoever was trained on can be found: another camera holds an image of theirs.
    assert people.answered(data.labels, data.attributes["camera"], data.attributes["role"])[
        held
    ].all()
    first = data.ids[(data.labels == 0) & (data.attributes["camera"] == "1")]
    assert first.tolist() == sorted(first.tolist())  # time goes on from train to test


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        (TRAIN, "person7.jpg", r"person7\.jpg: the name must be of the form 0002_c1s1_000451_03"),
        (QUERY, "0001_s1_000451_03.jpg", "must be of the form"),
        (TRAIN, "-1_c1s1_000401_03.jpg", r"junk \(-1\) may lie in the gallery alone"),
        (QUERY, "0000_c1s1_000401_03.jpg", r"a distractor \(0000\) may lie in the gallery alone"),
        (TRAIN, "0099_c4s1_000001_00.jpg", "person '0099' was seen by camera 4 alone"),
        (QUERY, "0002_c1s1_000009_00.jpg", "'0002' is among those trained on and among those ask"),
    ],
)
def test_files_that_do_not_fit_are_named(layout: Path, tmp_path, folder, name, message) -> None:
    path = layout / folder / name
    save(layout, folder, name, 99)
    try:
        with pytest.raises(ValueError, match=message):
            market1501.write(tmp_path / "a", Source(path=str(layout), size=SIZE))
    finally:
        path.unlink()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("missing", market1501.FOLDERS)
def test_a_missing_or_empty_folder_is_named(tmp_path: Path, missing: str) -> None:
    for folder in market1501.FOLDERS:
        if folder != missing:
            save(tmp_path, folder, "0002_c1s1_000001_01.png", 1)
    with pytest.raises(FileNotFoundError, match=f"no folder .*{missing}: put the folders bounding"):
        market1501.write(tmp_path / "a", Source(path=str(tmp_path)))
    (tmp_path / missing).mkdir()
    with pytest.raises(ValueError, match=f"the part '{market1501.FOLDERS[missing]}' holds no im"):
        market1501.write(tmp_path / "a", Source(path=str(tmp_path)))


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_the_stand_in_is_drawn_from_its_seed(tmp_path: Path) -> None:
    source = Source(people=5)
    for name, of in (("a", source), ("b", source), ("c", Source(people=5, seed=1))):
        identities.write(tmp_path / name, of)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert made_from(tmp_path / "a") == source
    data, other = (identities.load(tmp_path / name) for name in ("a", "c"))
    assert (data.images != other.images).any()
    assert data.classes == ("0001", "0002", "-1", "0000", "0003", "0004", "0005")
    roles = Counter(zip(data.attributes["subject"], data.attributes["role"], strict=True))
    assert roles["0001", "query and gallery"] == 2 * identities.CAMERAS
    assert roles["0003", "query"] == identities.CAMERAS
    assert (roles["0000", "gallery"], roles["-1", ""]) == (5, 2)
    inputs = data.images / data.scale
    for channel in range(3):  # mean and std are those of the pixels
        assert inputs[:, channel].mean() == pytest.approx(data.mean[channel])
        assert inputs[:, channel].std() == pytest.approx(data.std[channel])
    more = identities._cast(Source(people=8))
    assert all(
        more[name] == person
        for name, person in identities._cast(source).items()
        if name[0] != "-" and not name.startswith("0000")
    )


def test_images_without_parts_are_no_data_of_people(packed: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="images of people must have a part"):
        people.trained_on(replace(market1501.load(packed), published_test=None))
