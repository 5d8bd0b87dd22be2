"""What a run can be asked for, and what it is called."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from pydantic import ValidationError

from flows.erase import erase
from flows.pipeline import pipeline, retrain_reference, unlearn
from flows.running import pools
from flows.running.cells import Cell, CommitError, clean_commit, prepare, unused
from flows.running.entries import entries_of, entry_of
from flows.running.holding import only_run
from flows.running.requests import PRESETS, SETTINGS, Fraction, Method, Preset, Request
from flows.search import search
from flows.sweep import sweep
from tasks.files import params
from tests.conftest import REPOSITORY, commit, make_workspace, run


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, {}),
        (
            {"seed": 3, "forget": {"classes": ["1", "2"]}},
            {"seed": 3, "split.scenario": "class", "split.by_class.classes": ["1", "2"]},
        ),
        (
            {"forget": {"fraction": 0.2}, "settings": {"train.epochs": 2}},
            {"split.scenario": "fraction", "split.by_fraction.fraction": 0.2, "train.epochs": 2},
        ),
        (
            {"forget": {"file": "requests/example.csv"}},
            {"split.scenario": "ids", "split.by_ids.file": "requests/example.csv"},
        ),
        (
            {"forget": {"attribute": "superclass", "values": ["flowers"]}},
            {
                "split.scenario": "group",
                "split.by_group.attribute": "superclass",
                "split.by_group.values": ["flowers"],
            },
        ),
        (
            {"forget": {"subjects": ["p1"]}},
            {"split.scenario": "subject", "split.by_subject.subjects": ["p1"]},
        ),
        ({"seed": 0, "forget": {}}, {"seed": 0}),
        ({"dataset": "svhn"}, {"split.dataset": "svhn"}),
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
        ({"forget": {"fraction": 1.0}}, "fraction: Input should be less than 1, got 1.0"),
        (
            {"forget": {"fraction": 0.1, "classes": ["8"]}},
            "one kind, none, or classes, or fraction, or file, or attribute and values, or "
            "subjects; got fraction, classes",
        ),
        ({"forget": {"class": "8"}}, "the fields must be those of one kind, .*; got class"),
        ({"forget": "class 8"}, "the fields must be those of one kind, .*; got 'class 8'"),
        ({"forget": {"classes": []}}, r"classes: List should have at least 1 item.*, got \[\]"),
        ({"forget": {"classes": "8"}}, "classes: Input should be a valid list, got '8'"),
        ({"forget": {"attribute": "superclass"}}, "values is missing"),
        ({"forget": {"file": "x", "seed": 1}}, "there is no field seed here, only file"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"epochs": 3}, "Extra inputs are not permitted"),
        ({"preset": "small"}, "Input should be 'none'"),
    ],
)
def test_what_does_not_fit_the_form_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        Request(**fields)
    assert refused.value.error_count() == 1


def test_a_setting_that_has_a_field_of_its_own_is_refused() -> None:
    with pytest.raises(params.ParameterError, match="settings repeat seed"):
        Request(seed=1, settings={"seed": 2}).changes()


def test_what_is_asked_for_overrules_a_preset() -> None:
    changes = Request(preset=Preset("biographies"), forget=Fraction(fraction=0.3)).changes()
    assert changes["split.dataset"] == "biographies"
    assert changes["split.by_fraction.fraction"] == 0.3
    params.changed(params.read(REPOSITORY), changes)


def forms() -> dict[str, Any]:
    """The schema that Prefect's page makes the form of ``unlearn`` of."""
    schema = parameter_schema(unlearn.fn)
    return {"": schema.model_dump(), **schema.definitions}


def test_the_form_offers_kinds_of_forget_sets_that_are_told_apart_by_their_fields() -> None:
    """A discriminator would make the page show a field for JSON in place of a choice of forms."""
    found, flat = forms(), params.flattened(params.read(REPOSITORY))
    forget = found["Request"]["properties"]["forget"]
    assert forget.keys() == {"anyOf", "default", "title"}
    kinds = [found[kind["$ref"].rpartition("/")[2]] for kind in forget["anyOf"]]
    assert [kind["title"] for kind in kinds] == [
        "as in params.yaml",
        "classes",
        "a share",
        "ids",
        "a group",
        "subjects",
    ]
    needed = [tuple(kind.get("required", ())) for kind in kinds]
    assert len(set(needed)) == len(kinds)
    for kind in kinds:
        assert not kind["additionalProperties"]
        assert kind["description"]
        filled = {name: field["default"] for name, field in kind.get("properties", {}).items()}
        for path, value in Request(forget=filled).forget.changes().items():
            assert path == "split.scenario" or flat[path] == value


def test_what_may_be_left_empty_is_no_switch_to_none() -> None:
    fields = forms()["Request"]["properties"]
    assert not {"anyOf", "default"} & fields["seed"].keys()


def test_the_form_of_a_sweep_has_no_seed_that_it_would_refuse() -> None:
    found = parameter_schema(sweep.fn).definitions
    assert found["Forgetting"]["properties"].keys() == {"forget", "dataset", "preset", "settings"}
    assert "Request" not in found


def test_the_form_as_it_is_opened_is_accepted_by_the_server() -> None:
    """It sends the defaults of the schema."""
    schema = parameter_schema(unlearn.fn).model_dump_for_openapi()
    opened = {name: field["default"] for name, field in schema["properties"].items()}
    assert not validate(opened, schema, raise_on_error=False)
    for kind in schema["definitions"]["Request"]["properties"]["forget"]["anyOf"]:
        form = schema["definitions"][kind["$ref"].rpartition("/")[2]].get("properties", {})
        opened["request"]["forget"] = {name: field["default"] for name, field in form.items()}
        assert not validate(opened, schema, raise_on_error=False)
    opened["request"]["forget"] = {"fraction": 0.1, "classes": ["8"]}
    assert validate(opened, schema, raise_on_error=False)


def described(schema: Any) -> Iterator[str]:
    """Every description in a schema."""
    if isinstance(schema, dict) and isinstance(schema.get("description"), str):
        yield schema["description"]
    inside = schema.values() if isinstance(schema, dict) else schema
    for one in inside if isinstance(schema, dict | list) else ():
        yield from described(one)


@pytest.mark.parametrize("flow", [erase, pipeline, retrain_reference, search, sweep, unlearn])
def test_the_form_reads_well_where_no_markdown_is_shown(flow: Flow[..., Any]) -> None:
    """As one of Prefect's two pages shows it."""
    schema = parameter_schema(flow.fn)
    found = [*described(schema.model_dump()["properties"]), *described(schema.definitions)]
    assert found
    for text in found:
        assert len(text) < 200
        assert not re.search(r"[`*]|\n\s*[-\n]", text.replace("settings/*.yaml", "")), text


@pytest.mark.parametrize("name", PRESETS)
def test_the_first_line_of_a_preset_says_what_it_is_for(name: str) -> None:
    lines = (REPOSITORY / SETTINGS / f"{name}.yaml").read_text().splitlines()
    assert re.fullmatch(r"# [A-Z].{10,110}\.", lines[0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "digits · class 8 · seed 0"),
        ({"forget": {"classes": ["1", "2"]}, "seed": 4}, "digits · class 1, 2 · seed 4"),
        ({"forget": {"fraction": 0.25}}, "digits · 25 % · seed 0"),
        (
            {"forget": {"file": "requests/late/example.csv"}},
            "digits · ids of requests/late/example.csv · seed 0",
        ),
        (
            {"forget": {"attribute": "superclass", "values": ["flowers"]}},
            "digits · flowers · seed 0",
        ),
        ({"forget": {"attribute": "forget10", "values": ["yes"]}}, "digits · forget10 · seed 0"),
        ({"forget": {"subjects": ["subject-1"]}}, "digits · subject-1 · seed 0"),
    ],
)
def test_a_name_says_what_is_forgotten(fields: dict[str, Any], said: str) -> None:
    content = params.changed(params.read(REPOSITORY), Request(**fields).changes())
    assert params.title(content) == said


def test_one_method_stands_beside_the_baselines() -> None:
    shipped = params.section(REPOSITORY, "unlearn.imu")
    assert entries_of(REPOSITORY, Method.imu, {"step": 0.5}) == {
        "nothing": {"method": "nothing", "data_access": "forget"},
        "logit_mask": {"method": "logit_mask", "data_access": "forget", "depth": 0.0},
        "imu": {**shipped, "step": 0.5},
    }
    assert "scrub" not in params.section(REPOSITORY, "unlearn")
    assert entries_of(REPOSITORY, Method.scrub, {})["scrub"]["data_access"] == "retain"


@pytest.mark.parametrize("known", [None, {"a": 1}, {"a": {"b": {}}}])
def test_a_section_of_no_entries_is_refused(known: Any) -> None:
    with pytest.raises(params.ParameterError, match="unlearn must be a mapping of entries"):
        entry_of(known, Method.imu, {})


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


def test_nothing_is_laid_out_with_names_that_a_shell_would_run(tmp_path: Path) -> None:
    run("git", "init", "-q", cwd=tmp_path)
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    changes = {"retrain": {"x$(touch touched)": {"seed_offset": 7}}}
    cell = Cell(name="x", changes=changes)
    said = r"retrain\.x\$\(touch touched\): a name must"
    with pytest.raises(params.ParameterError, match=said), only_run(cell.folder(tmp_path)):
        prepare(tmp_path, cell)
    assert not cell.folder(tmp_path).exists()
    with only_run(cell.folder(tmp_path)):
        (cell.folder(tmp_path) / "found").touch()
    assert (cell.folder(tmp_path) / "found").exists()


@pytest.mark.parametrize("commit", ["HEAD", "--output=x", "", "0" * 39, f"{'0' * 40}\n"])
def test_a_worker_takes_commits_alone(commit: str) -> None:
    given = {"stage": "train", "title": "x", "commit": "0" * 40}
    pools.run_stage.validate_parameters(given)
    with pytest.raises(ParameterTypeError):
        pools.run_stage.validate_parameters(given | {"commit": commit})


@pytest.mark.parametrize("stage", ["--cwd=/tmp", "unlearn@none", ""])
def test_a_worker_takes_stages_alone(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pools, "get_run_logger", lambda: None)
    monkeypatch.setattr(pools, "prepare", lambda root, cell: REPOSITORY)
    monkeypatch.setattr(pools, "Children", pytest.fail)
    with pytest.raises(params.ParameterError, match=f"stage must be one of split, .*got '{stage}'"):
        pools.run_stage.fn(stage=stage, title="x", commit="0" * 40)


def test_workers_of_one_clone_do_not_share_a_folder(tmp_path: Path) -> None:
    cell = Cell(name="x", changes={"seed": 1})
    with unused(tmp_path, cell) as first:
        assert first.folder(tmp_path) == cell.folder(tmp_path)
    # As another process holds them.
    held = [
        filelock.FileLock(replace(cell, number=n).folder(tmp_path) / ".dvc/tmp/pipeline.lock")
        for n in (1, 2)
    ]
    held[0].acquire()
    with unused(tmp_path, cell) as second:
        assert second.number == 2
    held[1].acquire()
    with unused(tmp_path, cell) as third:
        assert third.number == 3
    held[0].release()
    with unused(tmp_path, cell) as again:
        assert again.number == 1
    held[1].release()
