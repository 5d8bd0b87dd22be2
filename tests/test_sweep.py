"""Cells of a sweep, and the page that is made from them."""

from pathlib import Path

import pytest

from flows.cells import Cell, prepare
from tasks import params
from tests.conftest import REPOSITORY, make_workspace, run

# The sweep of `make table`, on two cells.
TWO_CELLS = """
from flows import sweep
sweep.reported_cells = lambda root: [
    sweep.Cell(name=f"seed {seed}", changes={"seed": seed, "split.scenario": "fraction"})
    for seed in (0, 1)
]
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


@pytest.mark.slow
def test_a_sweep_writes_the_page_and_leaves_the_canonical_outputs_alone(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    done = run("python", "-c", TWO_CELLS, "table", cwd=root)
    page = (root / "docs" / "results-digits.md").read_text()
    assert page in done.stdout
    assert "## fraction: stratified 10 % (2 seeds)" in page
    for model in ("reference", "floor", *params.section(REPOSITORY, "unlearn")):
        assert f"| {model} |" in page
    assert "TFA" not in page.split("## ")[1]
    assert (root / "docs" / "results-digits.png").is_file()
    assert not (root / "runs").exists()
    assert not (root / "dvc.lock").exists()
