"""Methods that are given the retain set and begin parts anew, or are taught: formulas, as loops."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu import discovery, methods
from imu.methods import ForgetSet, ct, msg
from imu.methods.common.block import last_block
from imu.methods.common.descent import Sgd
from imu.methods.common.renewal import begin_anew, train_again
from imu.models import resnet_small
from imu.objectives import Samples
from tests import oracles
from tests.test_rivals import (
    CLASSES,
    EXACT,
    FORGET,
    RATE,
    RETAIN,
    TASK,
    D,
    State,
    follows,
    generator,
    kept,
    logits,
    mean,
    network,
    pairs,
    probability,
    slope,
    states,
)

N, R = len(FORGET), len(RETAIN)


@pytest.mark.parametrize("fault", [None, "the original teaches both", "temperature"])
def test_a_bad_teacher_teaches_the_forget_set_and_the_original_the_rest(fault):
    path = states("bad_teacher", temperature=2.0)
    first, ignorant = path[0], network()
    begin_anew([ignorant], generator())
    fresh = [parameter.detach() for parameter in ignorant.parameters()]
    t = 1.0 if fault == "temperature" else 2.0

    def loss(at: State) -> Tensor:
        told = [
            (x, first if fault == "the original teaches both" else fresh) for x, _ in pairs(FORGET)
        ]
        told += [(x, first) for x, _ in pairs(RETAIN)]
        return mean([oracles.kl(logits(by, x).detach(), logits(at, x), t) for x, by in told])

    assert (follows(path, loss, loss) <= EXACT) == (fault is None)


@pytest.mark.parametrize("fault", [None, "no tilt", "its own label", "without the retain set"])
def test_trw_tilts_what_the_original_says_of_other_classes(fault):
    path = states("trw", tilt=3.0)
    first = path[0]
    rows = first[2]

    def wanted(x: Tensor, y: int) -> list[Tensor]:
        weights = []
        for k in range(CLASSES):
            cosine = (rows[k] @ rows[y]) / (rows[k].norm() * rows[y].norm())
            weight = probability(logits(first, x), k) * (3.0 * cosine).exp()
            weight = probability(logits(first, x), k) if fault == "no tilt" else weight
            weights.append(weight if k != y or fault == "its own label" else 0.0 * weight)
        return [weight / sum(weights) for weight in weights]

    def loss(at: State) -> Tensor:
        terms = []
        for x, y in pairs(FORGET):
            log_p = [probability(logits(at, x), k).log() for k in range(CLASSES)]
            terms.append(-sum(q.detach() * p for q, p in zip(wanted(x, y), log_p, strict=True)))
        other = 0.0 if fault == "without the retain set" else R * kept(at, first)
        return (N * mean(terms) + other) / (N + R)

    assert (follows(path, loss, loss) <= EXACT) == (fault is None)


@pytest.mark.parametrize("fault", [None, "temperature", "moving retain set"])
def test_fanchuan_answers_evenly_then_parts_and_repairs_in_turn(fault):
    path = states("fanchuan", 1, uniform_rate=RATE, forget_rate=RATE, temperature=1.5)
    t = 1.0 if fault == "temperature" else 1.5

    def even(at: State) -> Tensor:
        terms = [
            probability(logits(at, x), k).log() for x, _ in pairs(FORGET) for k in range(CLASSES)
        ]
        return -mean(terms)

    def contrast(at: State) -> Tensor:
        others = [logits(at, x) for x, _ in pairs(RETAIN)]
        if fault != "moving retain set":
            others = [other.detach() for other in others]
        terms = []
        for x, _ in pairs(FORGET):
            near = torch.stack([(logits(at, x) * other).sum() / t for other in others])
            terms += [-probability(near, j).log() for j in range(R)]
        return mean(terms)

    def repaired(at: State) -> Tensor:
        return kept(at, [])

    assert len(path) == 4
    assert (follows(path, even, contrast, repaired) <= EXACT) == (fault is None)


def test_fanchuans_forget_rounds_fade_away():
    path = states("fanchuan", 2, uniform_rate=RATE, forget_rate=RATE)
    one = states("fanchuan", 1, uniform_rate=RATE, forget_rate=RATE)
    moved = [
        sum(float((b - a).norm()) for a, b in zip(then, now, strict=True))
        for then, now in ((path[1], path[2]), (path[3], path[4]))
    ]
    assert moved[1] < moved[0]
    for now, then in zip(path[2], one[2], strict=True):
        assert torch.equal(now, then)  # the first is at the full rate in both


def test_the_rate_of_training_again_rises_and_falls():
    """Oracle: the slope of the retain set's loss, by rates for 1/3 and 2/3 of the way."""
    path = states("cf_k", k=1)
    for (then, now), rate in zip(pairwise(path), (2 / 3 / 0.8, 1 / 3 / 0.8), strict=True):
        for before, after, g in zip(then, now, slope(lambda at: kept(at, []), then), strict=True):
            torch.testing.assert_close(after - before, -RATE * rate * g, rtol=0, atol=EXACT)


def deep(seed: int) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, CLASSES)]
    model = nn.Sequential(*layers).double()
    torch.manual_seed(seed)
    for layer in (model[2], model[4]):
        layer.reset_parameters()
    return model


def trained(method: str, model: nn.Module, **given) -> nn.Module:
    forget = ForgetSet(samples=FORGET, classes=(), target_margin=-1e9)
    sgd = Sgd(learning_rate=RATE, epochs=2, stop_at_target=False)
    config = discovery.load("imu.methods", method).Config(sgd=sgd, **given)
    available = {"forget": lambda: forget, "retain": lambda: RETAIN}
    list(methods.run(method, model, TASK, config, seed=7, available=available))
    return model


@pytest.mark.parametrize(("method", "forgets"), [("eu_k", True), ("cf_k", False)])
def test_eu_k_forgets_what_the_last_blocks_were_and_cf_k_does_not(method, forgets):
    one, other = (trained(method, deep(seed), k=1) for seed in (1, 2))
    for layer in (0, 2, 4):
        same = torch.equal(one[layer].weight, other[layer].weight)
        assert same == (layer == 0 or forgets)
    assert torch.equal(one[0].weight, deep(1)[0].weight)
    assert not torch.equal(one[2].weight, deep(1)[2].weight)
    assert not torch.equal(trained(method, deep(1), k=2)[0].weight, deep(1)[0].weight)


def test_eu_k_mixes_fresh_weights_into_the_layers_before_the_last():
    old, fresh = deep(1)[0], trained("eu_k", deep(1), k=1, mixed=1.0)[0]
    assert not torch.equal(old.weight, fresh.weight)
    mixed = trained("eu_k", deep(1), k=1, mixed=0.25)[0]
    torch.testing.assert_close(mixed.weight, 0.75 * old.weight + 0.25 * fresh.weight)
    assert torch.equal(mixed.bias, old.bias)


def test_images_are_moved_before_they_are_learned():
    images = torch.rand(6, 1, 2, 2, dtype=torch.float64, generator=generator())
    retain, padded = Samples(images, torch.arange(6) % CLASSES), F.pad(images, (1,) * 4)
    ways = [(padded[..., i : i + 2, j : j + 2] - 0.4) / 0.5 for i in range(3) for j in range(3)]
    model, forget, seen = flat(), ForgetSet(samples=retain, classes=(), target_margin=-1e9), []
    watched = lambda part, given: seen.extend(given[0] if part.training else ())  # noqa: E731
    model.register_forward_pre_hook(watched)
    sgd = Sgd(learning_rate=RATE, epochs=3, stop_at_target=False)
    list(train_again(model, TASK, forget, retain, [model], sgd, generator(), shift=1))
    moves = [[(way == image).all((1, 2, 3)).any().item() for way in ways] for image in seen]
    assert len(seen) == 18
    assert all(any(move) for move in moves)
    assert not all(move[4] for move in moves[:6])
    assert all(move[4] for move in moves[6:])
    words = Samples(torch.zeros(6, 4, dtype=torch.int64), retain.targets)
    with pytest.raises(ValueError, match="shift must be 0 where inputs are not images, got 1"):
        list(train_again(model, TASK, forget, words, [model], sgd, generator(), shift=1))


def test_the_last_blocks_are_counted_from_the_head():
    model = resnet_small.build(resnet_small.Config(width=2), (1, 8, 8), 3)
    assert last_block(model) == ("blocks.2",)
    assert last_block(model, 2) == ("blocks.1", "blocks.2")
    every = ("stem.0", "stem.1", "blocks.0", "blocks.1", "blocks.2")
    assert last_block(model, 4) == last_block(model, 9) == every
    chain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert last_block(nn.Sequential(chain, nn.Linear(2, 2), nn.Linear(2, 2)), 2) == ("0.1", "1")


def test_what_cannot_begin_anew_is_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

    with pytest.raises(ValueError, match="Own has weights that cannot begin anew"):
        begin_anew([Own()], generator())


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2)
        self.head = nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv(x.reshape(-1, 1, 2, 2))).flatten(1))


def flat() -> nn.Module:
    torch.manual_seed(4)
    return Flat().double()


def test_ct_exchanges_rows_and_columns_of_kernels():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, (1, 2)), nn.Linear(1, 1))
    before = copy.deepcopy(model)
    ct.transpose(model)
    for o in range(3):
        for i in range(2):
            for r in range(3):
                for c in range(3):
                    assert model[0].weight[o, i, r, c] == before[0].weight[o, i, c, r]
    assert not torch.equal(model[0].weight, before[0].weight)
    assert torch.equal(model[1].weight, before[1].weight)  # no square
    assert torch.equal(model[2].weight, before[2].weight)


def test_ct_trains_what_was_transposed():
    found, expected = trained("ct", flat()), flat()
    ct.transpose(expected)
    assert torch.equal(found.conv.weight, trained("cf_k", expected, k=1).conv.weight)


def test_msg_draws_small_gradients_anew_and_slows_the_others():
    """Oracle: gradients sample by sample, and the first update weight by weight."""
    model, start = flat(), flat()
    draw = generator()
    drawn = torch.randperm(R, generator=draw)[:N].tolist()
    total = torch.zeros_like(start.conv.weight)
    for sign, samples in (
        (1, [RETAIN[[row]] for row in drawn]),
        (-1, [FORGET[[i]] for i in range(N)]),
    ):
        for one in samples:
            loss = F.cross_entropy(TASK.logits(start, one.inputs), one.targets)
            total += sign * torch.autograd.grad(loss, [start.conv.weight])[0]
    (new,) = msg.renewed(
        model, TASK, FORGET, RETAIN, [model.conv.weight], share=0.5, generator=generator()
    )
    order = sorted(range(8), key=lambda i: abs(float(total.flatten()[i])))
    assert sorted(order[:4]) == new.flatten().nonzero().flatten().tolist()
    assert torch.equal(model.conv.weight == start.conv.weight, ~new)
    then = copy.deepcopy(model)
    forget = ForgetSet(samples=FORGET, classes=(), target_margin=-1e9)
    sgd = Sgd(learning_rate=RATE, epochs=1, momentum=0.0, stop_at_target=False)
    made, again = msg.Config(share=0.5, sgd=sgd), flat()
    available = {"forget": lambda: forget, "retain": lambda: RETAIN}
    list(methods.run("msg", again, TASK, made, seed=7, available=available))
    F.cross_entropy(TASK.logits(then, RETAIN.inputs), RETAIN.targets).backward()
    rate = RATE * 0.5 / 0.8  # of the only update, half-way
    step = -rate * then.conv.weight.grad * (0.1 + 0.9 * new.double())
    torch.testing.assert_close(again.conv.weight, then.conv.weight + step, rtol=0, atol=EXACT)


def test_without_convolutions_msg_begins_in_the_layers_before_the_head():
    model = deep(1)
    assert [id(w) for w in msg.candidates(model)] == [id(model[0].weight), id(model[2].weight)]
    assert msg.candidates(nn.Sequential(nn.Linear(2, 2))) == []
