"""Operations counted below ``torch.func``, where what is mapped over is hidden."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from imu.cost import FlopCounter
from imu.influences import parameter_influence
from imu.models import vit
from imu.objectives import Samples
from imu.objectives.classification import Classification

torch.set_num_threads(1)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize("score", ["mean", "self"])
@pytest.mark.parametrize("parameters", [("0",), ("2",), ("4",), ("2", "4"), ("",)])
def test_mapped_passes_are_counted_in_full(parameters, score):
    samples = Samples(torch.randn(7, 6), torch.arange(7) % 3)
    given = {"parameters": parameters, "damping": 0.1, "chunk": 3, "score": score}
    with FlopCounterMode(display=False) as judge:
        parameter_influence(mlp(), Classification(), samples, **given)
    with FlopCounter() as counter:
        parameter_influence(mlp(), Classification(), samples, **given)
    # The judge also counts the few products with the scores' weights; both count the layers.
    assert counter.total == pytest.approx(judge.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("trained", [True, False])
def test_attention_is_counted(trained):
    model = vit.build(vit.Config(), (3, 32, 32), 10)

    def work() -> None:
        with torch.set_grad_enabled(trained):
            found = model(torch.ones(2, 3, 32, 32)).sum()
        if trained:
            found.backward()

    with FlopCounterMode(display=False) as judge:
        work()
    with FlopCounter() as counter:
        work()
    # Fused attention computes a product between tokens once more on its way back.
    assert counter.total == pytest.approx(judge.get_total_flops(), rel=0.02)


def test_a_derivative_along_a_direction_costs_two_passes_more():
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    parameters = {name: p.detach() for name, p in conv.named_parameters()}

    def work() -> None:
        images = torch.ones(4, 1, 8, 8)
        torch.func.jvp(
            lambda p: torch.func.functional_call(conv, p, (images,)), (parameters,), (parameters,)
        )

    with FlopCounterMode(display=False) as judge:
        work()
    with FlopCounter() as counter:
        work()
    assert counter.total == judge.get_total_flops() > 0
