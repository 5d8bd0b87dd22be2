"""Cells of a sweep, and the workspaces that they are."""

from pathlib import Path

import pandas as pd
import pytest

from flows import sweep
from flows.running.cells import Cell, CommitError, LinkError, fingerprint, prepare
from flows.running.requests import Forgetting, Fraction, Method
from tasks.files import params
from tasks.pages import sweep_page, tables
from tests.conftest import REPOSITORY, commit, run


def test_a_cell_has_changed_parameters_and_the_rest_as_it_is(workspace: Path) -> None:
    cell = Cell(name="x", changes={"seed": 7, "split.scenario": "fraction"})
    folder = prepare(workspace, cell)
    expected = params.read(workspace)
    expected["seed"] = 7
    expected["split"]["scenario"] = "fraction"
    assert params.read(folder) == expected
    assert prepare(workspace, cell) == folder
    assert prepare(workspace, Cell(name="x", changes={"seed": 8})) != folder
    code = "imu/objectives/__init__.py"
    assert (folder / code).read_bytes() == (workspace / code).read_bytes()


@pytest.mark.parametrize("path", ["train.epoch", "trian.epochs", "network.width.x", "epochs"])
def test_a_cell_cannot_change_what_is_not_there(workspace: Path, path: str) -> None:
    with pytest.raises(params.ParameterError, match=f"no '{path}' to change"):
        prepare(workspace, Cell(name="x", changes={path: 1}))


def test_a_cell_cannot_lose_the_rest_of_a_section(workspace: Path) -> None:
    with pytest.raises(params.ParameterError, match=r"such as 'train\.epochs'"):
        prepare(workspace, Cell(name="x", changes={"train": {"epochs": 1}}))


def test_a_cell_has_what_the_user_brings(workspace: Path) -> None:
    (workspace / ".gitignore").write_text("/own/mine.pt\n")
    (workspace / "own" / "mine.pt").write_bytes(b"weights")
    folder = prepare(workspace, Cell(name="x", changes={"seed": 7}))
    assert (folder / "own" / "mine.pt").read_bytes() == b"weights"


def test_a_cell_has_the_files_of_folders_that_are_linked(workspace: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "mine.pt").write_bytes(b"weights")
    (elsewhere / "again").symlink_to(elsewhere / "deep")
    before = fingerprint(workspace)
    for name in ("one", "other"):  # which is no loop
        (workspace / "own" / name).symlink_to(elsewhere)
    linked = fingerprint(workspace)
    cell = Cell(name="x", changes={"seed": 7})
    for _ in range(2):
        folder = prepare(workspace, cell)
        for name in ("one/deep", "one/again", "other/deep"):
            assert (folder / "own" / name / "mine.pt").read_bytes() == b"weights"
        assert not (folder / "own" / "one").is_symlink()
    (elsewhere / "deep" / "mine.pt").write_bytes(b"changed")
    assert len({before, linked, fingerprint(workspace)}) == 3
    for name in ("one", "other"):
        (workspace / "own" / name).unlink()
    folder = prepare(workspace, cell)
    assert not [path for path in (folder / "own").rglob("*.pt") if path.is_file()]
    assert (elsewhere / "deep" / "mine.pt").read_bytes() == b"changed"


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("lost", "no/where", "own/lost is a link to no/where, which is not there"),
        ("all", "..", r"own/all is a link to \.\., in which it lies itself"),
        ("same", "../own", "own/same is a link to ../own, in which it lies itself"),
    ],
)
def test_a_link_that_cannot_be_followed_is_named(
    workspace: Path, name: str, target: str, message: str
) -> None:
    (workspace / "own" / name).symlink_to(target)
    with pytest.raises(LinkError, match=message):
        prepare(workspace, Cell(name="x", changes={"seed": 7}))


def test_a_commit_has_no_files_of_linked_folders(workspace: Path, tmp_path: Path) -> None:
    (workspace / "own" / "file").symlink_to("README.md")
    run("git", "add", "own", cwd=workspace)
    commit(workspace)
    folder = prepare(workspace, Cell(name="x", changes={"seed": 7}, commit="HEAD"))
    assert (folder / "own" / "file").read_bytes() == (folder / "own" / "README.md").read_bytes()
    (workspace / "own" / "linked").symlink_to(tmp_path)
    run("git", "add", "own", cwd=workspace)
    commit(workspace)
    with pytest.raises(CommitError, match=r"own/linked is a link to .*: commit the files"):
        prepare(workspace, Cell(name="x", changes={"seed": 7}, commit="HEAD"))


def test_a_sweep_is_every_combination() -> None:
    requests = [Forgetting(), Forgetting(forget=Fraction(fraction=0.2))]
    cells = sweep.asked_cells(
        REPOSITORY, requests, [Method.imu], [0, 4], {"train.epochs": [1, 2], "snapshots": [3]}, "c"
    )
    assert [cell.name for cell in cells] == [
        f"digits · {forget} · seed {seed} · train.epochs {epochs}, snapshots 3"
        for forget in ("class 8", "20 %")
        for seed in (0, 4)
        for epochs in (1, 2)
    ]
    assert cells[-1].commit == "c"
    assert cells[-1].changes.pop("unlearn").keys() == {"nothing", "logit_mask", "imu"}
    assert cells[-1].changes == {
        "split.scenario": "fraction",
        "split.by_fraction.fraction": 0.2,
        "seed": 4,
        "train.epochs": 2,
        "snapshots": 3,
    }
    with pytest.raises(params.ParameterError, match="requests must not have a seed"):
        sweep.asked_cells(REPOSITORY, [Forgetting(settings={"seed": 1})], [], [0], {}, "")
    with pytest.raises(params.ParameterError, match=r"has no 'train\.epoch' to change"):
        sweep.asked_cells(REPOSITORY, [Forgetting()], [], [0], {"train.epoch": [1]}, "")
    for twice in ({"seeds": [0, 0]}, {"seeds": [0], "grid": {"train.epochs": [1, 1]}}):
        given = {"grid": {}, "commit": ""} | twice
        with pytest.raises(params.ParameterError, match="must name each cell once"):
            sweep.asked_cells(REPOSITORY, [Forgetting()], [], **given)


def test_names_are_no_html_on_the_page_of_a_sweep() -> None:
    table = pd.DataFrame({"class": ["<script>alert(1)</script>", "a|b\nc"]})
    page = sweep_page.page([], "x", {}, tables.markdown(table))
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in page
    assert "<td>a|b c</td>" in page
