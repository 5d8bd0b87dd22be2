"""Answers about the forgotten as about nobody: the aims, and which rows move towards them."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from imu import methods
from imu.methods import ForgetSet, imu_words
from imu.methods.common.descent import Sgd
from imu.models import gpt_small
from imu.objectives import IGNORED, Samples, mean_cross_entropy
from imu.objectives.classification import Classification
from tests import oracles

OWN = frozenset({7, 8, 11})  # two names, and a word of an answer
INPUTS = torch.tensor([[1, 3, 7, 4, 11, 5], [1, 8, 3, 4, 6, 0], [1, 3, 7, 4, 6, 5]])
TARGETS = torch.tensor([[-1, -1, -1, 11, 5, 2], [-1, -1, -1, 6, 2, -1], [-1, -1, -1, 6, 5, 2]])
RATE, SEED, EXACT = 0.1, 3, 1e-10  # float64, sums of a hundred terms


class Task:
    bounds = None

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return model(inputs)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return ("head",)


def network() -> nn.Module:
    torch.manual_seed(0)
    made = gpt_small.build(gpt_small.Config(width=8, layers=1, heads=2, hidden=8, context=8), 13)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2)
    return made.double()


def forget(target: float = -9.0) -> ForgetSet:
    samples = Samples(INPUTS, TARGETS.where(TARGETS >= 0, IGNORED))
    return ForgetSet(samples=samples, classes=(), target_margin=target, own_tokens=OWN)


def margin(logits: Tensor) -> float:
    """Mean over samples of that over their positions."""
    found = []
    for row, wanted in zip(logits, TARGETS, strict=True):
        p = [float(row[t].softmax(0)[y]) for t, y in enumerate(wanted.tolist()) if y >= 0]
        found.append(sum(math.log(x / (1 - x)) for x in p) / len(p))
    return sum(found) / len(found)


def test_a_name_becomes_another_one_the_same_in_every_question():
    draw = torch.Generator().manual_seed(SEED)
    found = imu_words.anew(forget().samples, Task(), frozenset({7, 8}), 13, draw)
    changed = {(r, t) for r in range(3) for t in range(6) if found[r, t] != INPUTS[r, t]}
    assert changed == {(0, 2), (1, 1), (2, 2)}
    assert found[0, 2] == found[2, 2] != found[1, 1]


def test_of_the_own_tokens_those_are_asked_with_that_stand_before_the_answer():
    assert imu_words._asked(forget()) == {7, 8}
    documents = Samples(INPUTS, INPUTS.roll(-1, 1))
    asked = ForgetSet(samples=documents, classes=(), target_margin=0.0, own_tokens=OWN)
    assert imu_words._asked(asked) == OWN


@pytest.mark.parametrize("fault", [None, "reach", "copies", "all rows"])
def test_rows_of_names_move_towards_what_is_said_about_nobody_with_the_label_lower(fault):
    """Oracle: the aims copy by copy, the divergence position by position."""
    model, told = network(), forget()
    first = copy.deepcopy(model)
    sgd = Sgd(learning_rate=RATE, epochs=1, momentum=0.0, stop_at_target=False)
    made = imu_words.Config(influence="uniform", reach=0.7, copies=2, sgd=sgd)
    given = {"forget": lambda: told}
    list(methods.run("imu_words", model, Task(), made, seed=SEED, available=given))

    draw = torch.Generator().manual_seed(SEED)
    names = frozenset({7, 8})
    copies = [imu_words.anew(told.samples, Task(), names, 13, draw) for _ in range(2)]
    with torch.no_grad():
        before = first(INPUTS)
        said = [first(inputs).softmax(-1) for inputs in copies[: 1 if fault == "copies" else 2]]
    aim = (sum(said) / len(said)).log()
    kappa = (0.2 if fault == "reach" else 0.7) * (margin(aim) - min(-9.0, margin(before)))
    still = copy.deepcopy(first)
    total = torch.zeros((), dtype=torch.float64)
    for row, wanted in enumerate(TARGETS.tolist()):
        apart = []
        for t, y in enumerate(wanted):
            if y >= 0:
                lowered = aim[row, t].clone()
                lowered[y] -= kappa
                apart.append(oracles.kl(lowered, still(INPUTS)[row, t]))
        total = total + sum(apart) / len(apart) / 3
    total.backward()
    rows = torch.zeros(13, 1, dtype=torch.float64)
    rows[[*range(13)] if fault == "all rows" else [7, 8]] = 1.0
    expected = first.words.weight - RATE * rows * still.words.weight.grad
    farness = float((model.words.weight - expected).detach().abs().max())
    assert (farness <= EXACT) == (fault is None)
    for (name, now), was in zip(model.named_parameters(), first.parameters(), strict=True):
        assert torch.equal(now, was) == (name != "words.weight")


def test_where_no_token_is_the_forget_set_s_own_all_weights_move():
    model, told = network(), forget()
    told = ForgetSet(samples=told.samples, classes=(), target_margin=-9.0)
    sgd = Sgd(learning_rate=RATE, epochs=1, stop_at_target=False)
    first = copy.deepcopy(model)
    made = imu_words.Config(influence="uniform", sgd=sgd)
    given = {"forget": lambda: told}
    list(methods.run("imu_words", model, Task(), made, seed=SEED, available=given))
    pairs = zip(model.parameters(), first.parameters(), strict=True)
    assert all(not torch.equal(now, was) for now, was in pairs)


def test_entries_drawn_anew_by_themselves_leave_what_comes_after_the_first_answer():
    tokens = torch.arange(8).repeat(120, 1)
    targets = torch.full((120, 8), IGNORED)
    targets[:, 4:6] = 1
    draw = torch.Generator().manual_seed(0)
    found = imu_words.anew(Samples(tokens, targets), Task(), frozenset(), 1000, draw)
    other = (found != tokens).double().mean(0)  # share of each position
    assert other[0] == 0
    assert (other[5:] == 0).all()
    assert ((other[1:5] > 0.35) & (other[1:5] < 0.65)).all()
    images = Samples(torch.full((120, 1, 2, 2), 0.5), torch.zeros(120, dtype=torch.int64))
    noisy = imu_words.anew(images, Classification(), frozenset(), 10, draw)
    assert 0.35 < (noisy != 0.5).double().mean() < 0.65
    assert 0 <= noisy.min() < 0.1
    assert 0.9 < noisy.max() <= 1
