"""A disk that is full: it is said what could not be written, and nothing half written counts."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger
from ruamel.yaml import YAML

from flows.running.cells import Cell, clean_commit
from flows.running.children import ChildError
from flows.running.pools import run_stage
from tasks.graph.stages import mend
from tests.conftest import commit, make_workspace, run

pytestmark = pytest.mark.slow

LARGE = {"network": {"width": 32}}  # a model of 1.2 MB
SOME = 400_000  # bytes: enough for all that a stage writes but such a model
FULL = "No space left on device"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own; skips where that takes rights that we do not have."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(disk: Path, *, free: int) -> Iterator[None]:
    """No more than ``free`` bytes are left on the disk."""
    filler, found = disk / "filler", os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_bsize - free)
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What ``dvc.lock`` says of a workspace whose disk was never full."""
    root = make_workspace(tmp_path_factory.mktemp("whole") / "workspace", LARGE)
    run("dvc", "repro", "train", cwd=root)
    return locked(root)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: a worker's clone on a small disk, its DVC remote on another one."""
    with small_disk(tmp_path / "disk", 80) as disk, small_disk(tmp_path / "remote", 8) as remote:
        root = make_workspace(disk / "clone", LARGE)
        run("dvc", "remote", "add", "-q", "-d", "storage", str(remote / "store"), cwd=root)
        commit(root)
        monkeypatch.chdir(root)
        yield root
        monkeypatch.undo()  # no disk can be taken away below the current folder


def locked(root: Path) -> dict:
    return YAML(typ="safe").load((root / "dvc.lock").read_text())["stages"]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
@pytest.mark.parametrize("free", [SOME, 0])
def test_a_stage_says_what_it_could_not_write_and_the_rerun_agrees(
    tmp_path: Path, undisturbed: dict, free: int
) -> None:
    with small_disk(tmp_path / "disk", 80) as disk:
        root = make_workspace(disk / "workspace", LARGE)
        run("dvc", "repro", "split", cwd=root)
        before = (root / "dvc.lock").read_bytes()
        model = root / "runs" / "train" / "model.safetensors"
        with filled(disk, free=free):
            done = run("dvc", "repro", "train", cwd=root, check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stdout
        if not free:  # DVC itself has no place for its notes, and starts nothing
            assert FULL in done.stdout or "Unable to read RWLock-file" in done.stdout
        else:
            assert FULL in done.stdout
            assert f"train failed: {model} could not be written: " in done.stdout
        assert not list(model.parent.glob("*model*"))
        assert (root / "dvc.lock").read_bytes() == before
        mend(root)  # as flows do: DVC's notes may be torn
        run("dvc", "repro", "train", cwd=root)
        assert locked(root) == undisturbed


def work(stage: str) -> dict:
    """Bring a stage up to date as a worker does; returns what its cell's ``dvc.lock`` says."""
    with disable_run_logger():
        run_stage.fn(stage=stage, title="t", commit=clean_commit(Path.cwd()))
    return locked(Cell(name="t", commit=clean_commit(Path.cwd())).folder(Path.cwd()))


def test_a_worker_without_space_hands_nothing_on(clone: Path, undisturbed: dict) -> None:
    before = work("split")
    handed_on = files(clone.parent.with_name("remote"))
    said = r".*/runs/train/model\.safetensors could not be written: .*" + FULL
    with filled(clone.parent, free=SOME), pytest.raises(ChildError, match=said):
        work("train")
    assert files(clone.parent.with_name("remote")) == handed_on
    (cell,) = [path.parent for path in clone.glob(".cells/*/dvc.lock")]
    assert locked(cell) == before
    assert work("train") == undisturbed
    assert files(clone.parent.with_name("remote")).keys() > handed_on.keys()


@pytest.mark.long
def test_a_remote_without_space_keeps_no_half_of_a_result(clone: Path, undisturbed: dict) -> None:
    store = clone.parent.with_name("remote") / "store"
    said = "the DVC remote did not take the results of train, which are complete in"
    with filled(store.parent, free=SOME), pytest.raises(ChildError, match=said) as refused:
        work("train")
    assert FULL in str(refused.value)
    for path, content in files(store / "files" / "md5").items():
        if path.suffix != ".tmp":  # what DVC was writing, which nobody asks for
            assert hashlib.md5(content).hexdigest() == path.parent.name + path.name.split(".")[0]
    assert work("train") == undisturbed
    for out in undisturbed["train"]["outs"]:
        assert (store / "files" / "md5" / out["md5"][:2] / out["md5"][2:]).is_file()
