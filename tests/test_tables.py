import json
import math
from pathlib import Path

import pandas as pd
import pytest

from tasks import tables
from tasks.artifacts import ArtifactError


def results(gaps: dict[str, list[float]], scenario: str = "class") -> pd.DataFrame:
    """One row per model and seed."""
    return pd.DataFrame(
        [
            {
                "dataset": "digits",
                "scenario": scenario,
                "forget": "class 8",
                "seed": seed,
                "model": model,
                "gap": gap,
                "RTE_work": math.nan if model == "nothing" else 2.0,
            }
            for model, values in gaps.items()
            for seed, gap in enumerate(values)
        ]
    )


GAPS = {"imu": [1.0, 2.0, 3.0], "nothing": [9.0, 9.0, 9.0], "floor": [2.0, 2.0, 2.0]}


def test_the_summary_is_mean_and_sample_deviation_over_seeds() -> None:
    found = tables.summary(results(GAPS))
    assert found.loc["imu", "gap"] == "2.00 ± 1.00"
    assert found.loc["nothing", "RTE_work"] == "–"


def test_baselines_come_first() -> None:
    assert list(tables.summary(results(GAPS)).index) == ["floor", "nothing", "imu"]


def test_wins_losses_and_ties_are_counted_seed_by_seed() -> None:
    page = tables.results_page(results(GAPS), "make table")
    assert "`imu` has a smaller gap than nothing in 3 of 3, floor in 1 of 3 (1 ties) seeds" in page


def test_the_candidate_with_the_smallest_mean_gap_is_taken() -> None:
    grid = {
        "m_1": {"tuned": "m", "candidate": {"learning_rate": 0.1}},
        "m_2": {"tuned": "m", "candidate": {"learning_rate": 0.2}},
    }
    table = results({"m_1": [1.0, 9.0], "m_2": [4.0, 4.0]})
    assert tables.best(table, grid) == {"m": {"learning_rate": 0.2}}
    lines = tables.tuning_page(table, grid, "make tune").splitlines()
    assert [line for line in lines if line.endswith("yes |")] == [
        '| {"learning_rate": 0.2} | 4.00 | 0.00 | 4.00 | yes |'
    ]


def test_cells_become_rows_and_a_missing_model_is_an_error(tmp_path: Path) -> None:
    cells = {}
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        (folder / "runs" / "split").mkdir(parents=True)
        (folder / "params.yaml").write_text(f"seed: {seed}\n")
        (folder / "runs" / "split" / "request.json").write_text(
            json.dumps({"dataset": "digits", "scenario": "class", "forget": "class 8"})
        )
        cells[str(folder)] = {"results": {"imu/gap": 1.0 + seed, "floor/gap": 0.5}}
    found = tables.collected(cells)
    assert found.set_index(["model", "seed"])["gap"].to_dict() == {
        ("imu", 0): 1.0,
        ("floor", 0): 0.5,
        ("imu", 1): 2.0,
        ("floor", 1): 0.5,
    }
    del cells[str(folder)]["results"]["imu/gap"]
    with pytest.raises(ArtifactError, match="models are missing in some cells"):
        tables.collected(cells)
