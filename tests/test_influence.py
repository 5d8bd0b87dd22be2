import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.influences import Config, ascent_weights, head_influence, influence, parameter_influence
from imu.objectives import Samples, predictions
from imu.objectives.classification import Classification
from tests import oracles
from tests.problems import (
    DAMPING,
    closed_form,
    expected,
    farness,
    general,
    problem,
    reference,
    task,
)

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "config", "where"),
    [
        ("resnet", {}, ["head"]),
        ("resnet", {"score": "self"}, ["head"]),
        ("resnet", {"fisher": "full"}, ["head"]),
        ("resnet", {"fisher": "full", "score": "self"}, ["head"]),
        ("resnet", {"parameters": ("head.bias", "head.weight"), "fisher": "full"}, ["head"]),
        ("resnet", {"parameters": ("head.bias",)}, ["head.bias"]),
        ("resnet", {"parameters": ("blocks.2", "head"), "chunk": 2}, ["blocks.2", "head"]),
        ("tokens", {}, ["inner"]),
        ("tokens", {"parameters": ("head",), "score": "self"}, ["head"]),
        ("attention", {"parameters": ("q", "o"), "cache_prefix": False}, ["q", "o"]),
    ],
)
def test_influence_takes_the_form_that_fits(name, config, where):
    model, objective, samples = task(name)
    found = influence(model, objective, samples, Config(**config))
    score = config.get("score", "mean")
    right = reference(name, where, config.get("fisher", "diagonal"), score)
    # The full Fisher of 7 samples has a condition number of 1e3.
    assert farness(found, right) <= (1e-11 if "fisher" in config else 1e-12)
    assert farness(found, reference(name, where, "identity", score)) > 0.1


def forbid_general_form(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the general form was taken")

    for form in ("layer_influence", "parameter_influence"):
        monkeypatch.setattr(f"imu.influences.{form}", refuse)


def test_the_head_of_a_classification_takes_the_closed_form(monkeypatch):
    forbid_general_form(monkeypatch)
    influence(*task("resnet"), Config())
    with pytest.raises(AssertionError):
        influence(*task("resnet"), Config(parameters=("head.weight",)))


def test_a_head_without_bias_takes_the_closed_form(monkeypatch):
    model, objective, samples = task("resnet")
    model.head = nn.Linear(8, 4, bias=False, dtype=torch.float64)
    gradients = oracles.gradients(model, objective, samples, [model.head.weight])
    forbid_general_form(monkeypatch)
    found = influence(model, objective, samples, Config())
    assert farness(found, expected(gradients, "diagonal", "mean")) <= 1e-12


class Tempered(nn.Module):
    """A network whose head is not its output."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) / 3


class Smoothed(Classification):
    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.3)


@pytest.mark.parametrize("difference", ["temperature", "smoothed labels"])
def test_where_the_closed_form_does_not_hold_it_is_not_taken(difference):
    model, objective, samples = task("resnet")
    head = model.head
    if difference == "temperature":
        model = Tempered(model)
    else:
        objective = Smoothed()
    gradients = oracles.gradients(model, objective, samples, list(head.parameters()))
    found = influence(model, objective, samples, Config())
    assert farness(found, expected(gradients, "diagonal", "mean")) <= 1e-12
    with pytest.raises(ValueError, match=r"fisher must be diagonal .* got full for (model\.)?head"):
        influence(model, objective, samples, Config(fisher="full"))


@pytest.mark.parametrize("name", ["tokens", "resnet"])
def test_the_full_fisher_is_for_the_head_alone(name):
    config = Config(fisher="full", parameters=("head", "embedding" if name == "tokens" else "stem"))
    with pytest.raises(ValueError, match=r"fisher must be diagonal .* got full for head, "):
        influence(*task(name), config)


def test_an_empty_forget_set_is_refused():
    with pytest.raises(ValueError, match="forget set is empty"):
        head_influence(
            torch.ones(0, 3), torch.ones(0, 2), torch.ones(0, dtype=torch.int64), damping=1.0
        )
    for where in ((), ("blocks.2",)):
        with pytest.raises(ValueError, match="the forget set is empty: influence needs at least"):
            influence(*task("resnet", n=0), Config(parameters=where))
    with pytest.raises(ValueError, match="the forget set is empty"):
        parameter_influence(
            *task("tokens", n=0), parameters=None, damping=1.0, chunk=3, cache_prefix=True
        )


@pytest.mark.parametrize("rows", [(4, 5, 5), (5, 4, 5), (5, 5, 4)])
def test_one_row_per_sample_is_required(rows):
    features, logits, labels = torch.ones(rows[0], 3), torch.ones(rows[1], 2), torch.zeros(rows[2])
    with pytest.raises(ValueError, match=f"got {rows[0]}, {rows[1]} and {rows[2]} rows"):
        head_influence(features, logits, labels.long(), damping=1.0)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4, 2, 3), (4, 2), (4,)), r"features must have the dimensions n, d, got \(4, 2, 3\)"),
        (((4, 3), (4, 2, 2), (4,)), r"logits must have .* n, classes, got \(4, 2, 2\)"),
        (((4, 3), (4, 2), (4, 2)), r"targets must have the dimensions n, got \(4, 2\)"),
    ],
)
def test_the_head_has_one_position_per_sample(shapes, message):
    features, logits, targets = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        head_influence(features, logits, targets.long(), damping=1.0)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_damping_must_be_positive(damping):
    features, weight, bias, labels = problem()
    with pytest.raises(ValueError, match=rf"damping must be > 0( and finite)?, got {damping}"):
        head_influence(features, features @ weight.T + bias, labels, damping=damping)
    with pytest.raises(ValueError, match=rf"damping must be > 0( and finite)?, got {damping}"):
        Config(damping=damping)
    with pytest.raises(ValueError, match=rf"damping must be > 0( and finite)?, got {damping}"):
        general("tokens", None, damping=damping)


@pytest.mark.parametrize("field", ["clip_quantile", "top_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.5, float("nan")])
def test_shares_must_lie_in_0_to_1(field, value):
    message = rf"{field} must be in \(0, 1\]( and finite)?, got {value}"
    with pytest.raises(ValueError, match=message):
        Config(**{field: value})


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("fisher", "fisher must be 'diagonal'(, 'full' or 'ekfac'| or 'full'), got 'other'"),
        ("score", "score must be 'mean' or 'self', got 'other'"),
    ],
)
def test_an_unknown_choice_is_refused(field, message):
    with pytest.raises(ValueError, match=message):
        Config(**{field: "other"})
    with pytest.raises(ValueError, match=message):
        closed_form(*problem(), **{field: "other"})
    if field == "score":
        with pytest.raises(ValueError, match=message):
            general("tokens", None, score="other")
        with pytest.raises(ValueError, match=message):
            ascent_weights(-torch.ones(2), score="other", clip_quantile=1.0, top_fraction=1.0)


@pytest.mark.parametrize("chunk", [0, -3])
def test_a_chunk_holds_a_sample(chunk):
    with pytest.raises(ValueError, match=f"chunk must be >= 1, got {chunk}"):
        Config(chunk=chunk)
    with pytest.raises(ValueError, match=f"chunk must be >= 1, got {chunk}"):
        general("tokens", None, chunk=chunk)


@pytest.mark.parametrize("fisher", ["diagonal", "full"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_names_its_sample(value, fisher):
    features, weight, bias, labels = problem()
    logits = features @ weight.T + bias
    logits[2, 0] = value
    with pytest.raises(FloatingPointError, match=r"influence of sample 2 is nan"):
        head_influence(features, logits, labels, damping=DAMPING, fisher=fisher)


def weights(
    scores: list[float], clip: float = 1.0, top: float = 1.0, score: str = "mean"
) -> tuple[list, list]:
    scores = torch.tensor(scores, dtype=torch.float64)
    found, selected = ascent_weights(scores, score=score, clip_quantile=clip, top_fraction=top)
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


def test_self_influence_weighs_every_sample_above_0():
    expected = ([1.5, 0.0, 1.5, 1.0], [True, False, True, True])
    assert weights([9.0, 0.0, 2.25, 1.0], clip=0.5, score="self") == expected
    assert weights([9.0, 0.0, 4.0, 1.0], top=0.7, score="self")[1] == [True, False, True, False]


def test_without_self_influence_there_is_nothing_to_ascend():
    with pytest.raises(ValueError, match="no forget sample has self-influence above 0"):
        weights([0.0, 0.0], score="self")


@pytest.mark.parametrize("score", ["mean", "self"])
@pytest.mark.parametrize("fisher", ["diagonal", "full"])
@pytest.mark.parametrize("parameters", [("head",), ("stem", "head")])
def test_single_precision_holds_on_what_is_memorised(parameters, fisher, score):
    if fisher == "full" and parameters != ("head",):
        return
    model, objective, samples = task("resnet")
    with torch.no_grad():
        logits = predictions(model, objective, samples.inputs)
        model.head.weight.mul_(100 / logits.std())
        logits = predictions(model, objective, samples.inputs)
    samples = Samples(samples.inputs, logits.argmax(1))
    config = Config(parameters=parameters, fisher=fisher, score=score, damping=DAMPING)
    right = influence(model, objective, samples, config)
    model, single = model.float(), Samples(samples.inputs.float(), samples.targets)
    own = predictions(model, objective, single.inputs).softmax(1).amax(1)
    assert (own == 1).sum() >= 2
    found = influence(model, objective, single, config).double()
    # Elementwise: a memorised sample's own score keeps its digits. Logits of 100 have 1e-5 left.
    torch.testing.assert_close(found, right, rtol=1e-3, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_not_weighed(value):
    with pytest.raises(FloatingPointError, match="influence of sample 1 is"):
        ascent_weights(torch.tensor([-1.0, value]), clip_quantile=1.0, top_fraction=1.0)


@pytest.mark.parametrize("field", ["clip_quantile", "top_fraction"])
def test_shares_of_weights_lie_in_0_to_1(field):
    shares = {"clip_quantile": 1.0, "top_fraction": 1.0} | {field: 3.0}
    with pytest.raises(ValueError, match=rf"{field} must be in \(0, 1\], got 3.0"):
        ascent_weights(-torch.ones(2), **shares)


def test_names_must_be_a_tuple():
    with pytest.raises(ValueError, match="parameters must be a tuple of names, got 'head'"):
        Config(parameters="head")
