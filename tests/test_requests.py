"""What a run can be asked for, and what it is called."""

from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError
from pydantic import ValidationError

from flows.pipeline import entries_of
from flows.running import pools
from flows.running.cells import Cell, CommitError, clean_commit, prepare
from flows.running.requests import Method, Request
from tasks.files import params
from tests.conftest import REPOSITORY, commit, make_workspace, run


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, {}),
        (
            {"seed": 3, "scenario": "class", "classes": ["1", "2"]},
            {"seed": 3, "split.scenario": "class", "split.by_class.classes": ["1", "2"]},
        ),
        (
            {"scenario": "fraction", "fraction": 0.2, "settings": {"train.epochs": 2}},
            {"split.scenario": "fraction", "split.by_fraction.fraction": 0.2, "train.epochs": 2},
        ),
        (
            {"scenario": "ids", "file": "requests/example.csv"},
            {"split.scenario": "ids", "split.by_ids.file": "requests/example.csv"},
        ),
        (
            {"scenario": "group", "attribute": "superclass", "values": ["flowers"]},
            {
                "split.scenario": "group",
                "split.by_group.attribute": "superclass",
                "split.by_group.values": ["flowers"],
            },
        ),
        (
            {"scenario": "subject", "subjects": ["p1"]},
            {"split.scenario": "subject", "split.by_subject.subjects": ["p1"]},
        ),
        ({"seed": 0}, {"seed": 0}),
        ({"classes": ["3"]}, {"split.scenario": "class", "split.by_class.classes": ["3"]}),
        ({"values": ["a"]}, {"split.scenario": "group", "split.by_group.values": ["a"]}),
    ],
)
def test_a_request_becomes_changes_of_parameters(
    fields: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert Request(**fields).changes() == changes
    params.changed(params.read(REPOSITORY), changes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scenario": "fraction", "fraction": 1.0}, "less than 1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"epochs": 3}, "Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_the_form_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Request(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ["8"], "fraction": 0.1}, "classes belongs to the scenario class, got .* None"),
        ({"scenario": "class", "fraction": 0.1}, "fraction belongs to the scenario fraction"),
        ({"seed": 1, "settings": {"seed": 2}}, "settings repeat seed"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, message) -> None:
    with pytest.raises(params.ParameterError, match=message):
        Request(**fields).changes()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "digits · class 8 · seed 0"),
        ({"scenario": "class", "classes": ["1", "2"], "seed": 4}, "digits · class 1, 2 · seed 4"),
        ({"scenario": "fraction", "fraction": 0.25}, "digits · 25 % · seed 0"),
        ({"scenario": "ids"}, "digits · ids of requests/example.csv · seed 0"),
        (
            {"scenario": "ids", "file": "requests/late/example.csv"},
            "digits · ids of requests/late/example.csv · seed 0",
        ),
        ({"scenario": "group"}, "digits · flowers · seed 0"),
        ({"scenario": "subject"}, "digits · subject-1 · seed 0"),
    ],
)
def test_a_name_says_what_is_forgotten(fields: dict[str, Any], said: str) -> None:
    content = params.changed(params.read(REPOSITORY), Request(**fields).changes())
    assert params.title(content) == said


def test_one_method_stands_beside_the_baselines() -> None:
    shipped = params.section(REPOSITORY, "unlearn.imu")
    assert entries_of(REPOSITORY, Method.imu, {"step": 0.5}) == {
        "nothing": {"method": "nothing", "data_access": "forget"},
        "logit_mask": {"method": "logit_mask", "data_access": "forget"},
        "imu": {**shipped, "step": 0.5},
    }
    assert "scrub" not in params.section(REPOSITORY, "unlearn")
    assert entries_of(REPOSITORY, Method.scrub, {})["scrub"]["data_access"] == "retain"


def test_a_parameter_that_the_method_lacks_is_refused() -> None:
    with pytest.raises(params.ParameterError, match=r"imu has no 'steps', only .*step"):
        entries_of(REPOSITORY, Method.imu, {"steps": 1})


def test_a_cell_of_a_commit_has_its_files_whatever_lies_in_the_clone(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    commit = clean_commit(root)
    code = root / "imu" / "cost.py"
    committed = code.read_bytes()
    code.write_bytes(committed + b"\n")
    with pytest.raises(CommitError, match="differ from its commit"):
        clean_commit(root)
    changes = {"seed": 7}
    folder = prepare(root, Cell(name="x", changes=changes, commit=commit))
    assert (folder / "imu" / "cost.py").read_bytes() == committed
    assert params.section(folder, "seed") == 7
    assert prepare(root, Cell(name="x", changes=changes)) != folder
    unknown = "0" * 40
    with pytest.raises(CommitError, match=rf"has no commit {unknown}.*push it"):
        prepare(root, Cell(name="x", commit=unknown))


def test_a_commit_that_the_clone_lacks_is_fetched(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    run("git", "clone", "-q", str(root), str(tmp_path / "clone"), cwd=tmp_path)
    (root / "requests" / "new.csv").write_text("id\n1\n")
    run("git", "add", "-A", cwd=root)
    commit(root)
    folder = prepare(tmp_path / "clone", Cell(name="x", commit=clean_commit(root)))
    assert (folder / "requests" / "new.csv").read_text() == "id\n1\n"


def test_a_cell_has_the_remotes_of_its_clone(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    run("dvc", "remote", "add", "-q", "-d", "near", "../store", cwd=root)
    run("dvc", "remote", "add", "-q", "far", "s3://bucket/path", cwd=root)
    run("dvc", "remote", "modify", "-q", "--local", "far", "profile", "of #1", cwd=root)
    folder = prepare(root, Cell(name="x", changes={"seed": 7}))
    found = run("dvc", "config", "--list", cwd=folder).stdout.splitlines()
    assert f"remote.near.url={tmp_path / 'store'}" in found
    assert {"remote.far.url=s3://bucket/path", "remote.far.profile=of #1"} <= set(found)
    assert "core.remote=near" in found
    assert "of #1" not in (folder / ".dvc" / "config").read_text()
    assert (folder / ".dvc" / "config.local").stat().st_mode & 0o777 == 0o600


def test_no_cell_is_laid_out_with_names_that_a_shell_would_run(tmp_path: Path) -> None:
    run("git", "init", "-q", cwd=tmp_path)
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    changes = {"retrain": {"x$(touch touched)": {"seed_offset": 7}}}
    cell = Cell(name="x", changes=changes)
    with pytest.raises(params.ParameterError, match=r"retrain\.x\$\(touch touched\): a name must"):
        prepare(tmp_path, cell)
    assert not (cell.folder(tmp_path) / "params.yaml").exists()


@pytest.mark.parametrize("commit", ["HEAD", "--output=x", "", "0" * 39, f"{'0' * 40}\n"])
def test_a_worker_takes_commits_alone(commit: str) -> None:
    given = {"stage": "train", "title": "x", "commit": "0" * 40}
    pools.run_stage.validate_parameters(given)
    with pytest.raises(ParameterTypeError):
        pools.run_stage.validate_parameters(given | {"commit": commit})


@pytest.mark.parametrize("stage", ["--cwd=/tmp", "unlearn@none", ""])
def test_a_worker_takes_stages_alone(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "get_run_logger", lambda: None)
    monkeypatch.setattr(pools, "prepare", lambda root, cell: REPOSITORY)
    monkeypatch.setattr(pools, "Children", pytest.fail)
    with pytest.raises(params.ParameterError, match=f"stage must be one of split, .*got '{stage}'"):
        pools.run_stage.fn(stage=stage, title="x", commit="0" * 40)
