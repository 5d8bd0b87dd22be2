"""Cells of a sweep, and the page that is made from them."""

from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest

from flows import sweep
from flows.cells import Cell, prepare
from flows.requests import Method, Request
from imu.splitting import Config
from tasks import params
from tests.conftest import REPOSITORY, make_workspace, run

SETTINGS = REPOSITORY / "settings"
MODELS = ("nothing", "logit_mask", "imu")
# The sweep of `make table`, on two cells and few models.
TWO_CELLS = f"""
from flows import sweep
from tasks import params
def cells(root, shipped, settings, scenarios):
    few = {{name: params.section(root, "unlearn")[name] for name in {MODELS}}}
    retrained = {{name: params.section(root, "retrain")[name] for name in ("reference", "floor")}}
    retrained["another"] = {{"seed_offset": 2}}
    same = {{"split.scenario": "fraction", "unlearn": few, "retrain": retrained}}
    same |= settings
    return [sweep.Cell(name=f"seed {{seed}}", changes={{"seed": seed, **same}}) for seed in (0, 1)]
sweep.reported_cells = cells
sweep.main()
"""


def test_a_cell_has_changed_parameters_and_the_rest_as_it_is(workspace: Path) -> None:
    cell = Cell(name="x", changes={"seed": 7, "split.scenario": "fraction"})
    folder = prepare(workspace, cell)
    expected = params.read(workspace)
    expected["seed"] = 7
    expected["split"]["scenario"] = "fraction"
    assert params.read(folder) == expected
    assert prepare(workspace, cell) == folder
    assert prepare(workspace, Cell(name="x", changes={"seed": 8})) != folder
    code = "imu/objective.py"
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


def test_every_scenario_is_reported_and_no_reported_request_is_tuned_on() -> None:
    cells = [cell.changes for cell in sweep.reported_cells(REPOSITORY, shipped=False)]
    found = sorted((changes["split.scenario"], changes["seed"]) for changes in cells)
    scenarios = set(get_args(Config.__dataclass_fields__["scenario"].type))
    # Digits know neither groups nor subjects.
    scenarios -= {"group", "subject"}
    assert found == [(scenario, seed) for scenario in sorted(scenarios) for seed in (0, 1, 2)]
    assert (REPOSITORY / params.section(REPOSITORY, "split.by_ids.file")).is_file()
    # The file names the same samples whatever the seed is.
    assert "ids" not in {cell.changes["split.scenario"] for cell in sweep.tuning_cells()}


def test_settings_change_every_cell_and_stand_in_the_command() -> None:
    settings = {"train.epochs": 2, "ensemble.members": 0}
    cells = sweep.reported_cells(REPOSITORY, True, settings, ("fraction",))
    assert [cell.changes["seed"] for cell in cells] == [0, 1, 2]
    for cell in cells:
        assert settings.items() <= cell.changes.items()
        assert cell.changes["split.scenario"] == "fraction"
    assert sweep.command(False, None, sweep.SCENARIOS) == "make table"
    found = sweep.command(True, Path("settings/x.yaml"), ("class", "fraction"))
    assert found == (
        "python -m flows.sweep table --shipped --with settings/x.yaml --scenarios class fraction"
    )


@pytest.mark.parametrize("name", sorted(path.name for path in SETTINGS.glob("*.yaml")))
def test_the_settings_that_ship_are_valid(workspace: Path, name: str) -> None:
    changes = params.read_file(SETTINGS / name, name, "dotted paths")
    cell, *_ = sweep.reported_cells(workspace, True, changes, ("class",))
    folder = prepare(workspace, cell)
    assert run("python", "-m", "tasks", "check", cwd=folder).stdout == "parameters are valid\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 5}, "settings must not have 'seed': the sweep sets it"),
        ({"split.scenario": "class"}, r"must not have 'split\.scenario'"),
        ({"original.retrain": False}, "a table needs a reference"),
    ],
)
def test_settings_may_not_take_what_the_sweep_varies(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(params.ParameterError, match=message):
        sweep.reported_cells(REPOSITORY, True, settings, ("class",))


def test_settings_that_cannot_be_read_are_refused(workspace: Path) -> None:
    call = ("python", "-m", "flows.sweep", "table", "--with")
    (workspace / "list.yaml").write_text("- 1")
    for name, message in (
        ("nowhere.yaml", "there is no nowhere.yaml"),
        ("list.yaml", "list.yaml must be a mapping of dotted paths, got [1]"),
    ):
        done = run(*call, name, cwd=workspace, check=False)
        assert done.returncode == 1
        assert f"table failed: {message}" in done.stdout
        assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_a_sweep_writes_the_page_and_leaves_the_canonical_outputs_alone(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    (root / "quick.yaml").write_text("split.by_fraction.fraction: 0.2\n")
    done = run("python", "-c", TWO_CELLS, "table", "--with", "quick.yaml", cwd=root)
    page = (root / "docs" / "results-quick.md").read_text()
    assert page in done.stdout
    assert "# Results on quick\n" in page
    assert "    split.by_fraction.fraction: 0.2\n" in page
    assert "## fraction: stratified 20 % (2 seeds)" in page
    for model in ("reference", "floor", *MODELS):
        assert f"\n| {model} |" in page
    assert "| another |" not in page
    assert "| TFA |" not in page
    assert "### Distance to the reference: model − nothing" in page
    found = pd.read_csv(root / "docs" / "results-quick.csv")
    assert found.groupby("model")["seed"].agg(list).to_dict() == {
        model: [0, 1] for model in ("reference", "floor", "another", *MODELS)
    }
    assert found["verdict"].notna().sum() == 10
    assert found.loc[found["model"] == "imu", "U_LiRA"].notna().all()
    assert found["RTE_time"].notna().any()
    assert (root / "docs" / "results-quick.png").is_file()
    assert not (root / "runs").exists()
    assert not (root / "dvc.lock").exists()


def test_a_sweep_is_every_combination() -> None:
    requests = [Request(), Request(scenario="fraction", fraction=0.2)]
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
        sweep.asked_cells(REPOSITORY, [Request(seed=1)], [], [0], {}, "")
    with pytest.raises(params.ParameterError, match=r"has no 'train\.epoch' to change"):
        sweep.asked_cells(REPOSITORY, [Request()], [], [0], {"train.epoch": [1]}, "")
