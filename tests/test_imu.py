from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu import discovery, methods
from imu.methods import ForgetSet, imu
from imu.methods.common.descent import Sgd
from imu.objectives import Samples
from imu.objectives.classification import Classification
from tests import oracles

torch.set_num_threads(1)
TASK = Classification()

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
    samples = Samples(features * factor, labels)
    return model, ForgetSet(samples=samples, classes=(), target_margin=-1e9)


def path(model: nn.Linear, forget: ForgetSet, config, updates: int, method: str = "imu") -> Tensor:
    """Weight and bias before and after each update, as vectors: (updates + 1, 18)."""
    weights = torch.linspace(1.0, 0.0, len(forget.samples), dtype=torch.float64)
    given = {"forget": lambda: forget, "influence": lambda: weights}
    progress = methods.run(method, model, TASK, config, seed=0, available=given)
    states = [
        nn.utils.parameters_to_vector(model.parameters()) for _ in islice(progress, updates + 1)
    ]
    return torch.stack(states).detach()


def logits_path(features: Tensor, factor: float = 1.0) -> Tensor:
    model, forget = linear(features, factor)
    states = path(model, forget, imu.Config(), 20)
    return torch.stack([forget.samples.inputs @ s[:15].view(3, 5).T + s[15:] for s in states])


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
    fall = (before - after)[:5] @ forget.samples.inputs[0] + (before - after)[15]
    assert fall == pytest.approx(0.7, abs=1e-12)


SHARES = torch.linspace(1.0, 0.0, 9, dtype=torch.float64) / 4.5
PERMUTED = SHARES[torch.randperm(9, generator=torch.Generator().manual_seed(0))]
SGD = Sgd(learning_rate=0.1, epochs=1, momentum=0.0, stop_at_target=False)


@pytest.mark.parametrize(
    ("method", "given", "shares"),
    [
        ("imu", {"step": 0.5, "weights": "influence"}, SHARES),
        ("imu", {"step": 0.5, "weights": "permuted"}, PERMUTED),
        ("imu", {"step": 0.5, "weights": "uniform"}, torch.full_like(SHARES, 1 / 9)),
        ("imu_published", {"alpha": 0.3, "sgd": SGD}, SHARES),
        ("gradient_ascent", {"sgd": SGD}, torch.full_like(SHARES, 1 / 9)),
    ],
)
def test_one_update_follows_the_gradient_of_the_objective(method, given, shares):
    model, forget = linear(features(9))
    h, labels = forget.samples.inputs, forget.samples.targets

    def objective(parameters: Tensor, shares: Tensor) -> Tensor:
        logits = h @ parameters[:15].view(3, 5).T + parameters[15:]
        losses = F.cross_entropy(logits, labels, reduction="none")
        if method != "imu":
            return 0.1 * (shares @ losses - given.get("alpha", 0.0) * parameters.abs().sum())
        rate = given["step"] / (h.square().sum(1) + 1).mean()
        pairs = zip(logits[:, None], labels[:, None], strict=True)
        return rate * sum(
            s * oracles.log_unlikelihood(*p) for s, p in zip(shares, pairs, strict=True)
        )

    config = discovery.load("imu.methods", method).Config(**given)
    before, after = path(model, forget, config, 1, method)
    expected = oracles.derivative(lambda p: objective(p, shares), before)
    torch.testing.assert_close(after - before, expected, rtol=0, atol=1e-12)
    wrong = oracles.derivative(lambda p: objective(p, shares.flip(0) + 0.1), before)
    assert (after - before - wrong).abs().max() > 1e-3


def test_a_second_update_moves_on_from_the_first():
    model, forget = linear(features(9))
    states = path(model, forget, imu.Config(), 2)
    again, _ = linear(features(9))
    nn.utils.vector_to_parameters(states[1], again.parameters())
    torch.testing.assert_close(path(again, forget, imu.Config(), 1)[1], states[2])
