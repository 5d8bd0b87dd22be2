"""``dvc.lock`` of which DVC could write a part only, cut at every place there is."""

import shutil
from pathlib import Path

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML

from tasks.graph import lineage, torn
from tasks.graph.lockfile import HEAD
from tests.conftest import REPOSITORY, run

ENTRY = """\
  evaluate@a:
    cmd: exec python -m tasks evaluate unlearn/a
    deps:
    - path: runs/split.json
      hash: md5
      md5: 4fdcba9cb8a48b1ced98f4554d177345
      size: 12
    params:
      params.yaml:
        seed: 0
        unlearn.a:
          layers: []
    outs:
    - path: runs/evaluate/a.json
      hash: md5
      md5: a227d42afbcc590b4e949075cde4a5b6
      size: 3
"""
NAMES = ("split", '"1"', "unlearn@ü")
WHOLE = HEAD + "".join(ENTRY.replace("evaluate@a", name) for name in NAMES)


def stages(text: str) -> dict:
    return YAML(typ="safe").load(text)["stages"]


def test_what_is_kept_is_whole_stages_wherever_the_cut_is() -> None:
    whole, content = stages(WHOLE), WHOLE.encode()
    for at in range(len(content)):
        text = content[:at].decode(errors="replace")
        found = torn.kept(text)
        # Cut between two files or parameters, a stage that passes for whole is one to run again.
        left = text if found is None else found
        if left == HEAD:
            assert at < len(HEAD + ENTRY)
            continue
        assert WHOLE.startswith(left)
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(left))
        *before, last = stages(left)
        assert [whole[name] for name in before] == [stages(left)[name] for name in before]
        files = [file for kind in ("deps", "outs") for file in stages(left)[last].get(kind, [])]
        entries = whole[last]["deps"] + whole[last]["outs"]
        assert all(
            file["md5"] in [entry["md5"] for entry in entries if entry["path"] == file["path"]]
            for file in files
        )
        # No more is lost than the stage in which the cut is, and the one that it ended.
        assert (
            len(stages(left))
            >= text.count("    cmd: exec python -m tasks evaluate unlearn/a\n") - 1
        )


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        WHOLE.replace("  split:", "<<<<<<< HEAD\n  split:"),
        WHOLE + "<<<<<<< HEAD\n  more:\n=======\n  less:\n>>>>>>> other\n",
        WHOLE.removesuffix("      size: 3\n") + "<<<<<<< HEAD\n      size: 3\n",
        "schema: '2.0'\nstages: {}\n",
        "schema: '2.0'\ndatasets: []\nstages:\n" + ENTRY,
    ],
)
def test_what_no_cut_explains_is_left_alone(text: str) -> None:
    assert torn.kept(text) is None


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    run("git", "init", "-q", cwd=tmp_path)
    run("dvc", "init", "-q", cwd=tmp_path)
    shutil.copy(REPOSITORY / "dvc.lock", tmp_path / "dvc.lock")
    return tmp_path


def test_the_lock_of_this_repository_is_mended_and_read(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = repository / "dvc.lock"
    text, locked = lock.read_text(), lineage.locked_stages(repository)
    assert capsys.readouterr().out == ""
    assert lock.read_text() == text
    middle = text.index("      md5", len(text) // 2)  # after a path and a kind of hash
    lock.write_text(text[:middle])
    left = lineage.locked_stages(repository)
    assert "cut dvc.lock" in capsys.readouterr().out
    assert list(left.items()) == list(locked.items())[: len(left)]
    assert len(left) == text[:middle].count("\n    cmd: ") - 1
    assert text.startswith(lock.read_text())


@pytest.mark.parametrize("left", ["", "schema: '2", HEAD, HEAD + "  split:\n    cmd: e"])
def test_a_lock_without_a_whole_stage_is_removed(repository: Path, left: str) -> None:
    (repository / "dvc.lock").write_text(left)
    assert lineage.locked_stages(repository) == {}
    assert not (repository / "dvc.lock").exists()


def test_outputs_that_a_cut_left_out_are_not_told_as_others(repository: Path) -> None:
    whole = lineage.locked_stages(repository)
    text = (repository / "dvc.lock").read_text()
    for mark in ("    outs:\n", "    - path: "):
        (repository / "dvc.lock").write_text(text[: text.rindex(mark)])
        cut = lineage.locked_stages(repository)
        assert cut != whole
        assert lineage.not_reproduced(cut, whole) == []
    name = next(iter(whole))
    other = whole[name]._replace(outputs=dict.fromkeys(whole[name].outputs, "other"))
    assert lineage.not_reproduced(whole, {**whole, name: other}) == [name]
