import math
from dataclasses import replace

import numpy as np
import pytest

from imu.metrics import Measured, unseen_divergence
from tests import oracles
from tests.test_metrics import changed, outputs


def found(plain) -> float:
    return unseen_divergence.alone(Measured(outputs=plain))["JSD_unseen"]


def test_it_equals_the_loop():
    plain = outputs()
    total, labels = 0.0, plain.labels["forget"].tolist()
    for label in set(labels):
        means = []
        for name in ("forget", "test"):
            chosen = zip(plain.probabilities[name], plain.labels[name], strict=True)
            rows = [row.tolist() for row, own in chosen if own == label]
            means.append(np.array([[math.fsum(c) / len(rows) for c in zip(*rows, strict=True)]]))
        total += labels.count(label) * oracles.jensen_shannon(*means)
    assert found(plain) == pytest.approx(total / len(labels), rel=1e-12)  # rounding of means


def test_it_is_0_where_both_are_answered_alike_and_ln_2_where_nothing_is_shared():
    plain = outputs()
    alike = {name: np.eye(4)[labels] for name, labels in plain.labels.items()}
    assert found(replace(plain, probabilities=alike)) == 0.0
    shifted = alike | {"forget": np.roll(alike["forget"], 1, axis=1)}
    assert found(replace(plain, probabilities=shifted)) == pytest.approx(math.log(2))


def test_a_class_without_test_samples_is_an_error():
    plain = outputs()
    label = plain.labels["forget"][0]
    with pytest.raises(ValueError, match=f"class {label} has no test sample to compare with"):
        found(changed(plain, "test", plain.labels["test"] != label))
