"""Cells of a sweep, and the page that is made from them."""

from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from flows import sweep
from flows.cells import Cell, prepare
from imu.splitting import Config
from tasks import params
from tests.conftest import REPOSITORY, make_workspace, run

MODELS = ("nothing", "logit_mask", "imu")
# The sweep of `make table`, on two cells and few models.
TWO_CELLS = f"""
from flows import sweep
from tasks import params
def cells(root, shipped):
    few = {{name: params.section(root, "unlearn")[name] for name in {MODELS}}}
    retrained = {{name: params.section(root, "retrain")[name] for name in ("reference", "floor")}}
    retrained["another"] = {{"seed_offset": 2}}
    same = {{"split.scenario": "fraction", "unlearn": few, "retrain": retrained}}
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


def test_a_cell_cannot_change_what_is_not_there(workspace: Path) -> None:
    with pytest.raises(params.ParameterError, match=r"no 'train\.epoch' to change"):
        prepare(workspace, Cell(name="x", changes={"train.epoch": 1}))


def test_every_scenario_is_reported_and_no_reported_request_is_tuned_on() -> None:
    cells = [cell.changes for cell in sweep.reported_cells(REPOSITORY, shipped=False)]
    found = sorted((changes["split.scenario"], changes["seed"]) for changes in cells)
    scenarios = get_args(Config.__dataclass_fields__["scenario"].type)
    assert found == [(scenario, seed) for scenario in sorted(scenarios) for seed in (0, 1, 2)]
    assert (REPOSITORY / params.section(REPOSITORY, "split.by_ids.file")).is_file()
    # The file names the same samples whatever the seed is.
    assert "ids" not in {cell.changes["split.scenario"] for cell in sweep.tuning_cells()}


@pytest.mark.slow
def test_a_sweep_writes_the_page_and_leaves_the_canonical_outputs_alone(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    done = run("python", "-c", TWO_CELLS, "table", cwd=root)
    page = (root / "docs" / "results-digits.md").read_text()
    assert page in done.stdout
    assert "## fraction: stratified 10 % (2 seeds)" in page
    for model in ("reference", "floor", *MODELS):
        assert f"\n| {model} |" in page
    assert "| another |" not in page
    assert "| TFA |" not in page
    assert "### Distance to the reference: model − nothing" in page
    found = pd.read_csv(root / "docs" / "results-digits.csv")
    assert found.groupby("model")["seed"].agg(list).to_dict() == {
        model: [0, 1] for model in ("reference", "floor", "another", *MODELS)
    }
    assert found["verdict"].notna().sum() == 10
    assert found.loc[found["model"] == "imu", "U_LiRA"].notna().all()
    assert found["RTE_time"].notna().any()
    assert (root / "docs" / "results-digits.png").is_file()
    assert not (root / "runs").exists()
    assert not (root / "dvc.lock").exists()
