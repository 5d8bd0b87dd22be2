import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from imu.influences import head_influence
from imu.influences.head import full_scores, residuals
from imu.objectives import IGNORED
from tests import oracles
from tests.problems import DAMPING, FORMS, TOLERANCES, closed_form, expected, farness, problem

torch.set_num_threads(1)


@pytest.mark.parametrize(("n", "d", "classes"), [(1, 1, 2), (23, 7, 4), (60, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("fisher", "score"), FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_closed_form_equals_the_per_sample_loop(
    n, d, classes, bias, fisher, score, dtype, tolerance
):
    features, weight, offset, labels = problem(n, d, classes)
    # The oracle sees what the closed form is given: rounding the input is not its error.
    features, weight, offset = (x.to(dtype).double() for x in (features, weight, offset * bias))
    gradients = oracles.per_sample(features, weight, offset, labels)
    gradients = gradients if bias else gradients[:, : classes * d]
    logits = (features @ weight.T + offset).to(dtype)
    found = head_influence(
        features.to(dtype), logits, labels, damping=DAMPING, bias=bias, fisher=fisher, score=score
    )
    assert found.dtype == dtype
    assert farness(found, expected(gradients, fisher, score)) <= tolerance


@pytest.mark.parametrize("score", ["mean", "self"])
@pytest.mark.parametrize("n", [9, 300])  # 300: more than one chunk of the primal form
def test_gram_and_primal_form_agree(n, score):
    features, weight, bias, labels = problem(n, d=5, classes=4)
    delta, h = residuals(features @ weight.T + bias, labels), F.pad(features, (0, 1), value=1.0)
    gram, primal = (
        full_scores(delta, h, damping=DAMPING, score=score, form=form)
        for form in ("gram", "primal")
    )
    # Either system has a condition number of 1e3.
    assert farness(gram, primal) <= 1e-11


@pytest.mark.parametrize("score", ["mean", "self"])
@pytest.mark.parametrize("n", [40, 200])
def test_single_precision_survives_an_ill_conditioned_full_fisher(n, score):
    features, weight, bias, labels = problem(n, d=20, classes=4)
    features = 10 * features
    logits = (features @ weight.T + bias) / 30
    choices = {"damping": 1e-4, "fisher": "full", "score": score}
    right = head_influence(features.float().double(), logits.float().double(), labels, **choices)
    found = head_influence(features.float(), logits.float(), labels, **choices)
    assert farness(found, right) <= 1e-6


def test_scores_are_the_directional_derivative_of_each_loss():
    features, weight, bias, labels = problem()
    gradients = oracles.per_sample(features, weight, bias, labels)
    damped = oracles.fisher_diagonal(gradients) + DAMPING
    along = (oracles.mean_gradient(gradients) / damped).split([weight.numel(), len(bias)])

    def losses(epsilon: Tensor) -> Tensor:
        logits = features @ (weight + epsilon * along[0].view_as(weight)).T
        logits = logits + bias + epsilon * along[1]
        return F.cross_entropy(logits, labels, reduction="none")

    slope = torch.autograd.functional.jacobian(losses, torch.zeros((), dtype=torch.float64))
    assert farness(closed_form(features, weight, bias, labels), -slope) <= 1e-12


@pytest.mark.parametrize(("fisher", "score"), FORMS)
def test_a_head_without_curvature_is_told_apart(fisher, score):
    given = problem()
    wrong = expected(oracles.per_sample(*given), "identity", score)
    assert farness(closed_form(*given, fisher=fisher, score=score), wrong) > 0.1


@pytest.mark.parametrize("score", ["mean", "self"])
def test_diagonal_and_full_fisher_are_told_apart(score):
    given = problem()
    diagonal, full = (
        closed_form(*given, fisher=fisher, score=score) for fisher in ("diagonal", "full")
    )
    assert farness(diagonal, full) > 0.1


@pytest.mark.parametrize("fisher", ["diagonal", "full"])
def test_the_published_aliasing_of_sample_0_is_told_apart(fisher):
    given = problem()
    gradients = oracles.per_sample(*given)
    mean, seen = oracles.aliased_mean(gradients)
    right = closed_form(*given, fisher=fisher)
    assert farness(right, expected(seen, fisher, "mean", mean)) > 0.1


def test_aliasing_changes_the_score_of_sample_0():
    given = problem()
    gradients = oracles.per_sample(*given)
    mean, seen = oracles.aliased_mean(gradients)
    wrong = oracles.influence(seen, mean, oracles.fisher_diagonal(gradients), DAMPING)
    right = closed_form(*given)
    assert farness(right[1:], wrong[1:]) <= 1e-12
    assert abs(right[0] - wrong[0]) > 0.1 * right.abs().max()


@pytest.mark.parametrize(("fisher", "score"), FORMS)
def test_an_ignored_sample_scores_0_and_adds_nothing_but_itself(fisher, score):
    features, weight, bias, labels = problem()
    labels[4] = IGNORED
    gradients = oracles.per_sample(features, weight, bias, labels.clamp(min=0))
    gradients[4] = 0
    found = closed_form(features, weight, bias, labels, fisher=fisher, score=score)
    assert found[4] == 0
    assert farness(found, expected(gradients, fisher, score)) <= 1e-12
