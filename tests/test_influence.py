from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu import discovery, unlearn
from imu.influence import Config, ascent_weights, head_influence
from imu.unlearn import ForgetSet, imu
from tests import oracles

torch.set_num_threads(1)
DAMPING = 0.01


def problem(n: int = 23, d: int = 7, classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(n, d, generator=draw, dtype=torch.float64)
    weight = torch.randn(classes, d, generator=draw, dtype=torch.float64)
    bias = torch.randn(classes, generator=draw, dtype=torch.float64)
    return features, weight, bias, torch.randint(0, classes, (n,), generator=draw)


def closed_form(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor):
    return head_influence(features, features @ weight.T + bias, labels, damping=DAMPING)


def farness(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest score: elementwise, a score near 0 says nothing."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("n", "d", "classes"), [(1, 1, 2), (23, 7, 4), (40, 3, 10)])
@pytest.mark.parametrize(
    # Rounding of a few hundred additions: 1e-12 in float64, 1e-5 in float32.
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5)],
)
def test_closed_form_equals_the_per_sample_loop(n, d, classes, dtype, tolerance):
    features, weight, bias, labels = problem(n, d, classes)
    gradients = oracles.per_sample(features, weight, bias, labels)
    fisher, mean = oracles.fisher_diagonal(gradients), oracles.mean_gradient(gradients)
    found = closed_form(features.to(dtype), weight.to(dtype), bias.to(dtype), labels)
    pieces = {
        "fisher": (torch.cat([found.fisher_weight.flatten(), found.fisher_bias]), fisher),
        "mean": (torch.cat([found.mean_weight.flatten(), found.mean_bias]), mean),
        "scores": (found.scores, oracles.influence(gradients, mean, fisher, DAMPING)),
    }
    assert found.scores.dtype == dtype
    assert {
        name: farness(*pair) for name, pair in pieces.items() if farness(*pair) > tolerance
    } == {}


def test_scores_are_the_directional_derivative_of_each_loss():
    features, weight, bias, labels = problem()
    found = closed_form(features, weight, bias, labels)
    along_weight = found.mean_weight / (found.fisher_weight + DAMPING)
    along_bias = found.mean_bias / (found.fisher_bias + DAMPING)

    def losses(epsilon: Tensor) -> Tensor:
        logits = features @ (weight + epsilon * along_weight).T + bias + epsilon * along_bias
        return F.cross_entropy(logits, labels, reduction="none")

    slope = torch.autograd.functional.jacobian(losses, torch.zeros((), dtype=torch.float64))
    assert farness(found.scores, -slope) <= 1e-12


@pytest.mark.parametrize("fault", ["identity in place of the Fisher", "aliased sample 0"])
def test_a_wrong_formula_is_told_apart(fault):
    features, weight, bias, labels = problem()
    gradients = oracles.per_sample(features, weight, bias, labels)
    fisher, mean = oracles.fisher_diagonal(gradients), oracles.mean_gradient(gradients)
    if fault == "aliased sample 0":
        mean, gradients = oracles.aliased_mean(gradients)
    else:
        fisher = torch.ones_like(fisher)
    wrong = oracles.influence(gradients, mean, fisher, DAMPING)
    assert farness(closed_form(features, weight, bias, labels).scores, wrong) > 0.1


def test_aliasing_changes_the_score_of_sample_0():
    features, weight, bias, labels = problem()
    gradients = oracles.per_sample(features, weight, bias, labels)
    mean, seen = oracles.aliased_mean(gradients)
    wrong = oracles.influence(seen, mean, oracles.fisher_diagonal(gradients), DAMPING)
    right = closed_form(features, weight, bias, labels).scores
    assert farness(right[1:], wrong[1:]) <= 1e-12
    assert abs(right[0] - wrong[0]) > 0.1 * right.abs().max()


def test_an_empty_forget_set_is_refused():
    with pytest.raises(ValueError, match="forget set is empty"):
        head_influence(
            torch.ones(0, 3), torch.ones(0, 2), torch.ones(0, dtype=torch.int64), damping=1.0
        )


@pytest.mark.parametrize("rows", [(4, 5, 5), (5, 4, 5), (5, 5, 4)])
def test_one_row_per_sample_is_required(rows):
    features, logits, labels = torch.ones(rows[0], 3), torch.ones(rows[1], 2), torch.zeros(rows[2])
    with pytest.raises(ValueError, match=f"got {rows[0]}, {rows[1]} and {rows[2]} rows"):
        head_influence(features, logits, labels.long(), damping=1.0)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_damping_must_be_positive(damping):
    features, weight, bias, labels = problem()
    with pytest.raises(ValueError, match=f"damping must be > 0, got {damping}"):
        head_influence(features, features @ weight.T + bias, labels, damping=damping)
    with pytest.raises(ValueError, match=f"damping must be > 0, got {damping}"):
        Config(damping=damping)


@pytest.mark.parametrize("field", ["clip_quantile", "top_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.5, float("nan")])
def test_shares_must_lie_in_0_to_1(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be in \(0, 1\], got {value}"):
        Config(**{field: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_names_its_sample(value):
    features, weight, bias, labels = problem()
    logits = features @ weight.T + bias
    logits[2, 0] = value
    with pytest.raises(FloatingPointError, match=r"influence of sample \d+ is nan"):
        head_influence(features, logits, labels, damping=DAMPING)


def weights(scores: list[float], clip: float = 1.0, top: float = 1.0) -> tuple[list, list]:
    scores = torch.tensor(scores, dtype=torch.float64)
    found, selected = ascent_weights(scores, clip_quantile=clip, top_fraction=top)
    assert found.dtype == torch.float64
    return found.tolist(), selected.tolist()


def test_negative_scores_weigh_the_root_of_their_size_and_others_nothing():
    expected = ([3.0, 0.0, 2.0, 0.0], [True, False, True, False])
    assert weights([-9.0, 4.0, -4.0, 0.0]) == expected


def test_weights_are_cut_at_the_quantile_of_the_kept_ones():
    # The kept weights are 1, 2, 3, 5: their median is 2.5. The 16 is positive and takes no part.
    assert weights([-1.0, -4.0, -9.0, -25.0, 16.0], clip=0.5)[0] == [1.0, 2.0, 2.5, 2.5, 0.0]


@pytest.mark.parametrize(
    ("top", "kept"),
    [
        (1.0, [0, 1, 3, 4]),
        (0.5, [0, 3]),
        (0.75, [0, 1, 3]),  # 1 and 4 tie: the first is taken, and no more than three
        (0.01, [3]),  # never fewer than one
    ],
)
def test_top_fraction_keeps_the_largest(top, kept):
    found, selected = weights([-4.0, -1.0, 7.0, -9.0, -1.0], top=top)
    assert [i for i, chosen in enumerate(selected) if chosen] == kept
    assert [i for i, weight in enumerate(found) if weight > 0] == kept


@pytest.mark.parametrize("scores", [[1.0, 2.0], [0.0, 0.0]])
def test_without_a_negative_score_there_is_nothing_to_ascend(scores):
    with pytest.raises(ValueError, match="nothing to ascend"):
        weights(scores)


LOGITS = [[0.3, -1.0, 2.0], [5.0, 1.0, -2.0], [40.0, 0.0, 1.0], [800.0, 1.0, 0.0], [-800.0, 0.0, 0]]


def test_unlikelihood_gradient_equals_autograd_where_p_is_1_as_well():
    logits, labels = torch.tensor(LOGITS, dtype=torch.float64), torch.tensor([2, 0, 0, 0, 0])
    assert logits.softmax(1)[3, 0] == 1.0
    expected = oracles.derivative(lambda z: oracles.log_unlikelihood(z, labels), logits)
    found = imu.unlikelihood_gradient(logits, labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)  # values up to 1
    assert found[3, 0] == -1.0
    assert imu.unlikelihood_gradient(logits.float(), labels).isfinite().all()


def features(n: int) -> Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def linear(features: Tensor, factor: float = 1.0, bias: float = 0.0) -> tuple[nn.Linear, ForgetSet]:
    """A head alone: features times ``factor`` and weight divided by it give the same logits."""
    model = nn.Linear(5, 3, dtype=torch.float64)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 5, generator=draw, dtype=torch.float64) / factor)
        model.bias.copy_(torch.tensor([bias, 0.0, 0.0]))
    labels = torch.arange(len(features)) % 3
    images = features * factor
    return model, ForgetSet(images=images, labels=labels, classes=(), target_accuracy=-1.0)


def path(model: nn.Linear, forget: ForgetSet, config, updates: int, method: str = "imu") -> Tensor:
    """Weight and bias before and after each update, as vectors: (updates + 1, 18)."""
    weights = torch.linspace(1.0, 0.0, len(forget.labels), dtype=torch.float64)
    given = {"forget": lambda: forget, "influence": lambda: weights}
    progress = unlearn.run(method, model, config, seed=0, available=given)
    states = [
        nn.utils.parameters_to_vector(model.parameters()) for _ in islice(progress, updates + 1)
    ]
    return torch.stack(states).detach()


def logits_path(features: Tensor, factor: float = 1.0) -> Tensor:
    model, forget = linear(features, factor)
    states = path(model, forget, imu.Config(), 20)
    return torch.stack([forget.images @ s[:15].view(3, 5).T + s[15:] for s in states])


@pytest.mark.parametrize("factor", [0.01, 10.0])
def test_the_step_in_logits_is_exact_for_equal_features_at_any_scale(factor):
    same = features(1).repeat(6, 1)
    # 1e-12: rounding of 20 updates.
    torch.testing.assert_close(logits_path(same), logits_path(same, factor), rtol=0, atol=1e-12)


def test_the_step_in_logits_depends_on_scale_through_the_bias_alone():
    # The update of logits is a mean of (h·h' + 1) / (|h|² + 1): the 1 of the bias does not scale.
    h = features(6)
    far = [(logits_path(h, a) - logits_path(h, 10 * a)).abs().max() for a in (1.0, 1e3)]
    assert far[1] < 1e-5 < 1e-2 < far[0]  # 1/|h|² is about 2e-7 and 0.2


def test_a_remembered_label_falls_by_one_step():
    model, forget = linear(features(1), bias=100.0)
    before, after = path(model, forget, imu.Config(step=0.7), 1)
    fall = (before - after)[:5] @ forget.images[0] + (before - after)[15]
    assert fall == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize("method", ["imu", "imu_published", "gradient_ascent"])
def test_one_update_follows_the_gradient_of_the_objective(method):
    model, forget = linear(features(9))
    h, shares = forget.images, torch.linspace(1.0, 0.0, 9, dtype=torch.float64) / 4.5
    sgd = {"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    extra = {"imu": {"step": 0.5}, "imu_published": sgd | {"alpha": 0.3}, "gradient_ascent": sgd}

    def objective(parameters: Tensor) -> Tensor:
        logits = h @ parameters[:15].view(3, 5).T + parameters[15:]
        losses = F.cross_entropy(logits, forget.labels, reduction="none")
        if method == "gradient_ascent":
            return 0.1 * losses.mean()
        if method == "imu_published":
            return 0.1 * (shares @ losses - 0.3 * parameters.abs().sum())
        rate = 0.5 / (h.square().sum(1) + 1).mean()
        pairs = zip(logits[:, None], forget.labels[:, None], strict=True)
        return rate * sum(
            s * oracles.log_unlikelihood(*p) for s, p in zip(shares, pairs, strict=True)
        )

    config = discovery.load("imu.unlearn", method).Config(**extra[method])
    before, after = path(model, forget, config, 1, method)
    expected = oracles.derivative(objective, before)
    torch.testing.assert_close(after - before, expected, rtol=0, atol=1e-12)
