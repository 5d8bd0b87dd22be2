"""``dvc.lock``: read, kept, and put back where DVC could write a part only; threads share DVC."""

import json
import threading
from pathlib import Path

import pytest

from tasks.graph import lock, stages
from tasks.graph.__main__ import main
from tests.conftest import REPOSITORY, run

ENTRY = """\
  {name}:
    cmd: exec python -m tasks evaluate unlearn/a
    deps:
    - path: runs/split.json
      hash: md5
      md5: 4fdcba9cb8a48b1ced98f4554d177345
      size: 12
    params:
      params.yaml:
        seed: 0
    outs:
    - path: runs/evaluate/a.json
      hash: md5
      md5: a227d42afbcc590b4e949075cde4a5b6
      size: 3
"""
NAMES = ("split", "evaluate@a", "unlearn@ü")
WHOLE = "schema: '2.0'\nstages:\n" + "".join(ENTRY.format(name=name) for name in NAMES)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    run("dvc", "init", "-q", "--no-scm", cwd=tmp_path)
    (tmp_path / "dvc.lock").write_text(WHOLE)
    return tmp_path


def test_what_a_stage_was_made_from_decides_its_key(repository: Path) -> None:
    found = lock.locked_stages(repository)
    assert list(found) == [*NAMES]
    assert (found["split"].stage, found["split"].item) == ("evaluate", "unlearn/a")
    assert found["split"].outputs == {"runs/evaluate/a.json": "a227d42afbcc590b4e949075cde4a5b6"}
    assert found["split"].key == found["evaluate@a"].key
    for part in ("seed: 0", "4fdcba", "unlearn/a"):
        (repository / "dvc.lock").write_text(WHOLE.replace(part, f"{part[:-1]}b", 1))
        assert lock.locked_stages(repository)["split"].key != found["split"].key, part
    (repository / "dvc.lock").write_text(WHOLE.replace("a227", "b227", 1))
    other = lock.locked_stages(repository)
    assert other["split"].key == found["split"].key
    assert lock.not_reproduced(found, other) == ["split"]


def test_wherever_it_is_cut_dvc_takes_it_after_it_is_mended(repository: Path) -> None:
    file, content = repository / "dvc.lock", WHOLE.encode()
    lock.keep(repository, NAMES)
    for at in range(0, len(content), 7):
        file.write_bytes(content[:at])
        mended = stages.mend(repository)
        with stages.opened(repository) as repo:
            assert repo is not None
        found = lock.locked_stages(repository)
        assert not mended or list(found) == [*NAMES]
        assert found.keys() <= {*NAMES}


def test_what_dvc_writes_is_mended_in_its_turn(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[bool] = []
    (repository / ".dvc" / "tmp" / "rwlock").write_text("{")
    unlink = Path.unlink

    def noted(path: Path, **options: bool) -> None:
        if path.name == "rwlock":
            removed.append((repository / ".dvc" / "tmp" / "lock").exists())
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", noted)
    stages.mend(repository)
    assert removed == [True]


def test_without_a_copy_it_is_said(repository: Path) -> None:
    (repository / "dvc.lock").write_text(WHOLE[: WHOLE.rindex("md5: ")])
    with pytest.raises(lock.LockError, match=r"git checkout dvc\.lock"):
        stages.mend(repository)


def test_a_list_of_readers_that_dvc_could_write_a_part_of_is_removed(repository: Path) -> None:
    readers = repository / ".dvc" / "tmp" / "rwlock"
    readers.write_text(json.dumps({"runs/x": {"read": []}})[:-3])
    assert stages.mend(repository) == [
        "removed .dvc/tmp/rwlock, of which DVC could write a part only"
    ]
    assert not readers.exists()
    assert stages.mend(repository) == []


def test_a_stage_that_dvc_is_still_writing_is_waited_for(repository: Path) -> None:
    file = repository / "dvc.lock"
    file.write_text(WHOLE[: WHOLE.rindex("md5: ")])
    later = threading.Timer(0.3, lambda: file.write_text(WHOLE))
    later.start()
    assert list(lock.stages_with(repository, NAMES)) == [*NAMES]
    later.join()


def test_a_stage_that_does_not_come_is_named(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    with pytest.raises(lock.LockError, match="does not record report"):
        lock.stages_with(repository, ["split", "report"])


def test_threads_use_dvc_in_turn_in_different_repositories(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("one", "other")]
    for root in roots:
        root.mkdir()
        run("dvc", "init", "-q", "--no-scm", cwd=root)
    entered = threading.Event()

    def enter() -> None:
        with stages.opened(roots[1]):
            entered.set()

    thread = threading.Thread(target=enter)
    with stages.opened(roots[0]):
        thread.start()
        assert not entered.wait(2)
    thread.join(60)
    assert entered.is_set()


def test_a_command_that_is_not_ours_is_refused(repository: Path) -> None:
    from tasks.files.params import ParameterError

    (repository / "dvc.yaml").write_text("stages: {a: {cmd: echo b}}")
    with pytest.raises(ParameterError, match="cmd must be `exec python -m tasks STAGE"):
        stages.stages(repository)
    assert "unlearn@imu" in stages.stages(REPOSITORY)


def test_what_params_yaml_has_no_more_is_not_logged(repository: Path) -> None:
    from tasks.files.workspace import Workspace
    from tasks.tracking.record import present

    (repository / "params.yaml").write_text(
        "retrain: {}\nunlearn: {a: {}}\nensemble: {families: {}, judged: {}}\n"
    )
    assert [*present(Workspace(repository))] == [*NAMES]  # all of them evaluate unlearn/a
    (repository / "params.yaml").write_text(
        "retrain: {}\nunlearn: {b: {}}\nensemble: {families: {}, judged: {}}\n"
    )
    assert present(Workspace(repository)) == {}


def test_of_a_stage_that_a_flow_runs_nothing_is_printed_but_what_it_says(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (repository / "dvc.lock").unlink()
    (repository / "dvc.yaml").write_text("stages: {a: {cmd: echo said}, b: {cmd: exit 3}}")
    monkeypatch.chdir(repository)
    assert main(["stage", "a"]) == 0
    assert main(["stage-again", "a"]) == 0
    assert capfd.readouterr().out == "said\nsaid\n"
    assert main(["stage", "b"]) == 1
    said = "ERROR: failed to reproduce 'b': failed to run: exit 3, exited with 3\n"
    assert capfd.readouterr().err == said
