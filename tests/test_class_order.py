"""Whether weights and data number their classes alike."""

from itertools import permutations

import numpy as np
import pytest

from imu.class_order import Predicted, best_order, better_order, remarks


def predictions(n: int, order: list[int], right: float, seed: int = 0) -> Predicted:
    """Of a network whose output k stands for class ``order[k]``, and which errs at random."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % len(order)
    meant = np.where(draw.random(n) < right, labels, draw.integers(0, len(order), n))
    return Predicted(labels, np.argsort(order)[meant])


@pytest.mark.parametrize("seed", range(5))
def test_the_best_order_is_that_of_all_there_are(seed):
    draw = np.random.default_rng(seed)
    found = Predicted(draw.integers(0, 5, 60), draw.integers(0, 5, 60))

    def right(order) -> int:
        return int((np.array(order)[found.predicted] == found.labels).sum())

    assert right(best_order(found, 5)) == max(map(right, permutations(range(5))))


def test_what_is_never_predicted_stays_where_it_is():
    labels = np.array([0, 0, 1, 1, 2, 3, 4])
    assert best_order(Predicted(labels, np.zeros(7, int)), 5).tolist() == [0, 1, 2, 3, 4]
    tie = Predicted(np.array([3, 0, 0, 0, 0, 3]), np.array([3, 2, 0, 0, 1, 1]))
    assert best_order(tie, 4).tolist() == [0, 1, 2, 3]
    swapped = Predicted(labels, np.array([1, 1, 0, 0, 0, 0, 0]))
    assert best_order(swapped, 5).tolist() == [1, 0, 2, 3, 4]


SORTED_AS_TEXT = [0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("right", [0.99, 0.6, 0.3])
def test_another_order_is_found(right):
    seen, unseen = (predictions(n, SORTED_AS_TEXT, right, n) for n in (600, 300))
    assert better_order(seen, unseen, 11).tolist() == SORTED_AS_TEXT


def test_two_of_many_classes_that_changed_places_are_found():
    order = [*range(48), 49, 48]
    seen, unseen = (predictions(n, order, 0.9, n) for n in (1000, 500))
    assert better_order(seen, unseen, 50).tolist() == order


@pytest.mark.parametrize("right", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("n", [12, 60, 2000])
@pytest.mark.parametrize("classes", [2, 10, 50])
def test_chance_is_no_better_order(right, n, classes):
    """Of few samples many an order fits better; not those that it was not found on."""
    for seed in range(20):
        seen, unseen = (predictions(n, [*range(classes)], right, 2 * seed + k) for k in (0, 1))
        assert better_order(seen, unseen, classes) is None


def said(order: list[int], right: float, names: str) -> list[str]:
    sets = {name: predictions(n, order, right, n) for name, n in (("train", 400), ("test", 200))}
    return remarks(sets | {"validation": predictions(100, order, right)}, names.split())


def test_what_fits_is_told_without_a_warning():
    assert said([0, 1, 2], 1.0, "ant bee cat") == [
        "right on 100.00 % of train, 100.00 % of test, 100.00 % of validation",
        "classes in this order: 0 'ant', 1 'bee', 2 'cat'",
    ]


def test_another_order_is_named_as_params_yaml_has_it():
    _, _, warning = said([2, 0, 1], 1.0, "ant Müller cat")
    assert "right on 100.00 % of what they have not seen, now on 0.00 %." in warning
    assert warning.endswith('data.classes: ["cat", "ant", "Müller"]')


def test_low_accuracy_is_warned_of():
    accuracies, _, warning = said([0, 1, 2], 0.2, "ant bee cat")
    assert accuracies.startswith("right on 50.50 % of train, 47.00 % of test, ")
    assert warning.startswith("WARNING: that is little for train")
