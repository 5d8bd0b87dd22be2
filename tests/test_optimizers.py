"""Optimizers and schedule against torch's own, to the last bit."""

import sys

import pytest
import torch
from torch import Tensor

from imu import training
from imu.models.common import optimizers

STEPS = 12


def course(make, schedule=None) -> list[Tensor]:
    """Weights after each step down a crooked loss; one of them gets a gradient only at times."""
    torch.manual_seed(3)
    weights = [torch.randn(5, 3, requires_grad=True), torch.randn(4, requires_grad=True)]
    optimizer, found = make(weights), []
    then = schedule(optimizer) if schedule else None
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = (weights[0] ** 3).sin().sum()
        if step % 3:
            loss = loss + weights[1].exp().sum()
        loss.backward()
        optimizer.step()
        if then:
            then.step()
        found += [w.detach().clone() for w in weights]
    return found


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
        {"weight_decay": 0.1},
    ],
)
def test_sgd_is_that_of_torch(choices):
    ours = course(lambda weights: optimizers.sgd(weights, 0.1, **choices))
    theirs = course(lambda weights: torch.optim.SGD(weights, lr=0.1, **choices))
    assert all(map(torch.equal, ours, theirs))


def test_adam_is_that_of_torch_under_a_schedule():
    ours = course(lambda weights: optimizers.adam(weights, lambda step: 0.01 * 0.9**step))
    theirs = course(
        lambda weights: torch.optim.Adam(weights, lr=0.01),
        lambda adam: torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 0.9**step),
    )
    assert all(map(torch.equal, ours, theirs))
    still = course(lambda weights: optimizers.adam(weights, 0.01))
    assert not torch.equal(still[-1], theirs[-1])


@pytest.mark.parametrize(
    ("warmup", "steps"), [(0.2, 225), (0.3, 7), (0.0, 5), (0.2, 1), (0.2, 5), (0.9, 10)]
)
def test_one_cycle_is_that_of_torch(warmup, steps):
    sgd = torch.optim.SGD([torch.ones(1)], lr=1.0)
    share = 0.0 if warmup * steps == 1 else warmup  # torch divides by zero
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        sgd, 0.1, total_steps=steps, pct_start=share, cycle_momentum=False
    )
    rate = training.one_cycle(0.1, warmup, steps)
    for step in range(steps + 1):
        assert rate(step) == theirs.get_last_lr()[0]
        sgd.step()
        theirs.step() if step < steps else None


@pytest.mark.parametrize("make", [optimizers.sgd, optimizers.adam])
def test_no_step_asks_for_the_compiler(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # its import now raises
    course(lambda weights: make(weights, 0.1))
    with pytest.raises(ImportError):
        course(lambda weights: torch.optim.SGD(weights, lr=0.1))


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="no parameter"):
        optimizers.sgd([], 0.1)
