"""The measures of benchmarks.quality, against loops."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.quality import scoring
from benchmarks.quality.truth import SETTINGS, Truth, seen_by

K, N, M = 30, 9, 5  # networks, samples, queries


@pytest.fixture
def truth() -> Truth:
    draw = np.random.default_rng(0)
    seen = np.stack([draw.permutation(N) < 6 for _ in range(K)])
    return Truth(seen, draw.normal(size=(K, N)), draw.normal(size=(K, M)))


@pytest.mark.parametrize("of_margin", [False, True])
def test_memorisation_is_the_mean_with_minus_the_mean_without(truth, of_margin):
    found = truth.memorisation(of_margin=of_margin)
    for i in range(N):
        said: dict[bool, list[float]] = {True: [], False: []}
        for seen, margin in zip(truth.with_it[:, i], truth.margins[:, i], strict=True):
            said[bool(seen)].append(margin if of_margin else 1 / (1 + np.exp(-margin)))
        assert found[i] == pytest.approx(np.mean(said[True]) - np.mean(said[False]))


def test_what_every_network_was_trained_on_has_no_memorisation(truth):
    truth.with_it[:, 3] = True
    assert np.isnan(truth.memorisation()[3])
    assert np.isfinite(truth.memorisation()).sum() == N - 1


def test_auc_is_the_share_of_pairs_in_order():
    draw = np.random.default_rng(1)
    scores, wrong = draw.normal(size=20), draw.random(20) < 0.3
    pairs = [a > b for a in scores[wrong] for b in scores[~wrong]]
    assert scoring.auc(scores, wrong) == pytest.approx(np.mean(pairs))


def test_the_datamodeling_score_is_a_rank_correlation_over_networks(truth):
    pairs = np.random.default_rng(2).normal(size=(N, M))
    right = [
        spearmanr([pairs[seen, q].sum() for seen in truth.with_it], truth.asked[:, q])[0]
        for q in range(M)
    ]
    found = scoring.datamodels(truth, {"one": [pairs]})["one"]
    assert found["value"] == pytest.approx(np.mean(right))
    assert found["low"] < found["value"] < found["high"]


def test_the_truth_agrees_with_itself_and_not_with_noise(truth):
    noise = np.random.default_rng(3).normal(size=N)
    scores = {"loss": [noise], "right": [truth.memorisation()]}
    found = scoring.agreement(truth, np.arange(N), scores, of_margin=False)
    assert found["right"]["value"] == pytest.approx(1.0)
    assert found["right"]["over"] == pytest.approx(1 - found["loss"]["value"])
    assert found["loss"]["over_low"] == found["loss"]["over_high"] == 0.0
    assert 0.0 <= scoring.ceiling(truth, of_margin=False) < 1.0
    # Few that belong together tell less than many that do not.
    paired = scoring.agreement(truth, np.arange(N) // 4, scores, of_margin=False)
    assert paired["loss"]["value"] == found["loss"]["value"]
    widths = [each["loss"]["high"] - each["loss"]["low"] for each in (paired, found)]
    assert widths[0] != widths[1]


def test_settings_that_differ_are_kept_apart():
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)


def test_people_are_left_out_with_all_that_is_said_of_them() -> None:
    together = np.repeat(np.arange(10), 3)
    seen = seen_by(together, 5).reshape(10, 3)
    assert seen.all(1).sum() == 7
    assert (seen == seen[:, :1]).all()
    assert not (seen == seen_by(together, 6).reshape(10, 3)).all()
