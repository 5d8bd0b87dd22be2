"""Each method's formula, written again as a loop over samples, against what the method does."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from imu import discovery, methods
from imu.datasets import Source, biographies
from imu.methods import ForgetSet, UnlearningError, idk_dpo, refuse, salun, woodfisher
from imu.methods.common import labels, refusals
from imu.methods.common.adversarial import fgsm, nearest, pgd
from imu.methods.common.descent import Sgd
from imu.models import gpt_small
from imu.objectives import Samples, language, mean_cross_entropy
from imu.objectives.classification import Classification
from tests import oracles

torch.set_num_threads(1)
TASK = Classification(mean=0.4, std=0.5)
RATE, SEED, N, R, D, CLASSES = 0.1, 7, 7, 9, 4, 3
EXACT = 1e-12  # float64, sums of tens of terms
State = list[Tensor]  # weights and biases: (6, 4), (6,), (3, 6), (3,)
Loss = Callable[[State], Tensor]


def network() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def data() -> tuple[Samples, Samples]:
    """Forget and retain samples, in [0, 1]; the forget labels are the network's own choices."""
    draw = torch.Generator().manual_seed(2)
    inputs = torch.rand(N + R, D, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        own = TASK.logits(network(), inputs[:N]).argmax(1)
    other = torch.randint(0, CLASSES, (R,), generator=draw)
    return Samples(inputs[:N], own), Samples(inputs[N:], other)


FORGET, RETAIN = data()


def logits(state: State, x: Tensor) -> Tensor:
    """The network for one input (d,), one neuron after another: (classes,)."""
    w, b, v, c = state
    x = torch.stack([(value - TASK.mean) / TASK.std for value in x])
    hidden = torch.stack([torch.tanh((w[j] * x).sum() + b[j]) for j in range(len(b))])
    return torch.stack([(v[k] * hidden).sum() + c[k] for k in range(len(c))])


def probability(z: Tensor, label: int) -> Tensor:
    return (z[label] - z.max()).exp() / (z - z.max()).exp().sum()


def nll(state: State, x: Tensor, label: int) -> Tensor:
    return -probability(logits(state, x), label).log()


def mean(values: list[Tensor]) -> Tensor:
    return sum(values[1:], values[0]) / len(values)


def pairs(samples: Samples) -> list[tuple[Tensor, int]]:
    return list(zip(samples.inputs, samples.targets.tolist(), strict=True))


def slope(loss: Loss, state: State) -> State:
    state = [value.detach().clone().requires_grad_() for value in state]
    return list(torch.autograd.grad(loss(state), state, materialize_grads=True))


def states(method: str, updates: int = 2, *, sgd: dict | None = None, **given) -> list[State]:
    """Parameters at every step, from full batches without momentum."""
    kind = discovery.load("imu.methods", method).Config
    if method not in ("ssd", "woodfisher", "imu"):
        given["sgd"] = Sgd(
            **{"learning_rate": RATE, "epochs": updates, "momentum": 0.0, "stop_at_target": False}
            | (sgd or {})
        )
    model = network()
    forget = ForgetSet(samples=FORGET, classes=(), target_margin=-1e9)
    available = {"forget": lambda: forget, "retain": lambda: RETAIN}
    run = methods.run(method, model, TASK, kind(**given), seed=SEED, available=available)
    return [[p.detach().clone() for p in model.parameters()] for _ in run]


def farness(now: State, then: State, expected: State) -> float:
    """Largest difference between the update and −RATE · expected gradient, over the largest."""
    found = torch.cat([(b - a).flatten() for a, b in zip(then, now, strict=True)])
    wanted = torch.cat([-RATE * g.flatten() for g in expected])
    return float((found - wanted).abs().max() / wanted.abs().max())


def follows(path: list[State], *losses: Loss) -> float:
    """How far the updates are from descending these losses, one after another."""
    assert len(path) == len(losses) + 1
    return max(
        farness(now, then, slope(loss, then))
        for then, now, loss in zip(path, path[1:], losses, strict=False)
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def own_labels() -> list[int]:
    """The wrong labels that a method with this seed draws first."""
    return labels.random_other(FORGET.targets, CLASSES, generator()).tolist()


# A method, its settings, and its loss. ``at`` is the state before, ``first`` the original; a
# second entry is a near miss that must be told apart.


def ascent(at: State, first: State) -> Tensor:
    return -mean([nll(at, x, y) for x, y in pairs(FORGET)])


def unlikelihood(at: State, first: State) -> Tensor:
    return -mean([(1 - probability(logits(at, x), y)).log() for x, y in pairs(FORGET)])


def wga(beta: float, importance: float = 0.0):
    def loss(at: State, first: State) -> Tensor:
        terms = []
        for x, y in pairs(FORGET):
            p = probability(logits(at, x), y)
            terms.append(p.detach() ** beta * (1 - p.detach()) ** importance * p.log())
        return mean(terms)

    return loss


def npo(beta: float):
    def loss(at: State, first: State) -> Tensor:
        terms = []
        for x, y in pairs(FORGET):
            ratio = probability(logits(at, x), y) / probability(logits(first, x), y).detach()
            terms.append((1 + ratio**beta).log())
        return 2 / beta * mean(terms)

    return loss


def simnpo(beta: float, gamma: float):
    def loss(at: State, first: State) -> Tensor:
        margins = [beta * nll(at, x, y) - gamma for x, y in pairs(FORGET)]
        return -2 / beta * mean([(1 / (1 + (-margin).exp())).log() for margin in margins])

    return loss


def towards(labels: list[int]):
    def loss(at: State, first: State) -> Tensor:
        return mean([nll(at, x, y) for x, y in zip(FORGET.inputs, labels, strict=True)])

    return loss


def relabelled(at: State, first: State) -> Tensor:
    return (N * towards(own_labels())(at, first) + R * kept(at, first)) / (N + R)


def kept(at: State, first: State) -> Tensor:
    return mean([nll(at, x, y) for x, y in pairs(RETAIN)])


def delete(at: State, first: State) -> Tensor:
    terms = []
    for x, y in pairs(FORGET):
        teacher = logits(first, x).detach()
        teacher[y] = -1e10
        terms.append(oracles.kl(teacher, logits(at, x)))
    return mean(terms)


def undial(strength: float):
    def loss(at: State, first: State) -> Tensor:
        terms = []
        for x, y in pairs(FORGET):
            teacher = logits(first, x).detach()
            teacher[y] -= strength
            terms.append(oracles.kl(teacher, logits(at, x)))
        return mean(terms)

    return loss


def dpo(beta: float, preferred: list[int]):
    """Direct preference of other labels to the true ones."""

    def loss(at: State, first: State) -> Tensor:
        terms = []
        for (x, worse), better in zip(pairs(FORGET), preferred, strict=True):
            now, then = logits(at, x), logits(first, x).detach()
            ratios = [(probability(now, k) / probability(then, k)).log() for k in (better, worse)]
            terms.append((1 / (1 + (-beta * (ratios[0] - ratios[1])).exp())).log())
        return -2 / beta * mean(terms)

    return loss


ONE_LOSS = {
    "ascent": ("gradient_ascent", {}, ascent, unlikelihood),
    "unlikelihood": ("gradient_ascent", {"loss": "unlikelihood"}, unlikelihood, ascent),
    "WGA": ("weighted_gradient_ascent", {"beta": 0.7}, wga(0.7), wga(0.0)),
    "SatImp": (
        "weighted_gradient_ascent",
        {"beta": 0.7, "importance": 0.4},
        wga(0.7, 0.4),
        wga(0.7),
    ),
    "WGA, β = 0": ("weighted_gradient_ascent", {"beta": 0.0}, ascent, wga(1.0)),
    "NPO": ("npo", {"beta": 0.6}, npo(0.6), npo(3.0)),
    "SimNPO": ("simnpo", {"beta": 0.6, "gamma": 0.3}, simnpo(0.6, 0.3), simnpo(0.6, 0.0)),
    "random label": (
        "random_label",
        {},
        towards(own_labels()),
        towards([3 - y - z for (_, y), z in zip(pairs(FORGET), own_labels(), strict=True)]),
    ),
    "random label and retain": ("random_label_retain", {}, relabelled, towards(own_labels())),
    "DELETE": ("delete", {}, delete, ascent),
    "UNDIAL": ("undial", {"strength": 2.0}, undial(2.0), delete),
    "IdkDPO": ("idk_dpo", {"beta": 0.6}, dpo(0.6, own_labels()), npo(0.6)),
    "fine-tune": ("fine_tune", {}, kept, relabelled),
}


@pytest.mark.parametrize("name", ONE_LOSS)
def test_updates_follow_the_loss(name):
    method, given, loss, other = ONE_LOSS[name]
    path = states(method, **given)
    first = path[0]
    assert follows(path, *2 * [lambda at: loss(at, first)]) <= EXACT
    assert follows(path, *2 * [lambda at: other(at, first)]) > 1e-2
    assert follows(path, *2 * [lambda at: -loss(at, first)]) > 1


@pytest.mark.parametrize("fault", [None, "weight", "other samples"])
@pytest.mark.parametrize(("ascends", "keeping"), [("cross_entropy", "nll"), ("npo", "kl")])
def test_gradient_difference_keeps_as_many_retain_samples_as_it_forgets(ascends, keeping, fault):
    """Oracle: both terms sample by sample, over the rows that the generator draws."""
    given = {"ascent": ascends, "beta": 0.6, "keeping": keeping, "weight": 0.7}
    path = states("gradient_difference", **given)
    first, draw = path[0], generator()
    weight = 0.2 if fault == "weight" else 0.7

    def loss(chosen: Samples):
        def of(at: State) -> Tensor:
            if keeping == "nll":
                apart = mean([nll(at, x, y) for x, y in pairs(chosen)])
            else:
                own = [(logits(first, x), logits(at, x)) for x, _ in pairs(chosen)]
                apart = mean([oracles.kl(*both) for both in own])
            return (ascent if ascends == "cross_entropy" else npo(0.6))(at, first) + weight * apart

        return of

    losses = []
    for _ in range(2):
        torch.randperm(N, generator=draw)  # the batch of the forget set
        rows = torch.randint(R, (N,), generator=draw)
        losses.append(loss(RETAIN[(rows + 1) % R if fault == "other samples" else rows]))
    assert (follows(path, *losses) <= EXACT) == (fault is None)


@pytest.mark.parametrize("fault", [None, "weight", "direction"])
def test_rmu_steers_features_of_the_forget_set_and_holds_those_of_as_many_others(fault):
    """Oracle: both distances sample by sample, along the direction that the generator draws."""
    path = states("rmu", layers=("0",), steering=2.0, weight=0.7)
    draw = generator()
    direction = torch.rand(6, generator=draw, dtype=torch.float64)
    if fault == "direction":
        direction = -direction
    weight = 0.2 if fault == "weight" else 0.7

    def states_of(at: State, x: Tensor) -> Tensor:
        w, b = at[:2]
        x = torch.stack([(value - TASK.mean) / TASK.std for value in x])
        return torch.stack([(w[j] * x).sum() + b[j] for j in range(len(b))])

    first = path[0]
    length = mean([states_of(first, x).norm() for x, _ in pairs(FORGET)])
    away = 2.0 * length * direction / direction.norm()

    def loss(chosen: Samples):
        def of(at: State) -> Tensor:
            moved = [(states_of(at, x) - away).square().mean() for x, _ in pairs(FORGET)]
            held = [
                (states_of(at, x) - states_of(first, x)).square().mean() for x, _ in pairs(chosen)
            ]
            return mean(moved) + weight * mean(held)

        return of

    losses = []
    for _ in range(2):
        torch.randperm(N, generator=draw)  # the batch of the forget set
        losses.append(loss(RETAIN[torch.randint(R, (N,), generator=draw)]))
    assert (follows(path, *losses) <= EXACT) == (fault is None)
    assert all(torch.equal(a, b) for a, b in zip(path[0][2:], path[2][2:], strict=True))


def test_the_refusals_of_idk_dpo_follow_the_same_questions(tmp_path):
    """Oracle: each row read back; and the loss of one text, token by token."""
    biographies.write(tmp_path / "people", Source(people=3, seed=3))
    data = biographies.load(tmp_path / "people")
    network = gpt_small.Config(width=8, layers=1, heads=1, hidden=8, vocabulary=400, context=64)
    about = language.described(data, gpt_small, network) | {"config": {"context": 64}}
    torch.manual_seed(0)
    model = language.built(gpt_small, network, about).double()
    task, rows = language.objective(about), [0, 37, 70]
    samples = language.samples(data, rows, about, torch.device("cpu"))
    found = refusals.refused(model, task, samples, generator())
    said = set()
    for row, prompt in enumerate(data.prompts[rows]):
        answer = task.tokens.decode([t for t in found.targets[row].tolist() if t >= 0])
        assert task.tokens.decode(found.inputs[row].tolist()) == f"{prompt} {answer}"
        assert answer in refusals.REFUSALS
        said.add(answer)
    assert len(said) > 1
    forget = ForgetSet(samples=samples, classes=(), target_margin=-1e9)
    sgd = Sgd(learning_rate=0.1, epochs=1, momentum=0.0, stop_at_target=False)
    then = copy.deepcopy(model)
    made = idk_dpo.Config(beta=0.6, sgd=sgd)
    list(methods.run("idk_dpo", model, task, made, seed=SEED, available={"forget": lambda: forget}))

    def ratio(of: Samples, row: int) -> Tensor:
        given, wanted = of.inputs[row : row + 1], of.targets[row].tolist()
        pairs = [
            [probability(network(given)[0, t], y).log() for t, y in enumerate(wanted) if y >= 0]
            for network in (still, then)
        ]
        return mean(pairs[0]) - mean(pairs[1]).detach()

    still = copy.deepcopy(then)
    terms = [0.6 * (ratio(found, row) - ratio(samples, row)) for row in range(3)]
    (-2 / 0.6 * mean([(1 / (1 + (-term).exp())).log() for term in terms])).backward()
    for now, before in zip(model.parameters(), still.parameters(), strict=True):
        torch.testing.assert_close(now - before, -0.1 * before.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fault", [None, "without what is kept", "all rows"])
def test_a_refusal_is_learned_by_rows_of_tokens_that_the_retain_set_lacks(fault):
    """Oracle: both terms token by token, over the rows that the generator draws."""
    torch.manual_seed(0)
    network = gpt_small.Config(width=8, layers=1, heads=1, hidden=8, context=8)
    model = gpt_small.build(network, 12).double()
    of_forget, of_retain = (
        Samples(torch.tensor(inputs), torch.tensor(targets))
        for inputs, targets in (
            ([[1, 9, 3], [1, 8, 3]], [[-100, -100, 5], [-100, -100, 6]]),
            (
                [[1, 4, 3], [1, 5, 3], [1, 6, 3]],
                [[-100, -100, 5], [-100, -100, 6], [-100, -100, 2]],
            ),
        )
    )

    class Words:
        def decode(self, row: list[int]) -> str:
            return " ".join(map(str, row))

        def encode(self, prompts, answers, *, longest):
            rows = [[*map(int, prompt.split()), 11] for prompt in prompts]
            wanted = [[-100] * (len(row) - 2) + [11, 2] for row in rows]
            return torch.tensor(rows), torch.tensor(wanted)

    class Task:
        bounds, tokens = None, Words()
        logits = staticmethod(lambda model, inputs: model(inputs))
        losses = staticmethod(mean_cross_entropy)

    forget = ForgetSet(samples=of_forget, classes=(), target_margin=-1e9)
    available = {"forget": lambda: forget, "retain": lambda: of_retain}
    made = refuse.Config(refusal="no", learning_rate=0.1, epochs=2, batch_size=2)
    course = methods.run("refuse", model, Task(), made, seed=SEED, available=available)
    path = [copy.deepcopy(model) for _ in course]
    draw = generator()
    refusals.refused(path[0], Task(), of_forget, draw, ("no",))
    answers = [([1, 9, 3, 11], {2: 11, 3: 2}), ([1, 8, 3, 11], {2: 11, 3: 2})]

    def slopes(at: nn.Module, rows: list[int]) -> dict[str, Tensor]:
        terms = [
            mean([-probability(at(torch.tensor([row]))[0, t], y).log() for t, y in said.items()])
            for row, said in answers
        ]
        kept = [[of(of_retain.inputs[[k]])[0, 2] for of in (path[0], at)] for k in rows]
        apart = mean([oracles.kl(then.detach(), now) for then, now in kept])
        at.zero_grad()
        (mean(terms) + (0.0 if fault == "without what is kept" else 1.0) * apart).backward()
        found = {}
        for name, own in (("words", [8, 9, 11]), ("head", [11])):
            whole = getattr(at, name).weight.grad
            found[name] = torch.zeros_like(whole)
            chosen = [*range(12)] if fault == "all rows" else own
            found[name][chosen] = whole[chosen]
        return found

    farness, velocity = 0.0, {"words": 0.0, "head": 0.0}
    for then, now in pairwise(path):
        torch.randperm(2, generator=draw)
        own = slopes(then, torch.randint(3, (2,), generator=draw).tolist())
        for name in own:
            velocity[name] = 0.9 * velocity[name] + own[name]
            moved = getattr(now, name).weight - getattr(then, name).weight
            farness = max(farness, float((moved + 0.1 * velocity[name]).detach().abs().max()))
    assert (farness <= EXACT) == (fault is None)
    for (name, now), then in zip(path[2].named_parameters(), path[0].parameters(), strict=True):
        assert torch.equal(now, then) == (name not in ("words.weight", "head.weight"))


def test_npo_begins_as_gradient_ascent_for_every_beta_and_slows_down():
    for beta in (0.1, 1.0, 5.0):
        first, second, _ = states("npo", beta=beta)
        assert follows([first, second], lambda at: ascent(at, [])) <= EXACT
    far = states("npo", 40, beta=5.0)
    norms = [
        sum(float((b - a).square().sum()) for a, b in zip(then, now, strict=True)) ** 0.5
        for then, now in pairwise(far)
    ]
    assert norms[-1] < norms[0] / 3


def test_a_head_that_moves_alone_takes_the_same_steps_from_cached_features():
    for loss, formula in (("cross_entropy", ascent), ("unlikelihood", unlikelihood)):
        path = states("gradient_ascent", parameters="head", loss=loss)

        def head_only(at: State, formula=formula, first=path[0]) -> Tensor:
            return formula([*first[:2], *at[2:]], first)

        assert all(torch.equal(a, b) for a, b in zip(path[0][:2], path[2][:2], strict=True))
        assert follows(path, head_only, head_only) <= EXACT


def test_batches_of_an_epoch_are_a_partition_and_their_loss_is_a_mean():
    path = states("gradient_ascent", 1, sgd={"batch_size": 3})
    order = torch.randperm(N, generator=generator()).tolist()
    assert len(path) == 4

    def of(chosen: list[int]) -> Loss:
        return lambda at: -mean([nll(at, *pairs(FORGET)[i]) for i in chosen])

    assert follows(path, of(order[:3]), of(order[3:6]), of(order[6:])) <= EXACT


def test_momentum_and_weight_decay_are_those_of_sgd():
    path = states("gradient_ascent", sgd={"momentum": 0.5, "weight_decay": 0.2})
    velocity = [torch.zeros_like(value) for value in path[0]]
    for then, now in pairwise(path):
        gradient = slope(lambda at: ascent(at, []), then)
        velocity = [0.5 * v + g + 0.2 * p for v, g, p in zip(velocity, gradient, then, strict=True)]
        assert farness(now, then, velocity) <= EXACT


# Labels.


def test_random_labels_are_wrong_and_each_wrong_one_comes_equally_often():
    targets = (torch.arange(30000) % 5).view(-1, 2)
    targets[:50, 1] = -100
    found = labels.random_other(targets, 5, generator())
    kept = targets == -100
    assert (found[kept] == -100).all()
    assert (found != targets)[~kept].all()
    for label in range(5):
        counts = torch.bincount(found[targets == label], minlength=5).tolist()
        assert counts.pop(label) == 0
        # About 6000 draws: 1500 each, standard deviation 34.
        assert all(abs(count - 1500) < 150 for count in counts)


def attack(state: State, label: int, sign: float) -> Callable[[Tensor], Tensor]:
    """Gradient of ± cross-entropy with respect to one input."""
    return lambda x: sign * oracles.derivative(lambda v: nll(state, v, label), x)


@pytest.mark.parametrize("epsilon", [0.3, 0.01])  # most neighbours cross the boundary, none does
def test_fgsm_and_the_labels_of_boundary_shrink(epsilon):
    model = network()
    first = [p.detach() for p in model.parameters()]
    found = fgsm(model, TASK, FORGET, epsilon)
    labels = []
    for i, (x, y) in enumerate(pairs(FORGET)):
        for k in range(D):  # the sign by finite differences
            step = torch.zeros(D, dtype=torch.float64)
            step[k] = 1e-6
            rise = float(nll(first, x + step, y) - nll(first, x - step, y))
            expected = min(max(float(x[k]) + math.copysign(epsilon, rise), 0.0), 1.0)
            assert float(found[i, k]) == pytest.approx(expected, abs=1e-15)
        z = logits(first, found[i])
        labels.append(max((k for k in range(CLASSES) if k != y), key=lambda k: float(z[k])))
    own = (TASK.logits(model, found).argmax(1) == FORGET.targets).sum()
    assert own == N if epsilon == 0.01 else own < N / 2
    path = states("boundary_shrink", epsilon=epsilon)
    assert follows(path, *2 * [lambda at: towards(labels)(at, first)]) <= EXACT
    other = [3 - y - k for (_, y), k in zip(pairs(FORGET), labels, strict=True)]
    assert follows(path, *2 * [lambda at: towards(other)(at, first)]) > 1e-2


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_projected_gradient_equals_the_loop(sign):
    model = network()
    first = [p.detach() for p in model.parameters()]
    radii = torch.linspace(0.05, 0.6, N, dtype=torch.float64)
    found = pgd(model, TASK, FORGET.inputs, FORGET.targets, radii, 8, towards=sign < 0)
    for i, (x, y) in enumerate(pairs(FORGET)):
        expected = oracles.pgd(attack(first, y, sign), x, float(radii[i]), 8, (0.0, 1.0))
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-10)  # 8 chained steps
        assert float((found[i] - x).norm()) <= float(radii[i]) * (1 + 1e-12)
        assert sign * float(nll(first, found[i], y) - nll(first, x, y)) > 0
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


RADIUS, STEPS = 0.02, 6


def neighbours(first: State) -> list[tuple[Tensor, int, float]]:
    """The first misclassified PGD point as the radius doubles, its label, and the radius."""
    found = []
    for x, y in pairs(FORGET):
        near, radius = x, 0.0
        while int(logits(first, near).argmax()) == y:
            radius = 2 * radius or RADIUS
            near = oracles.pgd(attack(first, y, 1.0), x, radius, STEPS, (0.0, 1.0))
        found.append((near, int(logits(first, near).argmax()), radius))
    return found


def test_neighbours_are_the_nearest_of_the_doubling_sequence():
    model = network()
    expected = neighbours([p.detach() for p in model.parameters()])
    found, labels = nearest(model, TASK, FORGET, RADIUS, STEPS)
    assert len({radius for *_, radius in expected}) > 2
    assert labels.tolist() == [label for _, label, _ in expected]
    assert (TASK.logits(model, found).argmax(1) == labels).all()
    assert (labels != FORGET.targets).all()
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    for i, (near, _, radius) in enumerate(expected):
        torch.testing.assert_close(found[i], near, rtol=0, atol=1e-10)  # 6 chained steps
        assert float((found[i] - FORGET.inputs[i]).norm()) <= radius * (1 + 1e-12)


def test_a_sample_that_the_model_gets_wrong_is_its_own_neighbour():
    wrong = Samples(FORGET.inputs, (FORGET.targets + 1) % CLASSES)
    found, labels = nearest(network(), TASK, wrong, RADIUS, STEPS)
    assert torch.equal(found, FORGET.inputs)
    assert torch.equal(labels, FORGET.targets)


def test_a_neighbour_that_does_not_exist_is_an_error():
    model = network()
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    samples = Samples(FORGET.inputs, torch.zeros(N, dtype=torch.int64))
    with pytest.raises(UnlearningError, match=f"no adversarial neighbour of {N} forget samples"):
        nearest(model, TASK, samples, RADIUS, 1)


@pytest.mark.parametrize("with_forget", [False, True])
def test_amun_descends_on_the_neighbours(with_forget):
    path = states("amun", radius=RADIUS, attack_steps=STEPS, with_forget=with_forget)
    near = [(x, label) for x, label, _ in neighbours(path[0])]
    both = near + pairs(FORGET)

    def loss(chosen: list) -> Loss:
        return lambda at: mean([nll(at, x, y) for x, y in chosen])

    # 1e-9: the neighbours come out of chained steps.
    right, wrong = (both, near) if with_forget else (near, both)
    assert follows(path, *2 * [loss(right)]) <= 1e-9
    assert follows(path, *2 * [loss(wrong)]) > 1e-2


def importances(first: State) -> State:
    total = [torch.zeros_like(value) for value in first]
    for x in FORGET.inputs:
        gradient = slope(lambda at, x=x: (logits(at, x) ** 2).sum(), first)
        total = [t + g.abs() / N for t, g in zip(total, gradient, strict=True)]
    return [(t - t.min()) / (t.max() - t.min()) for t in total]


@pytest.mark.parametrize("fault", [None, "importance", "adversarial", "wrong way"])
def test_l2ul_descends_its_three_terms(fault):
    path = states("l2ul", adversarial=0.7, importance=3.0, radius=0.3, attack_steps=STEPS)
    first, omega = path[0], importances(path[0])
    near = [
        (oracles.pgd(attack(first, y, -1.0), x, 0.3, STEPS, (0.0, 1.0)), y)
        for x, y in zip(FORGET.inputs, own_labels(), strict=True)
    ]

    def loss(at: State) -> Tensor:
        drift = torch.zeros((), dtype=torch.float64)
        for share, now, then in zip(omega, at, first, strict=True):
            needed = share if fault == "importance" else 1 - share
            drift = drift + (needed * (now - then) ** 2).sum()
        others = mean([nll(at, x, y) for x, y in near])
        own = (1 if fault == "wrong way" else -1) * mean([nll(at, *pair) for pair in pairs(FORGET)])
        return own + (0.0 if fault == "adversarial" else 0.7) * others + 3.0 * drift

    # 1e-9: the neighbours come out of chained steps.
    assert (follows(path, loss, loss) <= 1e-9) == (fault is None)


def test_jit_descends_the_change_over_the_noise():
    path, draw = states("jit", sigma=0.3, draws=4), generator()
    losses = []
    for _ in range(2):
        order = torch.randperm(N, generator=draw).tolist()
        noise = 0.3 * torch.randn(4, N, D, generator=draw, dtype=torch.float64)

        def loss(at: State, order=order, noise=noise) -> Tensor:
            terms = []
            for row, i in enumerate(order):
                x = FORGET.inputs[i]
                for drawn in noise[:, row]:
                    change = logits(at, x) - logits(at, x + drawn)
                    terms.append((change**2).sum().sqrt() / (drawn**2).sum().sqrt())
            return mean(terms)

        losses.append(loss)
    assert follows(path, *losses) <= EXACT
    assert follows(path, *reversed(losses)) > 1e-2  # the noise is fresh
    assert follows(path, *[lambda at, loss=loss: -loss(at) for loss in losses]) > 1


# With the retain set.


@pytest.mark.parametrize("factors", [(0.05, 0.05 * 2 / 3, 0.05 / 3), (0.05, 0.05, 0.05)])
def test_l1_sparse_lets_the_penalty_fall_to_nothing(factors):
    path = states("l1_sparse", 3, gamma=0.05)
    losses = [
        lambda at, factor=factor: kept(at, []) + factor * sum(v.abs().sum() for v in at)
        for factor in factors
    ]
    assert (follows(path, *losses) <= EXACT) == (factors[2] < 0.05)


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_salun_moves_the_salient_share_and_leaves_the_rest_to_the_bit(share):
    path = states("salun", 3, share=share)
    first, last = (torch.cat([v.flatten() for v in state]) for state in (path[0], path[-1]))
    sizes = torch.cat([g.flatten() for g in slope(lambda at: ascent(at, []), path[0])]).abs()
    ranked = sorted(range(len(sizes)), key=lambda i: -float(sizes[i]))
    chosen = set(ranked[: max(1, round(share * len(sizes)))])
    assert {i for i in range(len(sizes)) if first[i] != last[i]} == chosen
    mask = torch.tensor([1.0 if i in chosen else 0.0 for i in range(len(sizes))])
    mask = mask.double().split([v.numel() for v in path[0]])
    for then, now in pairwise(path):
        gradient = slope(lambda at: relabelled(at, []), then)
        masked = [g * m.view_as(g) for g, m in zip(gradient, mask, strict=True)]
        assert farness(now, then, masked) <= EXACT


def test_salun_keeps_its_share_where_gradients_tie():
    model = nn.Linear(4, 3, dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
    samples = Samples(torch.full((6, 4), 0.5, dtype=torch.float64), torch.arange(6) % 3)
    masks = salun.salient(model, TASK, samples, 0.5)  # all gradients are 0
    assert sum(int(mask.sum()) for mask in masks) == 8  # of 15, rounded to even


SCRUB = {"alpha": 0.4, "gamma": 0.9, "temperature": 2.5, "max_epochs": 1}


@pytest.mark.parametrize("fault", [None, "temperature", "no square", "gamma", "order"])
def test_scrub_goes_away_from_the_teacher_on_one_set_and_to_it_on_the_other(fault):
    path = states("scrub", 3, **SCRUB)
    first, temperature = path[0], 1.0 if fault == "temperature" else 2.5
    factor = 1.0 if fault == "no square" else temperature**2

    def distance(at: State, samples: Samples) -> Tensor:
        terms = [
            oracles.kl(logits(first, x).detach(), logits(at, x), temperature)
            for x in samples.inputs
        ]
        return factor * mean(terms)

    def forget(at: State) -> Tensor:
        return -distance(at, FORGET)

    def retain(at: State) -> Tensor:
        return 0.4 * distance(at, RETAIN) + (0.0 if fault == "gamma" else 0.9) * kept(at, [])

    # The first forget half starts at the teacher, where the divergence has no slope.
    for then, now in zip(path[0], path[1], strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=1e-15)
    assert len(path) == 5  # forget, retain, retain, retain
    if fault == "order":
        assert follows(path[1:], forget, retain, retain) > 1e-2
    else:
        assert (follows(path[1:], retain, retain, retain) <= EXACT) == (fault is None)
    twice = states("scrub", 2, **SCRUB | {"max_epochs": 2})
    assert (follows(twice[1:], retain, forget, retain) <= EXACT) == (fault in (None, "order"))


def gradients(state: State, samples: Samples) -> Tensor:
    """(n, parameters), sample by sample."""
    rows = [slope(lambda at, pair=pair: nll(at, *pair), state) for pair in pairs(samples)]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


@pytest.mark.parametrize(
    ("selection", "dampening", "chunk"),
    [(1.3, 0.8, 2), (1.3, 0.8, 64), (0.5, 1.2, 64)],  # the last must not enlarge weights
)
def test_ssd_dampens_what_the_forget_set_needs_more(selection, dampening, chunk):
    first, last = (
        torch.cat([v.flatten() for v in state])
        for state in states("ssd", selection=selection, dampening=dampening, chunk=chunk)
    )
    state = [p.detach() for p in network().parameters()]
    own, others = gradients(state, FORGET), gradients(state, RETAIN)
    dampened = 0
    for i in range(len(first)):
        of_forget = sum(float(g) ** 2 for g in own[:, i]) / N
        of_all = sum(float(g) ** 2 for g in [*own[:, i], *others[:, i]]) / (N + R)
        factor = 1.0
        if of_forget > selection * of_all:
            factor, dampened = min(dampening * of_all / of_forget, 1.0), dampened + 1
        assert float(last[i]) == pytest.approx(factor * float(first[i]), rel=1e-12)
    assert 5 < dampened < len(first) - 5


def test_ssd_dampens_nothing_where_no_weight_can_be_selected():
    first, last = states("ssd", selection=(N + R) / N)
    assert all(torch.equal(a, b) for a, b in zip(first, last, strict=True))


def test_woodfisher_equals_the_dense_inverse_and_the_recursion():
    draw = torch.Generator().manual_seed(4)
    rows = torch.randn(5, 8, generator=draw, dtype=torch.float64)
    vector = torch.randn(8, generator=draw, dtype=torch.float64)
    dense = rows.T @ rows / 5 + 0.03 * torch.eye(8, dtype=torch.float64)
    expected = torch.linalg.solve(dense, vector)
    found = woodfisher.inverse_fisher_product(rows, vector, 0.03)
    # 1e-11: the condition number is about 100.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(oracles.woodfisher(rows, vector, 0.03), expected, rtol=0, atol=1e-11)
    assert float((found - vector / 0.03).abs().max()) > 1  # the identity is told apart


@pytest.mark.parametrize(("m", "chunk"), [(256, 64), (5, 2)])
def test_woodfisher_takes_one_newton_step(m, chunk):
    path = states("woodfisher", scale=0.7, damping=0.05, fisher_samples=m, chunk=chunk)
    first, last = (torch.cat([v.flatten() for v in state]) for state in path)
    chosen = torch.randperm(R, generator=generator())[:m].tolist()
    state = [p.detach() for p in network().parameters()]
    rows = gradients(state, RETAIN)[chosen]
    step = gradients(state, FORGET).sum(0) / (N + R)
    dense = sum(torch.outer(g, g) for g in rows) / len(rows) + torch.diag(
        torch.full_like(first, 0.05)
    )
    expected = 0.7 * torch.linalg.solve(dense, step)
    # 1e-11: the condition number is about 1000.
    torch.testing.assert_close(last - first, expected, rtol=0, atol=1e-11)
    assert float((last - first + expected).abs().max()) > 1e-2
