"""Retrieval of people: the protocol against loops over queries, and what the groups are."""

from dataclasses import replace

import numpy as np
import pytest

from imu import metrics
from imu.metrics import Measured, retrieval, retrieval_distance
from imu.metrics._found import Found, Images, ranked
from tests import oracles

KNOWN, DISTRACTOR = 5, 9


def images(seed: int, count: int, people: range, width: int = 6, *, coarse: bool = False) -> Images:
    """coarse: of few features, so that many are alike."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(count, width))
    if coarse:
        features = np.abs(features[:, :2]).round() @ np.eye(2, width)
    return Images(
        features=features,
        people=draw.choice(people, count),
        cameras=draw.choice(["1", "2", "3"], count),
        rows=np.arange(count) + 100 * seed,
    )


def found(seed: int = 0, forget: tuple[int, ...] = (1, 3), people: range = range(9)) -> Found:
    """Random answers; who is in which image does not depend on ``seed``."""
    queries, gallery = images(1, 40, people), images(2, 90, range(10))
    draw = np.random.default_rng(seed)
    labels = {name: np.arange(10) % KNOWN for name in ("forget", "retain", "validation", "test")}
    return Found(
        probabilities={name: draw.dirichlet(np.ones(KNOWN), 10) for name in labels},
        features={name: draw.normal(size=(10, 6)) for name in labels},
        labels=labels,
        forget_classes=forget,
        known=KNOWN,
        queries=replace(queries, features=draw.normal(size=(40, 6))),
        gallery=replace(gallery, features=draw.normal(size=(90, 6))),
        shown={name: images(3, 10, range(KNOWN)) for name in labels},
    )


@pytest.mark.parametrize("coarse", [False, True], ids=["all differ", "ties"])
def test_searches_equal_the_loop_over_queries(coarse, monkeypatch):
    monkeypatch.setattr("imu.metrics._found.CHUNK", 7)
    queries = images(1, 30, range(8), coarse=coarse)
    gallery = images(2, 60, range(10), coarse=coarse)
    said = ranked(queries, gallery)
    expected = [
        oracles.search(query, person, camera, gallery)
        for query, person, camera in zip(
            queries.features, queries.people, queries.cameras, strict=True
        )
    ]
    precision, first, nearest = map(np.array, zip(*expected, strict=True))
    np.testing.assert_allclose(said.precision, precision, rtol=0, atol=1e-12)  # sums of 60 terms
    np.testing.assert_array_equal(said.first, first)
    np.testing.assert_array_equal(said.nearest, nearest[:, :5])
    # Without the rule that the own camera is left out the numbers are others.
    open_to_all = replace(queries, cameras=np.array(["none"] * 30))
    assert np.nanmax(np.abs(ranked(open_to_all, gallery).precision - precision)) > 0.05
    if coarse:  # ties decide: in another order of the gallery other images come first
        backwards = ranked(queries, gallery[np.arange(60)[::-1]])
        assert np.nanmax(np.abs(backwards.precision - precision)) > 0.05


def test_a_search_by_hand():
    """Ranks of the right ones among those that count: 2 and 3, so AP = (1/2 + 2/3) / 2."""
    gallery = Images(
        features=np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [1, 0.4]]),
        people=np.array([7, DISTRACTOR, 7, 7, 8]),
        cameras=np.array(["1", "1", "2", "3", "2"]),  # the first is the query's own camera
        rows=np.arange(5),
    )
    query = Images(
        features=np.array([[2.0, 0], [2.0, 0]]),
        people=np.array([7, 5]),  # of the second there is nobody
        cameras=np.array(["1", "1"]),
        rows=np.arange(2),
    )
    said = ranked(query, gallery)
    assert said.precision[0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert said.first[0] == 2
    assert np.isnan([said.precision[1], said.first[1]]).all()
    assert said.nearest[0].tolist() == [1, 2, 3, 4, 0]  # what is left out comes last


def test_a_network_that_says_the_same_of_all_finds_by_the_order_of_the_gallery():
    gallery = images(2, 60, range(10))
    flat = replace(gallery, features=np.ones((60, 3)))
    queries = replace(images(1, 5, range(8)), features=np.zeros((5, 3)))
    assert ranked(queries, flat).nearest.shape == (5, 5)
    for places, camera, person in zip(
        ranked(queries, flat).nearest, queries.cameras, queries.people, strict=True
    ):
        seen = (gallery.people == person) & (gallery.cameras == camera)
        assert places.tolist() == np.flatnonzero(~seen)[:5].tolist()


def test_groups_are_asked_in_their_galleries():
    plain = found()
    values = retrieval.measure(plain)
    assert values.keys() == retrieval.ABOUT.keys()
    q, g = plain.queries, plain.gallery
    for group, which, where in (
        ("forget", np.isin(q.people, (1, 3)), np.ones(90, bool)),
        ("retain", np.isin(q.people, (0, 2, 4)), np.ones(90, bool)),
        ("new", q.people >= KNOWN, g.people >= KNOWN),
    ):
        said = [
            oracles.search(q.features[i], q.people[i], q.cameras[i], g[where])
            for i in np.flatnonzero(which)
        ]
        precision, first = (np.array([s[k] for s in said]) for k in (0, 1))
        assert values[f"mAP_{group}"] == pytest.approx(100 * np.nanmean(precision))
        for j in (1, 5, 10):
            answered = first[~np.isnan(first)]
            assert values[f"R{j}_{group}"] == pytest.approx(100 * np.mean(answered <= j))


def test_the_distance_of_searches_is_paired():
    judged, reference = (Measured(outputs=found(seed)) for seed in (0, 1))
    values = retrieval_distance.compare(judged, reference)
    assert values.keys() == retrieval_distance.ABOUT.keys()
    for group in retrieval.GROUPS:
        one, other = (m.outputs.searches[group].precision for m in (judged, reference))
        each = [abs(a - b) for a, b in zip(one, other, strict=True) if not np.isnan(a)]
        assert values[f"dAP_{group}"] == pytest.approx(np.mean(each))
        assert values[f"dAP_{group}"] > 0.01
    same = retrieval_distance.compare(judged, judged)
    assert set(same.values()) == {0.0}


def test_what_nobody_can_be_searched_for_in_is_absent_and_named():
    cases = (
        (found(forget=()), {"forget"}, "needs a person who is forgotten whole"),
        (found(people=range(KNOWN)), {"new"}, "not trained on"),
        (found(people=range(4, 9)), {"forget"}, "query of a forgotten person"),
        (found(people=range(KNOWN, 9)), {"forget", "retain"}, "a person who stays"),
    )
    for plain, missing, why in cases:
        given = {"query": plain.queries.people, "train": np.arange(KNOWN)} | plain.labels
        absent = metrics.absent("identification", given, plain.forget_classes)
        groups = {name.split("_", 1)[1] for name in absent if name.startswith("mAP_")}
        assert groups == missing
        assert any(why in reason for reason in absent.values())
        assert not retrieval.measure(plain).keys() & absent.keys()
        assert not retrieval_distance.compare(
            Measured(outputs=plain), Measured(outputs=plain)
        ).keys() & set(absent)


def test_metrics_of_people_are_those_of_searches_and_some_of_images():
    names = set(metrics.about("identification"))
    assert set(retrieval.ABOUT) | set(retrieval_distance.ABOUT) | {"FA", "TFA"} <= names
    assert not names & {"TV", "MIA", "P_forget"}
    assert {"FA", "TFA", "TV"} <= set(metrics.about("classification"))
    assert "mAP_forget" not in metrics.about("classification")
