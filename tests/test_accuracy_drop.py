"""What each class loses, from predictions by hand."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from research import accuracy_drop
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace
from tests.conftest import REPOSITORY, keep


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """Two retained classes; imu gets half of b wrong and one of a right; imu_deep left no model."""
    shutil.copy(REPOSITORY / params.FILE, tmp_path)
    keep(tmp_path, {"unlearn": ("nothing", "imu", "imu_deep"), "retrain": ("reference",)})
    space = Workspace(tmp_path)
    request = {"scenario": "class", "forget": "class c", "classes": ["a", "b", "c"]}
    artifacts.write_json(space.request, request)
    labels = [0, 0, 1, 1, 2]
    original = [0, 1, 1, 1, 2]
    said = {"retrain/reference": original, "unlearn/nothing": original}
    said["unlearn/imu"] = [0, 0, 1, 0, 0]
    for producer, predicted in said.items():
        found = pd.DataFrame({"label": labels, "predicted": predicted})
        found["original_predicted"] = found["reference_predicted"] = original
        for of in ("", "original_", "reference_"):
            found[f"{of}right"] = (found[f"{of}predicted"] == found["label"]).astype(float)
        found.insert(0, "set", ["retain"] * 4 + ["forget"])
        found.insert(1, "id", [f"id-{number}" for number in range(5)])
        artifacts.write_table(space.evaluation(producer) / "predictions.parquet", found)
        artifacts.write_json(space.failure(producer), "")
    artifacts.write_json(space.failure("unlearn/imu_deep"), "it diverged")
    return tmp_path


def test_points_lost_are_of_the_retain_set_by_class_and_model(cell):
    found = accuracy_drop.by_class([cell])
    assert list(found.columns) == list(accuracy_drop.COLUMNS)
    assert set(found["forget"]) == {"class c"}
    assert set(found["seed"]) == {0}
    lost = {
        model: dict(zip(rows["class"], rows["lost"], strict=True))
        for model, rows in found.groupby("model")
    }
    assert lost == {
        "reference": {"a": 0.0, "b": 0.0},
        "nothing": {"a": 0.0, "b": 0.0},
        "imu": {"a": -50.0, "b": 50.0},
    }
    assert set(found["samples"]) == {2}
