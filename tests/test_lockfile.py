"""``dvc.lock`` as runs of ours write it, against DVC."""

import copy
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvc import dvcfile
from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem
from ruamel.yaml import YAML

from tasks.graph import lockfile
from tests.conftest import REPOSITORY

STAGES = ("split", "train", "unlearn@imu", "report")
FILE = {"path": "data/ü", "hash": "md5", "md5": "4fdcba9cb8a48b1ced98f4554d177345.dir", "size": 12}
PARAMETERS = {"seed": 0, "a.b": 1e-05, "c": "on", "d": [], "e": None, "f": {"g": ["1e-3", True]}}
ODD = OrderedDict(
    cmd="exec python -m tasks " + "word " * 30,
    deps=[FILE, {**FILE, "path": "on"}],
    params={"params.yaml": PARAMETERS, "other.yaml": {"text": "two\nlines: of it\n"}},
    outs=[{**FILE, "path": "1"}],
)
WHOLE = (REPOSITORY / "dvc.lock").read_text()
STARTS = [entry.start() for entry in lockfile.ENTRY.finditer(WHOLE)] + [len(WHOLE)]
ENTRIES = [WHOLE[start:end] for start, end in pairwise(STARTS)]
LOCK = lockfile.HEAD + "".join(e for e in ENTRIES if e.split(":")[0].strip() in STAGES)


OURS, OF_DVC, *_ = (lockfile.by_stage(), *dvcfile.Lockfile.__mro__)[1:]


class Named(dict):
    """A stage that has run: its name -> its content."""

    @property
    def name(self) -> str:
        return next(iter(self))


def lock(kind: type, path: Path) -> Any:
    context = SimpleNamespace(track_file=lambda _: None)
    repo = SimpleNamespace(fs=LocalFileSystem(), scm_context=context)
    return kind(repo, str(path))


@pytest.fixture
def dumped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is in the file after ``kind`` has written stages over what was there before."""
    monkeypatch.setattr(
        dvcfile.serialize, "to_lockfile", lambda stage, **_: copy.deepcopy(dict(stage))
    )

    def dump(kind: type, before: str | None, *stages: dict[str, Any]) -> str:
        path = tmp_path / "dvc.lock"
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_text(before)
        lock(kind, path).dump_stages([Named(stage) for stage in stages])
        return path.read_text()

    return dump


def stage(name: str) -> dict[str, Any]:
    return {name: YAML(typ="safe").load(LOCK)["stages"][name]}


@pytest.mark.parametrize("before", [LOCK, None, LOCK[: LOCK.index("  train:\n")]])
@pytest.mark.parametrize("name", ["split", "train", "unlearn@imu", "new", "1", "on", "ü: b"])
def test_the_file_is_to_the_byte_that_of_dvc(dumped: Any, before: str | None, name: str) -> None:
    ours = dumped(OURS, before, {name: ODD})
    assert ours == dumped(OF_DVC, before, {name: ODD})
    assert YAML(typ="safe").load(ours)["stages"][name] == dict(ODD)
    # Once more, and the entry is found again.
    again = {name: {"cmd": "other"}}
    assert dumped(OURS, ours, again) == dumped(OF_DVC, ours, again)


def test_several_stages_are_written_as_dvc_does(dumped: Any) -> None:
    several = [{"train": ODD}, {"new": ODD}, stage("unlearn@imu")]
    assert dumped(OURS, LOCK, *several) == dumped(OF_DVC, LOCK, *several)


def test_entries_that_share_values_are_left_to_dvc(dumped: Any) -> None:
    shared = [0.5]
    stages = [
        {name: {"cmd": "x", "params": {"params.yaml": {"mean": shared, "std": shared}}}}
        for name in ("train", "new", "newer")
    ]
    ours = LOCK
    for stage in stages:
        before, ours = ours, dumped(OURS, ours, stage)
        assert ours == dumped(OF_DVC, before, stage)
    assert "&id003" in ours
    assert set(YAML(typ="safe").load(ours)["stages"]) == {*STAGES, "new", "newer"}
    assert dumped(OURS, ours, {"new": ODD}) == dumped(OF_DVC, ours, {"new": ODD})


@pytest.mark.parametrize("odd", ["  # mine\n", "n" * 130])
def test_what_is_laid_out_otherwise_is_left_to_dvc(dumped: Any, odd: str) -> None:
    before = LOCK + odd if "#" in odd else dumped(OF_DVC, LOCK, {odd: ODD})
    assert lockfile.entries(before) is None
    assert dumped(OURS, before, {"train": ODD}) == dumped(OF_DVC, before, {"train": ODD})


def test_a_link_stays_one(tmp_path: Path, dumped: Any) -> None:
    (tmp_path / "lies").mkdir()
    (tmp_path / "lies" / "there").write_text(LOCK)
    link = tmp_path / "lies" / "dvc.lock"
    link.symlink_to("there")
    lock(OURS, link).dump_stages([Named({"train": ODD})])
    assert link.is_symlink()
    assert (tmp_path / "lies" / "there").read_text() == dumped(OF_DVC, LOCK, {"train": ODD})


def test_what_did_not_change_is_not_written(dumped: Any, tmp_path: Path) -> None:
    dumped(OURS, LOCK)
    before = (tmp_path / "dvc.lock").stat().st_ino
    lock(OURS, tmp_path / "dvc.lock").dump_stages([Named(stage("unlearn@imu"))])
    assert (tmp_path / "dvc.lock").stat().st_ino == before


@pytest.mark.parametrize("head", ["# mine\n", "schema: '2.0'\ndatasets: []\nstages:\n"])
def test_a_file_that_begins_otherwise_is_left_to_dvc(dumped: Any, head: str) -> None:
    before = head + (LOCK if "#" in head else LOCK.removeprefix(lockfile.HEAD))
    ours = dumped(OURS, before, {"train": ODD})
    assert ours == dumped(OF_DVC, before, {"train": ODD})
    assert ours.startswith(head)


def loaded(kind: type, folder: Path, text: str) -> Any:
    (folder / "dvc.lock").write_text(text)
    found = lock(kind, folder / "dvc.lock")._load_yaml()[0]
    return {"schema": found["schema"], "stages": dict(found["stages"])}


@pytest.mark.parametrize("text", [LOCK, lockfile.HEAD + "  new:\n    cmd: x\n", "odd"])
def test_stages_are_read_as_dvc_reads_them(dumped: Any, tmp_path: Path, text: str) -> None:
    text = dumped(OF_DVC, LOCK, {"on": ODD}, {"ü: b": ODD}) if text == "odd" else text
    assert loaded(OURS, tmp_path, text) == loaded(OF_DVC, tmp_path, text)


@pytest.mark.parametrize(
    "change",
    [
        ("    cmd:", "    command:"),
        ("    cmd: ", "    cmd: [1"),
        ("  report:", "<<<<<<< HEAD\n  report:"),
        ("  report:", " report:"),
        ("  report:", "  train:"),
    ],
)
def test_what_dvc_refuses_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    text = LOCK.replace(*change)
    assert text != LOCK
    for kind in (OURS, OF_DVC):
        with pytest.raises(DvcException):
            loaded(kind, tmp_path, text)


def test_only_the_entries_asked_for_are_read(tmp_path: Path) -> None:
    text = LOCK.replace("    cmd: exec python -m tasks split", "    cmd: [")
    assert text != LOCK
    (tmp_path / "dvc.lock").write_text(text)
    stages = lock(OURS, tmp_path / "dvc.lock")._load_yaml()[0]["stages"]
    assert set(stages) == set(STAGES)
    assert stages["train"] == stage("train")["train"]
