"""The pages of ``docs/`` that are made from many pipelines, and the cells behind them."""

import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest

from flows import documents
from flows.running.cells import prepare
from flows.searching.tuning import tuning_cells
from flows.sweep import Swept
from imu.splitting import Config
from tasks.files import params
from tests.conftest import REPOSITORY, make_workspace, run, tasks

SETTINGS = REPOSITORY / "settings"
MODELS = ("nothing", "logit_mask", "imu")
# `make table` with two cells and few models.
TWO_CELLS = f"""
from flows import documents
from flows.running.cells import Cell
from tasks.files import params
def cells(root, shipped, settings, scenarios, seeds, tuned):
    few = {{name: params.section(root, "unlearn")[name] for name in {MODELS}}}
    seeds = params.section(root, "retrain")
    retrained = {{name: seeds[name] for name in ("reference", "retrain_2")}}
    retrained["another"] = {{"seed_offset": 2}}
    same = {{"split.scenario": "fraction", "unlearn": few, "retrain": retrained}}
    same |= settings
    return [Cell(name=f"seed {{seed}}", changes={{"seed": seed, **same}}) for seed in (0, 1)]
documents.reported_cells = cells
documents.main()
"""


def test_settings_bring_their_entries_and_another_share_its_own_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    forgotten: list[set[float]] = []

    def swept(name: str, cells: list[Any], *given: Any) -> Swept:
        forgotten.append({cell.changes["split.by_fraction.fraction"] for cell in cells})
        return Swept({}, {})

    def picture(found: pd.DataFrame, methods: Any) -> bytes:
        drawn.append([*methods])
        return b""

    monkeypatch.setattr(documents, "swept", swept)
    monkeypatch.setattr(documents.results, "collected", lambda folders: pd.DataFrame())
    monkeypatch.setattr(documents.results_page, "page", lambda found, command, *_: command)
    monkeypatch.setattr(documents.results_page, "picture", picture)
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    settings = SETTINGS / "biographies.yaml"
    for fraction in (None, 0.1):
        documents.table(
            tmp_path, 1, shipped=True, settings=settings, scenarios=("fraction",), fraction=fraction
        )
    assert forgotten == [{0.2}, {0.1}]
    shown, again = drawn
    assert shown == again
    assert "rmu" in shown
    assert "logit_mask" not in shown
    assert not (tmp_path / "docs/results-biographies.md").read_text().endswith("--fraction 0.1")
    assert (tmp_path / "docs/results-biographies-10.md").read_text().endswith("--fraction 0.1")
    with pytest.raises(params.ParameterError, match="asks for the group, not a fraction"):
        documents.table(
            tmp_path, 1, shipped=True, settings=SETTINGS / "tofu.yaml", scenarios=(), fraction=0.1
        )


@pytest.mark.parametrize(
    "path", sorted((SETTINGS / documents.GRIDS).iterdir()), ids=lambda p: p.name
)
def test_the_grids_that_ship_are_of_entries_that_ship(path: Path) -> None:
    settings = SETTINGS / path.name
    changes = params.read_file(settings, settings.name, "dotted paths")
    found = {one.name: one.space for one in documents.grids(REPOSITORY, settings, changes)}
    assert found == params.read_file(path, "", "entries")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("imu_wordy: {}", "has no entry unlearn.imu_wordy"),
        ("npo: {beta: [0.0, 1.0]}", "beta must be > 0, got 0.0"),
        ("npo: {gamma: [1.0]}", "gamma"),
        ("npo: 3", "npo must be a mapping of parameters to lists of values, got 3"),
        ("npo: {beta: 1.0}", "npo must be a mapping of parameters to lists of values"),
    ],
)
def test_a_grid_of_what_is_not_there_is_refused(tmp_path: Path, grid: str, message: str) -> None:
    settings = tmp_path / "some.yaml"
    settings.write_text("")
    (tmp_path / documents.GRIDS).mkdir()
    (tmp_path / documents.GRIDS / "some.yaml").write_text(grid)
    shipped = SETTINGS / "biographies.yaml"
    changes = params.read_file(shipped, shipped.name, "dotted paths")
    with pytest.raises(params.ParameterError, match=re.escape(message)):
        documents.grids(REPOSITORY, settings, changes)


def test_every_scenario_is_reported_and_no_reported_request_is_tuned_on() -> None:
    cells = [cell.changes for cell in documents.reported_cells(REPOSITORY, shipped=False)]
    found = sorted((changes["split.scenario"], changes["seed"]) for changes in cells)
    scenarios = set(get_args(Config.__dataclass_fields__["scenario"].type))
    # Digits know neither groups nor subjects.
    scenarios -= {"group", "subject"}
    assert found == [(scenario, seed) for scenario in sorted(scenarios) for seed in (0, 1, 2)]
    assert (REPOSITORY / params.section(REPOSITORY, "split.by_ids.file")).is_file()
    # The file names the same samples whatever the seed is.
    assert "ids" not in {cell.changes["split.scenario"] for cell in tuning_cells(REPOSITORY)}


def test_settings_change_every_cell_and_stand_in_the_command() -> None:
    settings = {"train.epochs": 2, "ensemble.members": 0}
    cells = documents.reported_cells(REPOSITORY, True, settings, ("fraction",))
    assert [cell.changes["seed"] for cell in cells] == [0, 1, 2]
    for cell in cells:
        assert settings.items() <= cell.changes.items()
        assert cell.changes["split.scenario"] == "fraction"
    assert documents.command(False, None, documents.SCENARIOS) == "python -m flows.documents table"
    found = documents.command(True, Path("settings/x.yaml"), ("class", "fraction"))
    assert found == (
        "python -m flows.documents table --shipped --with settings/x.yaml "
        "--scenarios class fraction"
    )


def test_what_a_search_found_best_in_a_scenario_is_taken_there() -> None:
    tried = [
        ("class", "imu", 1.0, 4.0),
        ("class", "imu", 0.5, 2.0),
        ("fraction", "imu", 1.0, 1.0),
        ("fraction", "imu", 0.5, 3.0),
        ("class", "of another project", 0.5, 1.0),
    ]
    tuned = pd.DataFrame(
        [(s, name, json.dumps({"step": step}), gap) for s, name, step, gap in tried],
        columns=list(documents.TUNED),
    )
    cells = documents.reported_cells(REPOSITORY, False, seeds=(0,), tuned=tuned)
    plain = documents.reported_cells(REPOSITORY, False, seeds=(0,))
    found = {cell.changes["split.scenario"]: cell.changes["unlearn"] for cell in cells}
    as_shipped = plain[0].changes["unlearn"]
    shipped = as_shipped["imu"]
    assert [found[s]["imu"]["step"] for s in ("class", "fraction")] == [0.5, 1.0]
    assert found["class"] == as_shipped | {"imu": shipped | {"step": 0.5}}
    assert found["ids"] == as_shipped


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "must have the column 'candidate', as tune writes"),
        ("scenario,entry,candidate,gap\nclass,imu,{},near\n", "gap must be a number"),
        ("scenario,entry,candidate,gap\nclass,imu,step,1\n", "candidate must be JSON"),
    ],
)
def test_a_table_that_no_search_wrote_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(params.ParameterError, match=message):
        documents.read_tuned(tmp_path / "a.csv")


@pytest.mark.parametrize("name", sorted(path.name for path in SETTINGS.glob("*.yaml")))
def test_the_settings_that_ship_are_valid(workspace: Path, name: str) -> None:
    changes = params.read_file(SETTINGS / name, name, "dotted paths")
    cell, *_ = documents.reported_cells(workspace, True, changes, ("class",))
    assert cell.changes["split.scenario"] == changes.get("split.scenario", "class")
    folder = prepare(workspace, cell)
    assert tasks(folder, "check", "elsewhere") == "parameters are valid\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 5}, "settings must not have 'seed': the table sets it"),
        ({"original.retrain": False}, "a table needs a reference"),
    ],
)
def test_settings_may_not_take_what_the_table_varies(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(params.ParameterError, match=message):
        documents.reported_cells(REPOSITORY, True, settings, ("class",))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.yaml", "there is no nowhere.yaml"),
        ("list.yaml", "list.yaml must be a mapping of dotted paths, got list"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.yaml").write_text("- 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["documents", "table", "--with", name])
    monkeypatch.setattr(documents, "warm", nullcontext)
    monkeypatch.setattr(documents, "serving", lambda: nullcontext(lambda: None))
    said = re.escape(f"table failed, with {name}: {message}")
    with pytest.raises(SystemExit, match=said):
        documents.main()


@pytest.mark.slow
@pytest.mark.long
def test_a_table_writes_the_page_and_leaves_the_canonical_outputs_alone(
    tmp_path: Path, served: None
) -> None:
    root = make_workspace(tmp_path / "workspace")
    (root / "quick.yaml").write_text("split.by_fraction.fraction: 0.2\n")
    done = run("python", "-c", TWO_CELLS, "table", "--with", "quick.yaml", cwd=root)
    page = (root / "docs" / "results-quick.md").read_text()
    assert page in done.stdout
    assert "# Results on quick\n" in page
    assert "    split.by_fraction.fraction: 0.2\n" in page
    assert "## fraction: stratified 20 % (2 seeds)" in page
    for model in ("reference", "retrained", *MODELS):
        assert f"\n| {model} |" in page
    assert "| another |" not in page
    assert "| TFA |" not in page
    assert "### Distance to the reference: model − nothing" in page
    found = pd.read_csv(root / "docs" / "results-quick.csv")
    assert found.groupby("model")["seed"].agg(list).to_dict() == {
        model: [0, 1] for model in ("reference", "retrain_2", "another", *MODELS)
    }
    assert found["verdict"].notna().sum() == 10
    assert found["RTE_time"].notna().any()
    assert (root / "docs" / "results-quick.png").is_file()
    assert not (root / "runs").exists()
    assert not (root / "dvc.lock").exists()
