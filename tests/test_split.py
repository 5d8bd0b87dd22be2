"""The stage ``split``: what its output, ``request.json`` and the record say of a request."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imu import selecting, splitting
from imu.datasets import Source, image_table
from tasks import split
from tasks.files.artifacts import ArtifactError
from tasks.files.workspace import Workspace
from tasks.tracking.record import record
from tests.conftest import REPOSITORY, change

EACH = 60  # images of each of two classes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace up to ``split``. Image 1 has two copies, and image 3 stands under two ids."""
    root = tmp_path_factory.mktemp("split")
    shutil.copyfile(REPOSITORY / "params.yaml", root / "params.yaml")
    shutil.copytree(REPOSITORY / "requests", root / "requests")
    draw, rows = np.random.default_rng(0), []
    for n in range(2 * EACH):
        pixels = draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{n}.png")
        rows.append((f"i{n}", f"{n}.png", ("ant", "bee")[n % 2]))
    shutil.copyfile(root / "1.png", root / "5.png")
    shutil.copyfile(root / "1.png", root / "7.png")
    rows.append(("again", "3.png", "bee"))
    pd.DataFrame(rows, columns=["id", "path", "label"]).to_csv(root / "images.csv", index=False)
    source = Source(path=str(root / "images.csv"), size=8)
    image_table.write(root / "data" / "image_table", source)
    data = {"path": source.path, "size": 8}
    change(root, {"data": data, "split": {"dataset": "image_table", "scenario": "ids"}})
    return root


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(prepared, tmp_path / "copy"))


def listed(workspace: Workspace, name: str, *ids: str) -> None:
    file = workspace.root / "requests" / name
    file.write_text("".join(f"{line}\n" for line in ("id", *ids)))


def said(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the stage prints beyond the sizes; ``request.json`` has the same."""
    split.run(workspace, None)
    sizes, *lines = capsys.readouterr().out.splitlines()
    assert sizes.startswith("samples: train ")
    assert workspace.read_request()["notes"] == lines
    return lines


def sets(workspace: Workspace) -> dict[str, set[str]]:
    names = ("train", "retain", "forget", "validation", "test")
    return {name: set(workspace.read_manifest(name)["id"]) for name in names}


def lie(workspace: Workspace, name: str, count: int, without: set[str] | None = None) -> list[str]:
    """Some ids of a set before anything is forgotten, none of them with copies."""
    listed(workspace, "example.csv", "i1", "i0", "i2", "i4", "i6", "i8", "i10")
    change(workspace.root, {"split": {"scenario": "class", "by_class": {"classes": ["bee"]}}})
    split.run(workspace, None)
    change(workspace.root, {"split": {"scenario": "ids"}})
    copies = {"i1", "i5", "i7", "i3", "again"}
    return sorted(sets(workspace)[name] - copies)[:count]


def test_where_the_requested_lie_is_said(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*lie(workspace, "train", 6), *lie(workspace, "validation", 3)]
    asked += lie(workspace, "test", 2)
    listed(workspace, "example.csv", *asked)
    capsys.readouterr()
    assert said(workspace, capsys) == [
        "Samples requested: 11. Trained on: 6; taken out of validation: 3; taken out of test: 2; "
        "not used: 0."
    ]
    counts = record(workspace, "split", None).metrics
    assert (counts["requested/train"], counts["requested/validation"]) == (6.0, 3.0)
    assert counts["n_forget"] == 6.0


def test_copies_are_counted_and_named_or_forgotten(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    other = lie(workspace, "train", 1)
    listed(workspace, "example.csv", "i1", "i3", *other)
    capsys.readouterr()
    (_, copies) = said(workspace, capsys)
    before = sets(workspace)
    assert copies.startswith(
        "Samples with the very content of a forgotten one, kept (split.forget_twins is false): "
    )
    for twin, of in (("i5", "i1"), ("i7", "i1"), ("again", "i3")):
        assert any(f"{twin} ({name}) is a copy of {of}" in copies for name in before)
    assert {"i5", "i7", "again"} <= before["retain"] | before["validation"] | before["test"]
    assert record(workspace, "split", None).metrics["n_twins"] == 3.0
    change(workspace.root, {"split": {"forget_twins": True}})
    assert "a forgotten one, forgotten and taken out too: " in said(workspace, capsys)[1]
    after = sets(workspace)
    assert not {"i5", "i7", "again"} & (after["retain"] | after["validation"] | after["test"])
    assert after["forget"] == (before["forget"] | {"i5", "i7", "again"}) & after["train"]


def test_what_was_forgotten_before_is_in_no_set_and_said(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = lie(workspace, "train", 2)
    listed(workspace, "example.csv", second)
    listed(workspace, "forgotten.csv", first, "i1")
    capsys.readouterr()
    _, left_out, copies = said(workspace, capsys)
    assert left_out.startswith(
        "Left out because of what requests/forgotten.csv lists as forgotten before: "
    )
    assert "of one forgotten before, kept (split.forget_twins is false): " in copies
    assert not {first, "i1"} & set.union(*sets(workspace).values())
    assert record(workspace, "split", None).metrics["n_left_out"] == 2.0
    listed(workspace, "forgotten.csv", first, "nobody")
    with pytest.raises(ValueError, match=r"requests/forgotten\.csv: 1 of 2 ids are not in the"):
        split.run(workspace, None)
    (workspace.root / "requests" / "forgotten.csv").unlink()
    with pytest.raises(ArtifactError, match=r"requests/forgotten\.csv is missing"):
        split.run(workspace, None)


def test_few_samples_of_a_class_are_one_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = {"validation": 0.06, "test": 0.8}
    request = {"scenario": "fraction", "by_fraction": {"fraction": 0.2}}
    change(workspace.root, {"split": shares | request})
    (few,) = said(workspace, capsys)
    assert few.startswith("Of 2 of 2 classes there are fewer than 5 validation samples (")
    change(workspace.root, {"split": {"validation": 0.2, "test": 0.25}})
    assert not any("validation samples" in line for line in said(workspace, capsys))


def test_classes_too_small_for_the_fraction_are_one_line() -> None:
    sets = {
        name: pd.DataFrame({"label": labels})
        for name, labels in (
            ("train", [0] * 9 + [1] * 2 + [2] * 3),
            ("forget", [0] * 2),
            ("validation", [0] * 5 + [1] * 5 + [2] * 5),
        )
    }
    config = splitting.Config(
        scenario="fraction", by_fraction=splitting.FractionRequest(fraction=0.15)
    )
    none = pd.DataFrame({"id": [], "set": [], "of": [], "before": []})
    found = selecting.Selection(sets, (), {}, {}, none)
    assert split._notes(found, config, ("a", "b", "c")) == [
        "Of 2 of 3 classes nothing is forgotten: they are so small that "
        "split.by_fraction.fraction 0.15 comes to no sample."
    ]
