"""Slices by class and by sample, from predictions made up so that the answers are seen at once."""

import numpy as np
import pandas as pd
import pytest

from imu.metrics import Outputs
from tasks.judging.classification import answers
from tasks.pages import slices

LABELS = {"forget": [1, 1, 0], "retain": [0, 0, 1], "test": [0, 1]}


def outputs(confidences: dict[str, list[float]]) -> Outputs:
    """Two classes; the probability of each sample's label."""
    labels = {name: np.array(values) for name, values in LABELS.items()}
    rows = {name: np.arange(len(values)) for name, values in labels.items()}
    probabilities = {}
    for name, values in confidences.items():
        p = np.empty((len(values), 2))
        p[rows[name], labels[name]] = values
        p[rows[name], 1 - labels[name]] = 1 - np.array(values)
        probabilities[name] = p
    return Outputs(probabilities=probabilities, features={}, labels=labels, forget_classes=())


def said(outputs: Outputs) -> dict[str, pd.DataFrame]:
    return {name: answers(outputs, name) for name in outputs.probabilities}


@pytest.fixture
def found() -> pd.DataFrame:
    manifests = {
        name: pd.DataFrame({"id": [f"{name}{i}" for i in range(len(v))], "label": v, "index": 0})
        for name, v in LABELS.items()
    }
    judged = outputs({"forget": [0.6, 0.9, 0.2], "retain": [0.1, 0.9, 0.7], "test": [0.9, 0.2]})
    reference = outputs({"forget": [0.5, 0.1, 0.4], "retain": [0.9] * 3, "test": [0.9, 0.8]})
    original = outputs({"forget": [1.0] * 3, "retain": [0.8, 0.8, 1.0], "test": [0.4, 0.8]})
    return slices.predictions(manifests, said(judged), said(reference), said(original))


def test_predictions_hold_what_three_models_say(found: pd.DataFrame) -> None:
    row = found[found["id"] == "forget2"].iloc[0]
    assert row["label"] == 0
    assert (row["predicted"], row["reference_predicted"], row["original_predicted"]) == (1, 1, 0)
    assert (row["confidence"], row["reference_confidence"]) == (0.2, 0.4)
    assert len(found) == sum(map(len, LABELS.values()))


def test_accuracy_by_class_is_counted_per_set(found: pd.DataFrame) -> None:
    table = slices.by_class(found).set_index(["class", "set"])
    assert table.loc[(0, "retain")].to_dict() == {
        "samples": 2,
        "accuracy": 50.0,
        "reference": 100.0,
        "original": 100.0,
        "changed": -50.0,
    }
    assert table.loc[(1, "test"), "changed"] == -100.0
    assert table.loc[(0, "test"), "original"] == 0.0
    assert len(table) == 6


def test_the_least_forgotten_is_what_exceeds_the_reference_most(found: pd.DataFrame) -> None:
    influence = pd.DataFrame({"id": ["forget2", "forget0", "forget1"], "influence": [3.0, 1, 2]})
    table = slices.least_forgotten(found, influence)
    assert table["id"].tolist() == ["forget1", "forget0", "forget2"]
    assert table["influence"].tolist() == [2.0, 1.0, 3.0]
    assert table["remembered"].tolist() == pytest.approx([0.8, 0.1, -0.2])
    with pytest.raises(ValueError, match="other samples than the forget set"):
        slices.least_forgotten(found, influence[:2])


def test_without_a_reference_the_original_is_the_yardstick(found: pd.DataFrame) -> None:
    alone = found[[c for c in found if not c.startswith("reference_")]]
    table = slices.by_class(alone).set_index(["class", "set"])
    assert "reference" not in table
    assert table.loc[(0, "retain"), "changed"] == -50.0
    assert table.loc[(0, "test"), "changed"] == 100.0
    influence = pd.DataFrame({"id": ["forget0", "forget1", "forget2"], "influence": [1.0, 2, 3]})
    least = slices.least_forgotten(alone, influence)
    assert least["remembered"].tolist() == [0.9, 0.6, 0.2]


def test_predictions_without_a_reference_have_no_columns_of_it() -> None:
    manifests = {"test": pd.DataFrame({"id": ["a", "b"], "label": [0, 1]})}
    own = outputs({"test": [0.9, 0.2]})
    table = slices.predictions(manifests, said(own), None, said(own))
    assert not [column for column in table if column.startswith("reference_")]
    assert table["original_confidence"].tolist() == [0.9, 0.2]


def test_the_retain_samples_that_lost_most_come_first(found: pd.DataFrame) -> None:
    table = slices.got_worse(found)
    assert table["id"].tolist() == ["retain0", "retain2", "retain1"]
    assert table["lost"].tolist() == pytest.approx([0.7, 0.3, -0.1])


def test_of_many_classes_those_that_changed_most_are_shown() -> None:
    changed = pd.DataFrame({"a": [0.0, -3.0, 1.0], "b": [2.0, 0.0, 1.0]})
    assert slices.most_changed(changed, 3).equals(changed)
    assert slices.most_changed(changed, 2).index.tolist() == [1, 0]
