"""Intervals over seeds: against numbers in print, a naive oracle, and their own promise."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from imu import statistics

# Hours of sleep gained with each of two drugs, ten patients; R ships the table as `sleep`.
# Student 1908, section IX. The interval is the one of R's `t.test(..., paired = TRUE)`.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
NAN = math.nan


def naive_interval(values: list[float]) -> tuple[float, float]:
    """By loops; the quantile by halving and the area under the density by midpoints."""
    n = len(values)
    mean = sum(values) / n
    deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
    k = n - 1
    constant = math.gamma((k + 1) / 2) / (math.sqrt(k * math.pi) * math.gamma(k / 2))

    def area(limit: float) -> float:
        """From 0 to ``limit``."""
        steps = 2000
        middles = [(i + 0.5) * limit / steps for i in range(steps)]
        return sum((1 + t * t / k) ** (-(k + 1) / 2) for t in middles) * constant * limit / steps

    low, high = 0.0, 100.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if area(middle) < 0.475 else (low, middle)
    half = low * deviation / math.sqrt(n)
    return mean - half, mean + half


def test_the_interval_of_students_own_example() -> None:
    found = statistics.compare(SECOND, FIRST)
    assert found is not None
    assert found.difference.n == 10
    assert found.difference.mean == pytest.approx(1.58, abs=1e-12)
    assert found.difference.std == pytest.approx(1.229995, abs=1e-6)  # as printed
    assert found.difference.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert (found.outcome, found.constant) == ("worse", False)


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_the_interval_is_the_naive_one(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, n).tolist()
    found = statistics.estimate(values)
    assert found is not None
    expected = naive_interval(values)
    assert found.interval == pytest.approx(expected, rel=1e-4)  # midpoints of a long tail
    assert found.mean == pytest.approx(sum(expected) / 2, abs=1e-12)
    normal = 1.96 * np.std(values, ddof=1) / n**0.5
    assert (found.mean - normal, found.mean + normal) != pytest.approx(expected, rel=1e-2)


def covered(interval: Callable[[list[float]], tuple[float, float]]) -> float:
    """% of 2000 samples of three seeds whose interval holds the true mean."""
    draws = np.random.default_rng(0).normal(1.5, 0.7, (2000, 3)).tolist()
    hits = [low <= 1.5 <= high for low, high in map(interval, draws)]
    return 100 * sum(hits) / len(hits)


def test_the_interval_covers_the_truth_in_95_of_100() -> None:
    def ours(values: list[float]) -> tuple[float, float]:
        found = statistics.estimate(values)
        assert found is not None
        assert found.interval is not None
        return found.interval

    def as_if_the_deviation_were_known(values: list[float]) -> tuple[float, float]:
        half = 1.96 * float(np.std(values, ddof=1)) / 3**0.5
        return float(np.mean(values)) - half, float(np.mean(values)) + half

    assert covered(ours) == pytest.approx(95, abs=2)
    assert covered(as_if_the_deviation_were_known) < 90


def test_models_that_do_not_differ_look_decided_in_5_of_100() -> None:
    draws = np.random.default_rng(1).normal(0, 1, (2000, 2, 3))
    outcomes = [found.outcome for a, b in draws if (found := statistics.compare(a, b))]
    assert 100 * outcomes.count("better") / 2000 == pytest.approx(2.5, abs=1)
    assert 100 * outcomes.count("worse") / 2000 == pytest.approx(2.5, abs=1)
    assert outcomes.count("equal") == 0


def test_seeds_are_compared_in_pairs() -> None:
    """The spread that both models share cancels."""
    seeds = np.array([0.0, 10.0, 20.0])
    above = seeds + np.array([1.0, 1.1, 0.9])
    found = statistics.compare(above, seeds)
    assert found is not None
    assert found.outcome == "worse"
    assert found.difference.mean == pytest.approx(1.0)
    assert found.difference.std == pytest.approx(0.1)
    mirrored = statistics.compare(seeds, above)
    assert mirrored is not None
    assert mirrored.outcome == "better"
    assert mirrored.difference.mean == pytest.approx(-1.0)


def test_better_in_every_seed_is_not_enough() -> None:
    found = statistics.compare([1.0, 2.0, 3.0], [1.1, 2.2, 6.0])
    assert found is not None
    assert found.difference.mean < 0
    assert found.outcome == "undecided"


def test_one_seed_has_no_interval_and_decides_nothing() -> None:
    assert statistics.estimate([4.0]) == statistics.Estimate(4.0, 1, None, None)
    found = statistics.compare([4.0], [1.0])
    assert found == statistics.Comparison(
        statistics.Estimate(3.0, 1, None, None), "undecided", False
    )
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        statistics.critical(1)


@pytest.mark.parametrize("shift", [0.0, 1e-15])
def test_equal_in_every_seed_up_to_rounding_is_equal(shift: float) -> None:
    found = statistics.compare([1.0, 2.0, 3.0], [1.0 + shift, 2.0, 3.0 - shift])
    assert found is not None
    assert found.outcome == "equal"
    assert found.difference == statistics.Estimate(0.0, 3, 0.0, (0.0, 0.0))


@pytest.mark.parametrize("step", [5.0, 0.1])  # 0.1: the differences differ in their last bits
def test_a_difference_without_spread_is_undecided(step: float) -> None:
    found = statistics.compare([1.0 + step, 2.0 + step, 0.3 + step], [1.0, 2.0, 0.3])
    assert found is not None
    assert found.difference.mean == pytest.approx(step)
    assert found.difference.interval == pytest.approx((step, step))
    assert (found.outcome, found.constant) == ("undecided", True)


def test_a_difference_that_is_small_is_still_decided() -> None:
    found = statistics.compare([100 + 1.0e-7, 100 + 1.1e-7, 100 + 0.9e-7], [100.0] * 3)
    assert found is not None
    assert (found.outcome, found.constant) == ("worse", False)


def test_what_is_absent_in_all_seeds_is_absent() -> None:
    assert statistics.estimate([NAN, NAN, NAN]) is None
    assert statistics.compare([NAN, NAN], [1.0, 2.0]) is None
    assert statistics.compare([1.0, 2.0], [NAN, NAN]) is None


def test_what_is_absent_in_some_seeds_is_not_averaged() -> None:
    with pytest.raises(ValueError, match="1 of 3 values are absent"):
        statistics.estimate([1.0, NAN, 2.0])
    with pytest.raises(ValueError, match="1 of 2 values are absent"):
        statistics.compare([1.0, 2.0], [NAN, 2.0])
    with pytest.raises(ValueError, match="1 of 2 values are absent or infinite"):
        statistics.estimate([1.0, math.inf])
    with pytest.raises(ValueError, match="non-empty"):
        statistics.estimate([])
    with pytest.raises(ValueError, match="the same seeds, got 2 and 3"):
        statistics.compare([1.0, 2.0], [1.0, 2.0, 3.0])


def test_many_comparisons_ask_for_wider_intervals() -> None:
    """t(0.975; 2) and t(0.99875; 2) as printed in tables."""
    assert statistics.critical(3) == pytest.approx(4.3027, abs=1e-4)
    assert statistics.critical(3, comparisons=20) == pytest.approx(19.9625, abs=1e-3)
