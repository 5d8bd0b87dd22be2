"""``python -m tasks data``: what is written, recorded and refused."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imu.datasets import Source, made_from
from imu.datasets.common import origin, packed
from tasks.data import prepare, require_source
from tasks.files.artifacts import ArtifactError
from tasks.files.workspace import Workspace
from tests.conftest import change, make_workspace, run, tasks
from tests.tiny_sources import random_images, save


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a folder of images, which the digits stand beside."""
    root = make_workspace(tmp_path_factory.mktemp("data") / "workspace")
    for seed, path in enumerate(("ant/1.png", "ant/2.png", "bee/1.png", "bee/2.png")):
        save(root / "downloads" / path, random_images(seed, 3, 9, 9))
    return root


@pytest.fixture(autouse=True)
def _restored(shared: Path):
    """Every test begins with the digits alone."""
    kept = {name: (shared / name).read_text() for name in ("params.yaml", "data.dvc")}
    yield
    shutil.rmtree(shared / "data" / "image_folder", ignore_errors=True)
    for name, text in kept.items():
        (shared / name).write_text(text)


def data(root: Path, *, refused: bool = False) -> str:
    return tasks(root, "data", status=int(refused))


def choose(root: Path, **source: object) -> None:
    change(root, {"split": {"dataset": "image_folder"}, "data": source})


def test_a_new_data_set_is_written_and_asks_to_be_recorded(shared: Path) -> None:
    choose(shared, size=9)
    folder = shared / "data" / "image_folder"
    message = data(shared, refused=True)
    described = "4 images of 3×9×9, 2 classes in this order: 0 'ant' (2), 1 'bee' (2)\n"
    assert f"data: wrote {folder}\n{described}" in message
    assert (
        "data/image_folder is new, and data.dvc does not record it yet: `dvc add data`" in message
    )
    # The path as it stands in params.yaml, so that the data are the same wherever they are made.
    assert made_from(folder) == Source(path="downloads", size=9)
    again = data(shared, refused=True)
    assert "data/ differs from what data.dvc records" in again
    assert "if a data set is new or a change is meant, record it with `dvc add data`" in again
    run("dvc", "add", "-q", "data", cwd=shared)
    assert data(shared) == f"{described}data/ is what data.dvc records\n"


def test_a_relative_path_starts_at_the_workspace(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(shared, size=9)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="data/image_folder is new"):
        prepare(Workspace(shared))
    assert made_from(shared / "data" / "image_folder") == Source(path="downloads", size=9)
    assert not list(tmp_path.iterdir())


def test_a_source_that_changed_after_is_told(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.data._differs", lambda root: False)
    choose(shared, size=9)

    def told() -> bool:
        prepare(Workspace(shared))
        return "WARNING: downloads changed after data/image_folder was" in capsys.readouterr().out

    image = shared / "downloads" / "ant" / "1.png"
    kept = image.read_bytes()
    assert not told()
    image.unlink()
    assert told()
    image.write_bytes(kept)
    assert not told()
    (shared / "downloads").rename(shared / "away")  # as on another machine
    assert not told()
    (shared / "away").rename(shared / "downloads")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_data_are_made_from_has_a_fingerprint(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    assert origin.fingerprint(path) == ""
    file = path if kind == "file" else path / "ant" / "1.png"
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_bytes(b"one")
    first = origin.fingerprint(path)
    file.write_bytes(b"another")
    assert origin.fingerprint(path) != first
    file.write_bytes(b"one")
    if kind == "folder":
        (path / ".hidden").write_bytes(b"nothing")
    assert origin.fingerprint(path) == first


@pytest.mark.parametrize(
    ("source", "was", "says"),
    [
        ({"path": "photos"}, "data.path 'downloads'", "data.path 'photos'"),
        (
            {"size": 8, "resize": 11},
            "data.size 9, data.resize 0",
            "data.size 8, data.resize 11",
        ),
        ({"fit": "stretch"}, "data.fit 'crop'", "data.fit 'stretch'"),
        ({"classes": ["bee", "ant"]}, "data.classes ()", "data.classes ('bee', 'ant')"),
    ],
)
def test_data_made_from_something_else_are_refused(
    shared: Path, source: dict[str, object], was: str, says: str
) -> None:
    choose(shared, size=9)
    before = (shared / "params.yaml").read_text()
    data(shared, refused=True)
    run("dvc", "add", "-q", "data", cwd=shared)
    choose(shared, **source)
    folder = shared / "data" / "image_folder"
    message = data(shared, refused=True)
    assert f"{folder} was made from {was}, but params.yaml has {says}. Put" in message
    assert "remove that folder and run `make data` to have it made again" in message
    (shared / "params.yaml").write_text(before)
    choose(shared, path="./downloads/", size=9)
    assert "data/ is what data.dvc records\n" in data(shared)


@pytest.mark.parametrize(
    "changes", [{"fit": "stretch"}, {"resize": 9}, {"classes": ("b", "a")}, {"path": "b"}]
)
def test_every_setting_is_compared(changes: dict[str, Any], tmp_path: Path) -> None:
    source = Source(path="a", size=8)
    images = [random_images(0, 2, 3, 8, 8)]
    packed.write(tmp_path, "x", images, labels=np.arange(2), ids="ab", classes="ab", source=source)
    require_source(tmp_path, source)
    with pytest.raises(ArtifactError, match=f"was made from data.{next(iter(changes))} "):
        require_source(tmp_path, replace(source, **changes))


def test_the_digits_do_not_mind_the_source(shared: Path) -> None:
    change(shared, {"data": {"path": "nowhere", "size": 64}})
    assert "data/ is what data.dvc records\n" in data(shared)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "nowhere"}, "there is no folder nowhere to take images from"),
        ({"size": 4}, "data: size must be in [8, 4096], got 4"),
        ({"fit": "pad"}, "data.fit: Input should be 'crop' or 'stretch', got 'pad'"),
        ({"classes": ["ant", "cat"]}, "data.classes lacks 'bee'"),
        ({"pth": "x"}, "unknown parameter data.pth; known here: path, size, fit"),
    ],
)
def test_wrong_sources_are_refused_and_leave_nothing(
    shared: Path, source: dict[str, object], message: str
) -> None:
    choose(shared, **source)
    assert message in data(shared, refused=True)
    assert [entry.name for entry in (shared / "data").iterdir()] == ["digits"]


def test_the_section_is_checked_before_anything_runs(shared: Path) -> None:
    change(shared, {"data": {"size": 4}})
    said = tasks(shared, "check", status=1)
    assert "params.yaml: data: size must be in [8, 4096], got 4" in said


def test_data_that_a_stage_is_reading_are_checked_all_the_same(shared: Path) -> None:
    labels = shared / "data" / "digits" / "labels.npy"
    reader = {"pid": os.getpid(), "cmd": "dvc repro"}
    (shared / ".dvc" / "tmp" / "rwlock").write_text(json.dumps({"read": {str(labels): [reader]}}))
    try:
        assert "data/ is what data.dvc records\n" in data(shared)
        (shared / "data" / "more").write_text("not recorded")
        assert "data/ differs from what data.dvc records" in data(shared, refused=True)
    finally:
        (shared / "data" / "more").unlink(missing_ok=True)
        (shared / ".dvc" / "tmp" / "rwlock").unlink()
