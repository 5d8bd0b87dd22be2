"""The task abstraction, and two tasks that are none of the library's, through every method."""

import copy
from dataclasses import dataclass, fields, replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from imu import discovery, methods
from imu import objectives as objective
from imu.methods import ForgetSet
from imu.models import head
from imu.objectives import IGNORED, Samples, features_and_logits, predictions
from imu.objectives.classification import Classification
from tests import oracles

torch.set_num_threads(1)
METHODS = methods.names()
DRAWING = [
    "random_label",
    "random_label_retain",
    "salun",
    "imu_words",
    "idk_dpo",
]  # for every position
PERTURBING = ["amun", "boundary_shrink", "jit", "l2ul"]
# No rise is promised.
KEEPING = ["nothing", "logit_mask", "fine_tune", "l1_sparse", "scrub", "cf_k", "ct", "fanchuan"]
EXACT = 1e-12  # float64, sums of tens of terms


def positions() -> tuple[Tensor, Tensor]:
    """Logits (4, 2, 3, 5) and targets (4, 2, 3), some IGNORED, of the last sample all."""
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 2, 3, 5, generator=draw, dtype=torch.float64)
    targets = torch.randint(0, 5, (4, 2, 3), generator=draw)
    targets[0, 1, 2] = targets[1, 0] = targets[3] = IGNORED
    return logits, targets


def by_loop(logits: Tensor, targets: Tensor, value) -> tuple[Tensor, Tensor]:
    """``value`` of the probability at every position, and its mean over each sample's."""
    each, means = torch.zeros(targets.shape, dtype=torch.float64), []
    for i in range(len(targets)):
        found = []
        for at in torch.cartesian_prod(*[torch.arange(size) for size in targets.shape[1:]]):
            index = (i, *at.tolist())
            if targets[index] != IGNORED:
                z = logits[index]
                each[index] = value(float(z[targets[index]].exp() / z.exp().sum()))
                found.append(each[index])
        means.append(sum(found) / len(found) if found else torch.zeros(()).double())
    return each, torch.stack(means)


def test_losses_are_means_over_the_predicted_positions():
    logits, targets = positions()
    each, means = by_loop(logits, targets, lambda p: -torch.tensor(p).double().log())
    torch.testing.assert_close(objective.cross_entropies(logits, targets), each)
    for found in (
        objective.mean_over_positions(each, targets),
        objective.mean_cross_entropy(logits, targets),
        Classification().losses(logits, targets),
    ):
        torch.testing.assert_close(found, means)
    assert means[3] == 0
    each, _ = by_loop(logits, targets, lambda p: torch.tensor(1 - p).double().log())
    torch.testing.assert_close(objective.log_unlikelihoods(logits, targets), each)


def test_one_label_per_sample_is_a_task_without_positions():
    logits, targets = positions()
    logits, targets = logits[:3, 0, 0], torch.tensor([4, IGNORED, 0])
    expected = -logits.log_softmax(1)[[0, 1, 2], [4, 0, 0]] * torch.tensor([1, 0, 1])
    torch.testing.assert_close(objective.cross_entropies(logits, targets), expected)
    torch.testing.assert_close(objective.mean_cross_entropy(logits, targets), expected)
    for rows in (1, 0):
        few = objective.mean_cross_entropy(logits[:rows], targets[:rows])
        torch.testing.assert_close(few, expected[:rows])


@pytest.mark.parametrize("memory", ["contiguous", "positions last", "a part"])
def test_the_layout_in_memory_does_not_matter(memory):
    logits, targets = positions()
    expected = objective.mean_cross_entropy(logits, targets)
    if memory == "positions last":
        targets = targets.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        logits = logits.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    if memory == "a part":
        targets = torch.cat([targets, targets], 2)[..., :3]
    assert torch.equal(objective.mean_cross_entropy(logits, targets), expected)


def test_position_weights_share_a_sample_s_weight():
    _, targets = positions()
    weights = torch.tensor([3.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    found = objective.position_weights(weights, targets)
    assert found.shape == targets.shape
    assert (found[targets == IGNORED] == 0).all()
    expected = torch.tensor([3.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found.flatten(1).sum(1), expected)
    torch.testing.assert_close(found[0][0], expected.new_full((3,), 3 / 5))


def test_unlikelihood_keeps_its_slope_where_p_rounds_to_1():
    logits = torch.tensor([[800.0, 0.0, 1.0]], requires_grad=True)
    objective.log_unlikelihoods(logits, torch.tensor([0])).sum().backward()
    expected = torch.tensor([[-1.0, *torch.tensor([0.0, 1.0]).softmax(0)]])
    torch.testing.assert_close(logits.grad, expected)


def test_samples_are_cut_alike():
    samples = Samples({"a": torch.arange(5), "b": torch.arange(10).view(5, 2)}, torch.arange(5))
    assert len(samples) == 5
    for index in (torch.tensor([3, 0]), slice(1, 3), torch.tensor([True, False, True, True, True])):
        part = samples[index]
        assert torch.equal(part.inputs["a"], part.targets)
        assert torch.equal(part.inputs["b"][:, 0], 2 * part.targets)
    assert [part.targets.tolist() for part in samples.batches(2)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(4, 2), "inputs must have one row per sample, got 4 rows for 3 targets"),
        ({"a": torch.ones(3), "mask": torch.ones(2)}, "mask must .*got 2 rows for 3 targets"),
    ],
)
def test_one_row_per_sample_is_required(inputs, message):
    with pytest.raises(ValueError, match=message):
        Samples(inputs, torch.zeros(3, dtype=torch.int64))


def test_images_by_name_are_refused():
    with pytest.raises(TypeError, match="images must be one tensor, got dict"):
        Classification().logits(nn.Linear(2, 2), {"images": torch.ones(1, 2)})


# Sequences of tokens.


class Tokens(nn.Module):
    """Every position is predicted from the token there."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 6)
        self.hidden = nn.Linear(6, 24)
        self.head = nn.Linear(24, 12)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.hidden(self.embedding(tokens)).relu())


@dataclass(frozen=True)
class Language:
    bounds: tuple[float, float] | None = None

    def logits(self, model: nn.Module, inputs) -> Tensor:
        return model(inputs["tokens"])

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return objective.mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return ("hidden", "head")


# Images of persons, as vectors.


class Persons(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(8, 10), nn.BatchNorm1d(10), nn.ReLU())
        self.identity = nn.Linear(10, 5, bias=True)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(images)
        return embedding, self.identity(embedding)


@dataclass(frozen=True)
class Reidentification:
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def logits(self, model: nn.Module, inputs) -> Tensor:
        return model(inputs)[1]

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, targets, reduction="none")

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return ("identity",)


def fit(model: nn.Module, task, samples: Samples, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        task.losses(task.logits(model, samples.inputs), samples.targets).mean().backward()
        optimizer.step()
    model.zero_grad()


@cache
def language() -> tuple[nn.Module, ForgetSet, Samples]:
    """12 sequences of 1 to 5 tokens; 3 are to be forgotten. Targets are a rule of the tokens."""
    torch.manual_seed(0)
    model = Tokens().double()
    tokens = torch.randint(0, 12, (12, 5))
    targets = (5 * tokens + 1) % 12
    for row in range(12):
        targets[row, 1 + row % 5 :] = IGNORED
    samples = Samples({"tokens": tokens}, targets)
    fit(model, Language(), samples, 14)
    forget = ForgetSet(samples=samples[2:5], classes=(), target_margin=0.0)
    return model, forget, samples[torch.tensor([0, 1, *range(5, 12)])]


@cache
def persons() -> tuple[nn.Module, ForgetSet, Samples]:
    """5 persons, 6 images each; person 3 is to be forgotten."""
    torch.manual_seed(0)
    model = Persons().double()
    identities = torch.arange(30) % 5
    faces = torch.rand(5, 8, dtype=torch.float64)
    images = 0.7 * faces[identities] + 0.3 * torch.rand(30, 8, dtype=torch.float64)
    fit(model, Reidentification(), Samples(images, identities), 40)
    of = identities == 3
    forget = ForgetSet(samples=Samples(images[of], identities[of]), classes=(3,), target_accuracy=0)
    return model, forget, Samples(images[~of], identities[~of])


CASES = {"language": (language, Language()), "persons": (persons, Reidentification())}
SETTINGS = {
    "attack_steps": 5,
    "damping": 0.1,
    "dampening": 0.2,
    "draws": 3,
    "freeze_batch_norm": True,
    "gamma": 1e-3,
    "learning_rate": 0.002,
    "neighbours": 0.0,  # of what enters the last block: here it is the first as well
    "selection": 1.1,
}


def unlearned(name: str, method: str, forget: ForgetSet | None = None, frozen: str = ""):
    """The unlearned model and its steps."""
    case, task = CASES[name]
    model, own, retain = copy.deepcopy(case())
    if frozen:
        model.get_submodule(frozen).requires_grad_(False)
    kind = discovery.load("imu.methods", method).Config
    config = kind(**{f.name: SETTINGS[f.name] for f in fields(kind) if f.name in SETTINGS})
    if hasattr(config, "sgd"):
        config = replace(config, sgd=replace(config.sgd, learning_rate=0.02, epochs=8))
    forget = own if forget is None else forget
    available = {
        "forget": lambda: forget,
        "influence": lambda: torch.linspace(1.0, 0.2, len(forget.samples)),
        "retain": lambda: retain,
    }
    steps = list(methods.run(method, model, task, config, seed=3, available=available))
    return model, steps


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def judged(model: nn.Module, task, samples: Samples) -> tuple[float, float]:
    """Loss and accuracy, each a mean over samples of the mean over predicted positions."""
    logits = predictions(model, task, samples.inputs)
    logits = logits.view(len(samples), -1, logits.shape[-1])
    losses, shares = [], []
    for z, y in zip(logits, samples.targets.view(len(samples), -1), strict=True):
        asked = y != IGNORED
        losses.append(oracles.cross_entropy(z[asked], y[asked]))
        shares.append(oracles.accuracy(z[asked], y[asked]))
    return sum(losses) / len(losses), sum(shares) / len(shares)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *(("language", method) for method in METHODS if method not in PERTURBING),
        *(("persons", method) for method in METHODS),
    ],
)
def test_another_task_is_unlearned_by_the_methods_as_they_are(name, method):
    (model, forget, retain), task = CASES[name][0](), CASES[name][1]
    after, steps = unlearned(name, method)
    samples = forget.samples
    losses = [judged(now, task, samples) for now in (model, after)]
    for step, (loss, accuracy) in zip((steps[0], steps[-1]), losses, strict=True):
        assert step.loss == pytest.approx(loss, rel=1e-9)
        assert step.accuracy == pytest.approx(accuracy, abs=1e-9)
    assert steps[0].accuracy > 90
    if method not in [*KEEPING, "jit"]:
        assert losses[1][0] > 1.1 * losses[0][0]
    if method in ("fine_tune", "l1_sparse"):
        means = [
            task.losses(predictions(now, task, retain.inputs), retain.targets).mean()
            for now in (model, after)
        ]
        assert means[1] < means[0]
    assert torch.equal(weights(after), weights(model)) == (
        method == "nothing" or (name, method) == ("language", "logit_mask")
    )


@pytest.mark.parametrize("method", PERTURBING)
def test_tokens_cannot_be_perturbed(method):
    with pytest.raises(ValueError, match="perturbs its inputs: they must be one tensor of real"):
        unlearned("language", method)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in PERTURBING])
def test_what_stands_at_ignored_positions_does_not_matter(method):
    _, forget, _ = language()
    tokens, targets = forget.samples.inputs["tokens"], forget.samples.targets
    other = torch.where(targets == IGNORED, (tokens + 1) % 12, tokens)
    assert not torch.equal(other, tokens)
    padded = replace(forget, samples=Samples({"tokens": other}, targets))
    found, steps = unlearned("language", method, padded)
    expected, others = unlearned("language", method)
    torch.testing.assert_close(weights(found), weights(expected), rtol=0, atol=EXACT)
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in others])
    if method in ("gradient_ascent", "imu", "npo", "ssd", "woodfisher"):  # a target does matter
        predicted = targets.clone()
        predicted[0, -1] = 0
        more = replace(forget, samples=Samples({"tokens": tokens}, predicted))
        model, _ = unlearned("language", method, more)
        assert (weights(model) - weights(expected)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "method",
    [m for m in METHODS if m not in [*PERTURBING, *DRAWING]],
)
def test_padding_may_be_cut_off(method):
    _, forget, _ = language()
    tokens, targets = forget.samples.inputs["tokens"], forget.samples.targets
    blank = torch.zeros(3, 4, dtype=torch.int64)
    padded = Samples(
        {"tokens": torch.cat([blank, tokens], 1)}, torch.cat([blank.add(IGNORED), targets], 1)
    )
    found, _ = unlearned("language", method, replace(forget, samples=padded))
    expected, _ = unlearned("language", method)
    torch.testing.assert_close(weights(found), weights(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_features_enter_the_head_of_any_task(name):
    (model, forget, _), task = copy.deepcopy(CASES[name][0]()), CASES[name][1]
    features, logits = features_and_logits(model, task, forget.samples.inputs, batch_size=2)
    assert features.shape == (*forget.samples.targets.shape, head(model).in_features)
    torch.testing.assert_close(head(model)(features), logits, rtol=0, atol=EXACT)


@pytest.mark.parametrize("method", ["imu", "imu_deep", "gradient_ascent"])
def test_predictions_that_are_not_the_head_s_output_are_refused(method):
    class Shifted(Language):
        def logits(self, model: nn.Module, inputs) -> Tensor:
            return super().logits(model, inputs)[:, :-1]

    model, forget, _ = copy.deepcopy(language())
    samples = Samples(forget.samples.inputs, forget.samples.targets[:, 1:].clamp(min=0))
    config = discovery.load("imu.methods", method).Config()
    if method == "gradient_ascent":
        config = replace(config, parameters="head")
    available = {
        "forget": lambda: replace(forget, samples=samples),
        "influence": lambda: torch.ones(3),
    }
    with pytest.raises(ValueError, match="Shift targets rather than logits"):
        next(methods.run(method, model, Shifted(), config, seed=0, available=available))


DEEP = ["imu_deep", "rmu"]  # train what lies before the head


@pytest.mark.parametrize("method", DEEP)
def test_a_method_that_trains_what_lies_before_the_head_needs_something_there(method):
    with pytest.raises(ValueError, match="no layer before it has parameters that require a grad"):
        unlearned("persons", method, frozen="embed")


@pytest.mark.parametrize("method", [m for m in METHODS if m not in DEEP])
def test_parameters_that_require_no_gradient_stay(method):
    after, _ = unlearned("persons", method, frozen="embed")
    before = persons()[0].embed
    for a, b in zip(after.embed.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad
