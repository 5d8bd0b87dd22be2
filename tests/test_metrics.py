from dataclasses import replace

import numpy as np
import pytest

from imu import metrics
from imu.metrics import Measured, Outputs, accuracy, average_gap, membership, total_variation
from tests import oracles

SETS = {"forget": 12, "retain": 40, "validation": 24, "test": 30}


def outputs(seed: int = 0, forget_classes: tuple[int, ...] = (1,)) -> Outputs:
    """Random outputs of four classes; the labels do not depend on ``seed``."""
    draw, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    labels = {name: fixed.integers(0, 4, n) for name, n in SETS.items()}
    return Outputs(
        probabilities={name: draw.dirichlet(np.ones(4), n) for name, n in SETS.items()},
        labels=labels,
        forget_classes=forget_classes,
    )


def confident(levels: dict[str, float], forget_classes: tuple[int, ...] = ()) -> Outputs:
    """Two classes; every sample of a set has the same probability of its label."""
    plain = outputs(forget_classes=forget_classes)
    labels = {name: values % 2 for name, values in plain.labels.items()}
    probabilities = {
        name: np.where(np.eye(2, dtype=bool)[labels[name]], p, 1 - p) for name, p in levels.items()
    }
    return replace(plain, probabilities=probabilities, labels=labels)


def changed(plain: Outputs, name: str, keep: np.ndarray) -> Outputs:
    return replace(
        plain,
        probabilities=plain.probabilities | {name: plain.probabilities[name][keep]},
        labels=plain.labels | {name: plain.labels[name][keep]},
    )


@pytest.mark.parametrize("forget_classes", [(), (1,), (0, 3)])
def test_accuracies_equal_the_loop(forget_classes):
    plain = outputs(forget_classes=forget_classes)
    expected = {
        "FA": oracles.accuracy(plain.probabilities["forget"], plain.labels["forget"]),
        "RA": oracles.accuracy(plain.probabilities["retain"], plain.labels["retain"]),
    }
    test = plain.probabilities["test"], plain.labels["test"]
    expected["TA"] = oracles.accuracy(*test, keep=lambda label: label not in forget_classes)
    if forget_classes:
        expected["TFA"] = oracles.accuracy(*test, keep=lambda label: label in forget_classes)
    assert accuracy.measure(plain) == pytest.approx(expected, abs=1e-12)  # one division


def test_total_variation_equals_the_loop():
    one, other = outputs(0), outputs(1)
    found = total_variation.compare(Measured(outputs=one), Measured(outputs=other))
    expected = oracles.total_variation(one.probabilities["test"], other.probabilities["test"])
    assert found == pytest.approx({"TV": expected}, abs=1e-12)  # a sum of 120 terms
    assert found["TV"] > 0.1


def test_total_variation_of_opposite_certainties_is_1():
    sure, opposite = (Measured(outputs=confident({"test": p})) for p in (1.0, 0.0))
    assert total_variation.compare(sure, opposite) == {"TV": 1.0}


@pytest.mark.parametrize("forget_classes", [(), (1,)])
def test_the_average_gap_equals_the_loop(forget_classes):
    judged, reference = (metrics.measure(outputs(seed, forget_classes)) for seed in (0, 1))
    found = average_gap.compare(judged, reference)["gap"]
    assert found == pytest.approx(oracles.average_gap(judged.values, reference.values), abs=1e-12)
    assert found > 1


def test_the_average_gap_counts_points_of_the_five_values_alone():
    zero = dict.fromkeys(average_gap.OVER, 0.0)
    judged = Measured(outputs=outputs(), values=zero | {"FA": 10.0, "TFA": -5.0, "other": 99.0})
    reference = Measured(outputs=outputs(), values=zero | {"other": 0.0})
    assert average_gap.compare(judged, reference) == {"gap": 3.0, "gap_acc": 3.75}


def test_the_gap_of_accuracies_leaves_mia_out():
    zero = dict.fromkeys(average_gap.OVER, 0.0)
    judged = Measured(outputs=outputs(), values=zero | {"MIA": 100.0, "TA": 1.0})
    reference = Measured(outputs=outputs(), values=zero)
    assert average_gap.compare(judged, reference) == {"gap": 20.2, "gap_acc": 0.25}


def test_the_average_gap_misses_a_value_of_the_reference():
    judged, reference = Measured(outputs=outputs(), values={"FA": 1.0}), Measured(outputs=outputs())
    with pytest.raises(KeyError, match="FA"):
        average_gap.compare(judged, reference)


@pytest.mark.parametrize("forget_classes", [(), (1,)])
def test_a_model_has_no_distance_to_itself(forget_classes):
    own = metrics.measure(outputs(forget_classes=forget_classes))
    found = metrics.compare(own, own)
    assert found["gap"] == 0.0
    assert found["TV"] == 0.0


def test_every_value_is_named_with_its_direction_and_in_that_order():
    judged, reference = (metrics.measure(outputs(seed)) for seed in (0, 1))
    found = metrics.compare(judged, reference)
    assert list(found) == list(metrics.about())
    assert judged.values.items() <= found.items()
    assert {about.aim for about in metrics.about().values()} == {"reference", "low"}
    for name, (direction, _, meaning) in metrics.about().items():
        assert meaning
        # What is compared has 0 as its aim; what one model has is held against the reference.
        assert (direction == "reference") == (name in judged.values)


def test_two_metrics_may_not_share_a_name(monkeypatch):
    monkeypatch.setattr(membership, "ABOUT", {"FA": membership.ABOUT["MIA"]})
    with pytest.raises(ValueError, match=r"imu\.metrics\.membership repeats the metric \['FA'\]"):
        metrics.about()


def test_tfa_is_absent_sample_wise():
    judged = metrics.measure(outputs(forget_classes=()))
    assert "TFA" not in metrics.compare(judged, judged)
    assert "TFA" in metrics.measure(outputs(forget_classes=(1,))).values


@pytest.mark.parametrize("fault", ["another label", "fewer samples", "fewer sets"])
def test_a_reference_on_other_samples_is_refused(fault):
    plain = outputs()
    if fault == "fewer samples":
        other = changed(plain, "validation", np.arange(23))
    elif fault == "another label":
        other = replace(plain, labels=plain.labels | {"test": (plain.labels["test"] + 1) % 4})
    else:
        other = replace(plain, labels={k: v for k, v in plain.labels.items() if k != "test"})
    values = metrics.measure(plain).values
    with pytest.raises(ValueError, match="different samples"):
        metrics.compare(
            Measured(outputs=plain, values=values), Measured(outputs=other, values=values)
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named(value):
    own = metrics.measure(outputs())
    broken = replace(own, values=own.values | {"MIA": value})
    with pytest.raises(FloatingPointError, match=r"not finite.*'MIA'"):
        metrics.compare(broken, own)


@pytest.mark.parametrize("name", ["forget", "retain", "test"])
def test_an_empty_set_has_no_accuracy(name):
    with pytest.raises(ValueError, match=f"no samples to measure accuracy on: {name}"):
        accuracy.measure(changed(outputs(), name, np.zeros(0, dtype=int)))


def test_a_forgotten_class_without_test_samples_has_no_accuracy():
    plain = outputs()
    with pytest.raises(ValueError, match="test, forgotten classes"):
        accuracy.measure(changed(plain, "test", plain.labels["test"] != 1))


@pytest.mark.parametrize(("forget", "called"), [(0.05, 100.0), (0.95, 0.0)])
def test_the_attack_tells_separated_sets_apart(forget, called):
    levels = {"forget": forget, "retain": 0.95, "validation": 0.05, "test": 0.5}
    assert membership.measure(confident(levels)) == {"MIA": called}


def test_the_attack_counts_the_share_of_the_forget_set():
    plain = confident({"forget": 0.95, "retain": 0.95, "validation": 0.05})
    plain.probabilities["forget"][:3] = plain.probabilities["forget"][:3, ::-1]
    assert membership.measure(plain) == {"MIA": 25.0}


def test_the_attack_never_reads_the_test_set():
    plain = outputs()
    blind = replace(
        plain, probabilities=plain.probabilities | {"test": np.full((SETS["test"], 4), np.nan)}
    )
    assert membership.measure(blind) == membership.measure(plain)


def test_the_attack_leaves_out_validation_samples_of_the_forgotten_class():
    plain = outputs()
    of_class = plain.labels["validation"] == 1
    assert of_class.any()
    probabilities = plain.probabilities["validation"].copy()
    probabilities[of_class] = np.nan  # SVC refuses NaN
    blind = replace(plain, probabilities=plain.probabilities | {"validation": probabilities})
    assert membership.measure(blind) == membership.measure(plain)
    with pytest.raises(ValueError, match="NaN"):
        membership.measure(replace(blind, forget_classes=()))


def test_the_attack_learns_from_as_many_members_as_non_members(monkeypatch):
    import sklearn.svm

    fitted = []

    class Seen(sklearn.svm.SVC):
        def fit(self, x, y):
            fitted.append((len(x), y.mean(), self.C, self.gamma, self.kernel))
            return super().fit(x, y)

    monkeypatch.setattr(sklearn.svm, "SVC", Seen)
    membership.measure(outputs(forget_classes=()))
    assert fitted == [(2 * SETS["validation"], 0.5, 3.0, "auto", "rbf")]


def test_the_attack_draws_by_its_seed():
    found = {s: membership.measure(replace(outputs(), seed=s))["MIA"] for s in range(8)}
    assert {s: membership.measure(replace(outputs(), seed=s))["MIA"] for s in range(8)} == found
    assert len(set(found.values())) > 1


@pytest.mark.parametrize("name", ["retain", "validation"])
def test_the_attack_needs_members_and_non_members(name):
    with pytest.raises(ValueError, match="needs members and non-members"):
        membership.measure(changed(outputs(), name, np.zeros(0, dtype=int)))
