import math
from dataclasses import replace

import numpy as np
import pytest

from imu.metrics import (
    Measured,
    Outputs,
    jensen_shannon,
    kullback_leibler,
    membership,
    total_variation,
    tug_of_war,
    wasserstein,
)
from tests import oracles
from tests.test_metrics import SETS, changed, outputs

MIA = list(membership.ABOUT)
PAIRED = (total_variation, kullback_leibler, jensen_shannon)


def confident(levels: dict[str, float], forget_classes: tuple[int, ...] = ()) -> Outputs:
    """Two classes; every sample of a set has the same probability of its label."""
    plain = outputs(forget_classes=forget_classes)
    labels = {name: values % 2 for name, values in plain.labels.items()}
    probabilities = {
        name: np.where(np.eye(2, dtype=bool)[labels[name]], p, 1 - p) for name, p in levels.items()
    }
    return replace(plain, probabilities=probabilities, labels=labels)


def masked(plain: Outputs, label: int = 1) -> Outputs:
    """As a logit mask leaves it: exactly 0 for one class."""
    left = {name: p * (np.arange(4) != label) for name, p in plain.probabilities.items()}
    return replace(
        plain, probabilities={name: p / p.sum(1, keepdims=True) for name, p in left.items()}
    )


def said(test: list[list[float]]) -> Measured:
    return Measured(outputs=replace(outputs(), probabilities={"test": np.array(test)}))


def compared(module, judged: Outputs, reference: Outputs) -> dict[str, float]:
    return module.compare(Measured(outputs=judged), Measured(outputs=reference))


@pytest.mark.parametrize("judged", [outputs(4), masked(outputs(4))])
def test_distances_equal_the_loop(judged):
    reference = outputs(1)
    p, q = (each.probabilities["test"] for each in (reference, judged))
    forget = (each.probabilities["forget"] for each in (reference, judged))
    expected = {
        "TV": oracles.total_variation(p, q),
        "TV_forget": oracles.total_variation(*forget),
        "KL": oracles.kullback_leibler(p, q, floor=1e-8),
        "JS": oracles.jensen_shannon(p, q),
        "W1_published": oracles.wasserstein_of_classes(p, q),
    }
    found = {}
    for module in (*PAIRED, wasserstein):
        found |= compared(module, judged, reference)
    assert found == pytest.approx(expected, abs=1e-12)  # sums of 120 terms below 20
    assert min(found.values()) > 0.05


@pytest.mark.parametrize(
    ("module", "farthest"),
    [
        (total_variation, {"TV": 1.0, "TV_forget": 1.0}),
        (kullback_leibler, {"KL": (1 - 1e-8) / (1 + 1e-8) * math.log(1e8)}),
        (jensen_shannon, {"JS": math.log(2)}),
    ],
)
def test_opposite_certainties_are_farthest(module, farthest):
    sure, opposite = (confident({"test": p, "forget": p}) for p in (1.0, 0.0))
    found = compared(module, sure, opposite)
    assert found == pytest.approx(farthest, rel=1e-14)  # a mean of 30 equal values


@pytest.mark.parametrize("module", [*PAIRED, wasserstein])
def test_a_masked_model_has_no_distance_to_itself(module):
    plain = masked(outputs())
    assert set(compared(module, plain, plain).values()) == {0.0}


def test_kl_asks_what_the_reference_gives():
    sure, unsure = said([[1.0, 0.0]]), said([[0.5, 0.5]])
    # The floor moves 1e-8 of the mass.
    assert kullback_leibler.compare(unsure, sure)["KL"] == pytest.approx(math.log(2), abs=1e-6)
    assert kullback_leibler.compare(sure, unsure)["KL"] > 8


def test_kl_is_not_negative_where_the_floor_acts():
    found = kullback_leibler.compare(said([[1.0, 0.0]]), said([[1 - 5e-9, 5e-9]]))
    assert found["KL"] >= -1e-15  # rounding; without dividing by the sum it is −5e-9


def test_js_is_finite_at_the_least_float():
    least = np.nextafter(0, 1)
    judged, reference = said([[1.0, least]]), said([[1.0, 0.0]])
    assert jensen_shannon.compare(judged, reference)["JS"] == 0.0


def test_the_published_distance_depends_on_the_order_of_classes():
    reordered = np.array([0, 3, 2, 1])

    def renamed(plain: Outputs) -> Outputs:
        named = {name: p[:, reordered] for name, p in plain.probabilities.items()}
        return replace(plain, probabilities=named)

    pair = outputs(4), outputs(1)
    pairs = pair, tuple(renamed(plain) for plain in pair)
    before, after = (compared(wasserstein, *each)["W1_published"] for each in pairs)
    assert abs(before - after) > 0.1
    for module in PAIRED:
        before, after = (compared(module, *each) for each in pairs)
        assert before == pytest.approx(after, abs=1e-12)  # another order of 120 additions


def test_the_published_distance_misses_that_every_image_got_another_class():
    judged, reference = said([[1.0, 0.0], [0.0, 1.0]]), said([[0.0, 1.0], [1.0, 0.0]])
    assert wasserstein.compare(judged, reference) == {"W1_published": 0.0}


def test_the_published_distance_is_in_class_numbers():
    first, last = said([[1.0, 0.0, 0.0]] * 3), said([[0.0, 0.0, 1.0]] * 3)
    assert wasserstein.compare(first, last) == {"W1_published": 2.0}


def test_the_tug_of_war_equals_the_loop():
    judged = {"FA": 12.0, "RA": 97.0, "TA": 81.0, "TFA": 50.0, "MIA": 3.0}
    reference = {"FA": 2.0, "RA": 99.0, "TA": 80.0, "TFA": 0.0, "MIA": 90.0}
    found = tug_of_war.compare(
        *(Measured(outputs=outputs(), values=v) for v in (judged, reference))
    )
    assert found == pytest.approx({"ToW": oracles.tug_of_war(judged, reference)}, abs=1e-15)
    assert found["ToW"] == pytest.approx(0.9 * 0.98 * 0.99, abs=1e-15)  # three products


@pytest.mark.parametrize(("name", "lost"), [("FA", 100.0), ("RA", -100.0), ("TA", 100.0)])
def test_one_accuracy_that_is_wrong_throughout_loses_the_tug_of_war(name, lost):
    fair = dict.fromkeys(tug_of_war.OVER, 50.0 + abs(lost) / 2)
    off = fair | {name: fair[name] - abs(lost)}
    judged, reference = (off, fair) if lost > 0 else (fair, off)
    found = tug_of_war.compare(
        *(Measured(outputs=outputs(), values=v) for v in (judged, reference))
    )
    assert found == {"ToW": 0.0}


def test_the_tug_of_war_misses_an_accuracy():
    fair = Measured(outputs=outputs(), values=dict.fromkeys(tug_of_war.OVER, 1.0))
    with pytest.raises(KeyError, match="FA"):
        tug_of_war.compare(Measured(outputs=outputs()), fair)


def test_modified_entropy_equals_the_loop():
    draw = np.random.default_rng(5)
    mixed = draw.dirichlet(np.full(4, 0.3), 40)
    probabilities = np.concatenate([mixed, np.eye(4), mixed * [1, 0, 1, 1], np.eye(4)[::-1]])
    labels = np.concatenate([draw.integers(0, 4, 40), np.arange(4), np.ones(40, int), np.arange(4)])
    found = membership.modified_entropy(probabilities, labels)
    expected = oracles.modified_entropy(probabilities, labels, floor=1e-30)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)  # four terms of up to 70
    assert found[40:44].tolist() == [0.0] * 4
    assert found[-4:].tolist() == pytest.approx([2 * math.log(1e30)] * 4, rel=1e-14)


def sweep(labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """p_y from 0 to 1 while the other classes share the rest as 1 : 2 : 5."""
    own = np.linspace(0, 1, len(labels))
    rest = (1 - own)[:, None] * np.array([1, 2, 5]) / 8
    rows = [np.insert(row, k, p) for row, k, p in zip(rest, labels, own, strict=True)]
    return np.array(rows), np.array(labels)


def test_modified_entropy_falls_in_the_confidence():
    found = membership.modified_entropy(*sweep([0, 1, 2, 3] * 8))
    assert (np.diff(found) < 0).all()
    assert found[-1] == 0.0


def test_the_published_modified_entropy_is_wrong():
    published = oracles.modified_entropy_published
    # Sure and right is told from sure and wrong by the true formula alone.
    probabilities = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    labels = np.array([0, 1, 2, 3, 1, 2, 3, 0])
    right, wrong = np.split(membership.modified_entropy(probabilities, labels), 2)
    assert right.max() == 0.0
    assert wrong.min() > 100
    right, wrong = np.split(published(probabilities, labels), 2)
    assert right.tolist() == wrong.tolist()
    assert right.min() > 100
    # It does not fall in the confidence, and changes with who else is in the batch.
    assert (np.diff(published(*sweep([0, 1, 2, 3] * 8))) > 0).any()
    plain = outputs()
    pair = plain.probabilities["test"], plain.labels["test"]
    for modified_entropy, alike in ((membership.modified_entropy, True), (published, False)):
        alone = [modified_entropy(p[None], y[None])[0] for p, y in zip(*pair, strict=True)]
        assert np.allclose(alone, modified_entropy(*pair), rtol=0, atol=1e-12) == alike
    # Nor is it right one by one, where the wrong columns play no part.
    assert np.abs(np.array(alone) - membership.modified_entropy(*pair)).max() > 0.1


class Spied:
    """What each SVC learned from, and what it was asked about."""

    def __init__(self, monkeypatch):
        import sklearn.svm

        self.learned = learned = []
        self.asked = asked = []

        class Seen(sklearn.svm.SVC):
            def fit(self, x, y):
                learned.append(x)
                return super().fit(x, y)

            def decision_function(self, x):
                asked.append(x)
                return super().decision_function(x)

        monkeypatch.setattr(sklearn.svm, "SVC", Seen)


def test_each_attack_sees_its_feature_of_the_same_draws(monkeypatch):
    spied = Spied(monkeypatch)
    plain = outputs(forget_classes=())
    assert list(membership.measure(plain)) == MIA
    size = SETS["validation"]
    drawn = [np.empty(0, int)] * 2
    for at, name in enumerate(("retain", "validation")):
        # Which samples these are is told by their probabilities, the last feature.
        rows = spied.learned[-1][at * size : (at + 1) * size]
        same = (rows[:, None] == plain.probabilities[name]).all(2)
        assert (same.sum(1) == 1).all()
        drawn[at] = same.argmax(1)
        assert len(set(drawn[at])) == size

    def features(name: str) -> dict[str, np.ndarray]:
        p, y = plain.probabilities[name], plain.labels[name]
        return {
            "MIA": np.array([[row[k]] for row, k in zip(p, y, strict=True)]),
            "MIA_correct": np.array([[row.argmax() == k] for row, k in zip(p, y, strict=True)]),
            "MIA_entropy": np.array(oracles.entropy(p))[:, None],
            "MIA_modified": np.array(oracles.modified_entropy(p, y, floor=1e-30))[:, None],
            "MIA_vector": p,
        }

    forget, retain, validation = (features(name) for name in ("forget", "retain", "validation"))
    for name, learned, asked in zip(MIA, spied.learned, spied.asked, strict=True):
        expected = np.concatenate([retain[name][drawn[0]], validation[name][drawn[1]]])
        # Four terms of one sample.
        np.testing.assert_allclose(learned, expected, rtol=0, atol=1e-14)
        np.testing.assert_allclose(asked, forget[name], rtol=0, atol=1e-14)


def test_the_attack_on_correctness_counts_wrong_answers():
    plain = confident({"forget": 0.6, "retain": 0.9, "validation": 0.9})
    plain.probabilities["forget"][:5] = plain.probabilities["forget"][:5, ::-1]
    plain.probabilities["validation"][0] = plain.probabilities["validation"][0, ::-1]
    assert membership.measure(plain)["MIA_correct"] == pytest.approx(100 * 5 / 12, abs=1e-12)


def test_every_attack_takes_a_masked_class():
    found = membership.measure(masked(outputs()))
    assert list(found) == MIA
    assert all(0 <= value <= 100 for value in found.values())


@pytest.mark.parametrize(("forget", "called"), [(0.05, 100.0), (0.95, 0.0)])
def test_the_attack_tells_separated_sets_apart(forget, called):
    levels = {"forget": forget, "retain": 0.95, "validation": 0.05, "test": 0.5}
    found = membership.measure(confident(levels))
    assert found["MIA"] == called
    assert found["MIA_correct"] == called


def test_the_attack_counts_the_share_of_the_forget_set():
    plain = confident({"forget": 0.95, "retain": 0.95, "validation": 0.05})
    plain.probabilities["forget"][:3] = plain.probabilities["forget"][:3, ::-1]
    found = membership.measure(plain)
    # Entropy and vector do not see the label, so p and 1 − p do not tell right from wrong.
    blind = {name: found[name] for name in ("MIA_entropy", "MIA_vector")}
    assert found == dict.fromkeys(MIA, 25.0) | blind


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
    assert fitted == [(2 * SETS["validation"], 0.5, 3.0, "auto", "rbf")] * len(MIA)


def test_the_attack_draws_by_its_seed():
    found = {s: membership.measure(replace(outputs(), seed=s))["MIA"] for s in range(8)}
    assert {s: membership.measure(replace(outputs(), seed=s))["MIA"] for s in range(8)} == found
    assert len(set(found.values())) > 1


@pytest.mark.parametrize("name", ["retain", "validation"])
def test_the_attack_needs_members_and_non_members(name):
    with pytest.raises(ValueError, match="needs members and non-members"):
        membership.measure(changed(outputs(), name, np.zeros(0, dtype=int)))


def test_an_attack_that_found_nothing_to_learn_calls_nobody_unseen():
    plain = outputs(forget_classes=())
    alike = {
        name: np.where(np.eye(4, dtype=bool)[labels], 0.97, 0.01)
        for name, labels in plain.labels.items()
    }
    found = membership.measure(replace(plain, probabilities=alike))
    assert {name: found[name] for name in MIA[:4]} == dict.fromkeys(MIA[:4], 0.0)
