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
                "sees": "forget",
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


def tried(gaps: dict[str, list[float]]) -> pd.DataFrame:
    """One row per candidate of ``m`` and cell."""
    return pd.DataFrame(
        [
            {
                "scenario": ("class", "fraction")[cell],
                "forget": "class 1",
                "seed": 7,
                "entry": "m",
                "candidate": candidate,
                "gap": gap,
            }
            for candidate, values in gaps.items()
            for cell, gap in enumerate(values)
        ]
    )


def test_the_candidate_with_the_smallest_mean_gap_is_taken() -> None:
    table = tried({'{"a": 1}': [1.0, 9.0], '{"a": 2}': [4.0, 4.0], '{"a": 3}': [0.0, math.nan]})
    assert tables.best(table) == {"m": {"a": 2}}
    lines = tables.tuning_page(table, "make tune").splitlines()
    assert [line for line in lines if line.endswith("yes |")] == [
        '| {"a": 2} | 4.00 | 4.00 | 4.00 | 4.00 | 0 | yes |'
    ]
    assert "| candidate | mean | max | class | fraction | failed | taken |" in lines
    assert '| {"a": 1} | 5.00 | 9.00 | 1.00 | 9.00 | 0 |  |' in lines
    assert '| {"a": 3} | 0.00 | 0.00 | 0.00 | nan | 1 |  |' in lines


def test_a_method_of_which_every_candidate_failed_has_no_best() -> None:
    with pytest.raises(ArtifactError, match="every candidate of m failed"):
        tables.best(tried({'{"a": 1}': [1.0, math.nan]}))


def test_candidates_of_all_cells_are_collected(tmp_path: Path) -> None:
    for seed, text in ((7, "m,{},1.5,"), (8, 'm,{},,"a loss is nan, they say"')):
        root = tmp_path / str(seed)
        for part in ("split", "tune"):
            (root / "runs" / part).mkdir(parents=True)
        (root / "params.yaml").write_text(f"seed: {seed}\n")
        (root / "runs" / "split" / "request.json").write_text(
            '{"forget": "class 1", "scenario": "class"}'
        )
        lines = f"entry,candidate,gap,failure\n{text}\n"
        (root / "runs" / "tune" / "candidates.csv").write_text(lines)
    found = tables.candidates([tmp_path / "7", tmp_path / "8"])
    assert found["seed"].tolist() == [7, 8]
    assert found["gap"].isna().tolist() == [False, True]
    assert found["failure"][1] == "a loss is nan, they say"


def test_cells_become_rows_and_a_missing_model_is_an_error(tmp_path: Path) -> None:
    cells = {}
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        (folder / "runs" / "split").mkdir(parents=True)
        (folder / "params.yaml").write_text(f"seed: {seed}\nunlearn: {{imu: {{sees: forget}}}}\n")
        (folder / "runs" / "split" / "request.json").write_text(
            json.dumps({"dataset": "digits", "scenario": "class", "forget": "class 8"})
        )
        cells[str(folder)] = {"results": {"imu/gap": 1.0 + seed, "floor/gap": 0.5}}
    found = tables.collected(cells)
    assert set(zip(found["model"], found["sees"], strict=True)) == {
        ("imu", "forget"),
        ("floor", "retain"),
    }
    assert found.set_index(["model", "seed"])["gap"].to_dict() == {
        ("imu", 0): 1.0,
        ("floor", 0): 0.5,
        ("imu", 1): 2.0,
        ("floor", 1): 0.5,
    }
    del cells[str(folder)]["results"]["imu/gap"]
    with pytest.raises(ArtifactError, match="models are missing in some cells"):
        tables.collected(cells)
