import numpy as np
import pytest

from imu import discovery, metrics
from imu.metrics import Family, klom, u_lira
from tests import oracles

SETS = ("forget", "retain", "validation")
MODULES = {"klom": klom, "u_lira": u_lira}


def gaussian(seed: int, models: int = 8, n: int = 30, mean: float = 0.0, sd: float = 1.0) -> Family:
    draw = np.random.default_rng(seed)
    return Family(margins={name: draw.normal(mean, sd, (models, n)) for name in SETS})


def constant(value: float, models: int = 8, n: int = 30) -> Family:
    return Family(margins={name: np.full((models, n), value) for name in SETS})


def with_set(family: Family, name: str, margins: np.ndarray) -> Family:
    return Family(margins=family.margins | {name: margins})


def with_limits(family: Family) -> Family:
    """Some margins of the first models at a limit, and one sample with all but two there."""
    margins = {name: values.copy() for name, values in family.margins.items()}
    for values in margins.values():
        values[:3, :9], values[1:4, 5:15], values[2:5, 20], values[3:, 25] = -100, 100, -100, -100
    return Family(margins=margins)


@pytest.mark.parametrize("limited", [False, True])
def test_the_divergence_equals_the_loop(limited):
    judged, other = gaussian(0, mean=0.7), gaussian(1, models=12, sd=2.0)
    if limited:
        judged = with_limits(judged)
    found = klom.over_models(judged, other)
    for name in SETS:
        expected = oracles.klom(judged.margins[name], other.margins[name])
        assert found[f"KLoM_{name}"] == pytest.approx(np.mean(expected), abs=1e-12)  # 30 sums
        swapped = oracles.klom(other.margins[name], judged.margins[name])
        assert abs(np.mean(swapped) - np.mean(expected)) > 0.1
    each = klom.divergences(judged.margins["forget"], other.margins["forget"])
    expected = oracles.klom(judged.margins["forget"], other.margins["forget"])
    assert each == pytest.approx(expected, abs=1e-12)
    assert found["KLoM_forget_95"] == pytest.approx(np.quantile(expected, 0.95), abs=1e-12)


def test_the_divergence_of_two_bins():
    judged, other = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([[0.0], [0.0], [0.0], [1.0]])
    expected = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert klom.divergences(judged, other) == pytest.approx([expected], abs=1e-15)


@pytest.mark.parametrize("value", [0.0, 3.7, -np.inf])
def test_families_that_always_say_the_same_are_equal(value):
    found = metrics.over_models(constant(value), constant(value))
    assert {name: v for name, v in found.items() if v != 0} == {"U_LiRA_degenerate": 100.0}


def test_a_family_has_no_distance_to_itself():
    own = gaussian(0)
    assert set(metrics.over_models(own, own).values()) == {0.0}


@pytest.mark.parametrize("limited", ["neither", "judged", "both"])
def test_the_attack_equals_the_loop(limited):
    judged, other = gaussian(0, mean=0.7), gaussian(1, sd=1.5)
    if limited != "neither":
        judged = with_limits(judged)
    if limited == "both":
        other = with_limits(other)
    found = u_lira.over_models(judged, other)
    advantage, score = oracles.u_lira(judged.margins["forget"], other.margins["forget"])
    assert found["U_LiRA"] == pytest.approx(advantage, abs=1e-10)  # a difference of two shares
    assert found["U_LiRA_score"] == pytest.approx(score, abs=1e-12)  # a mean of 240 scores
    assert found["U_LiRA"] > 5
    assert found["U_LiRA_degenerate"] == 0.0


def test_the_attack_asks_about_the_forget_set_alone():
    judged, other = gaussian(0), gaussian(1)
    moved = Family(margins={n: m + (n != "forget") for n, m in judged.margins.items()})
    assert u_lira.over_models(moved, other) == u_lira.over_models(judged, other)


@pytest.mark.parametrize("models", [3, 6])
def test_equal_distributions_give_the_attack_no_advantage_however_few_the_models(models):
    values = u_lira.over_models(gaussian(0, models, 3000), gaussian(1, models, 3000))
    # Five standard errors of 2 · models · 3000 answers, which are worth 100 points each.
    assert abs(values["U_LiRA"]) < 5 * 100 / np.sqrt(models * 3000)
    assert abs(values["U_LiRA_score"]) < 0.05


def test_far_distributions_give_the_attack_all():
    found = u_lira.over_models(gaussian(0, mean=40.0), gaussian(1))
    assert found["U_LiRA"] == 100.0
    assert found["U_LiRA_score"] == pytest.approx(1.0, abs=1e-6)


def test_the_share_of_samples_on_which_a_side_agrees():
    judged = gaussian(0)
    margins = judged.margins["forget"].copy()
    margins[:, :3] = 2.0  # 3 of 30
    margins[1:, 3] = 2.0  # agrees only without model 0
    found = u_lira.over_models(with_set(judged, "forget", margins), gaussian(1))
    assert found["U_LiRA_degenerate"] == pytest.approx(100 * 4 / 30, abs=1e-12)


@pytest.mark.parametrize("masked", [-np.inf, -1e9])
def test_a_mask_is_told_from_retraining_with_finite_values(masked):
    found = metrics.over_models(constant(masked), gaussian(1))
    assert found == metrics.over_models(constant(-100.0), gaussian(1))
    assert found["U_LiRA"] == found["U_LiRA_degenerate"] == 100.0
    assert found["KLoM_forget"] == pytest.approx(np.log(1e5), abs=1e-12)  # one logarithm


def test_margins_are_clipped_on_both_sides():
    judged, other = gaussian(0), gaussian(1)
    wide = [
        Family(
            margins={n: np.where(np.abs(m) > 1, np.sign(m) * 1e6, m) for n, m in f.margins.items()}
        )
        for f in (judged, other)
    ]
    narrow = [
        Family(margins={n: m.clip(-100, 100) for n, m in family.margins.items()}) for family in wide
    ]
    assert metrics.over_models(*wide) == metrics.over_models(*narrow)


@pytest.mark.parametrize("name", ["KLoM_forget", "U_LiRA"])
def test_a_destroyed_network_does_not_hide_the_others(name):
    judged, other = gaussian(0, 16, 100, mean=2.0), gaussian(1, 16, 100)
    margins = judged.margins["forget"].copy()
    margins[0] = -np.inf
    before = metrics.over_models(judged, other)[name]
    after = metrics.over_models(with_set(judged, "forget", margins), other)[name]
    assert after == pytest.approx(before, rel=0.1)  # one of 16 answers is another


@pytest.mark.parametrize("name", ["KLoM_forget", "KLoM_retain", "KLoM_validation", "U_LiRA"])
def test_shifted_margins_are_far_above_those_of_retraining(name):
    sizes = {"models": 16, "n": 200}
    base = gaussian(0, **sizes)
    retrained, again, shifted = (
        metrics.over_models(family, base)[name]
        for family in (gaussian(1, **sizes), gaussian(2, **sizes), gaussian(3, mean=2.0, **sizes))
    )
    assert abs(again - retrained) < 0.1 * (shifted - retrained)


@pytest.mark.parametrize("name", discovery.names("imu.metrics"))
def test_every_value_over_models_is_named(name):
    module = discovery.load("imu.metrics", name)
    if hasattr(module, "over_models"):
        assert module.over_models(gaussian(0), gaussian(1)).keys() == module.ABOUT.keys()
    samples = {about.group == "samples" for about in module.ABOUT.values()}
    assert samples == {hasattr(module, "over_models")}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("side", ["judged models", "oracles"])
def test_a_margin_that_is_not_a_number_is_refused(name, side):
    families = {"judged models": gaussian(0), "oracles": gaussian(1)}
    families[side].margins["forget"][2, 5] = np.nan
    with pytest.raises(ValueError, match=f"margins of the {side} on the set 'forget' hold NaN"):
        MODULES[name].over_models(*families.values())


@pytest.mark.parametrize("name", MODULES)
def test_one_model_is_no_family(name):
    with pytest.raises(ValueError, match="judged models must be at least 2, got 1"):
        MODULES[name].over_models(gaussian(0, models=1), gaussian(1))
    with pytest.raises(ValueError, match="oracles must be at least 2, got 1"):
        MODULES[name].over_models(gaussian(0), gaussian(1, models=1))


@pytest.mark.parametrize("name", MODULES)
def test_an_empty_set_has_no_margins(name):
    empty = np.zeros((8, 0))
    families = (with_set(gaussian(seed), "forget", empty) for seed in (0, 1))
    with pytest.raises(ValueError, match="no samples in the set 'forget'"):
        MODULES[name].over_models(*families)


def test_leaving_one_out_takes_three_models_and_as_many_oracles():
    with pytest.raises(ValueError, match="at least 3 to leave one out, got 2"):
        u_lira.over_models(gaussian(0, models=2), gaussian(1, models=2))
    with pytest.raises(ValueError, match="as many judged models as oracles, got 8 and 9"):
        u_lira.over_models(gaussian(0), gaussian(1, models=9))


def test_families_on_other_samples_are_refused():
    with pytest.raises(ValueError, match="different samples"):
        metrics.over_models(gaussian(0), gaussian(1, n=31))
