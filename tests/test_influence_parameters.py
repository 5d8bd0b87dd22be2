import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from imu.influences import (
    Config,
    head_influence,
    held_bytes,
    influence,
    parameter_influence,
    parameters,
)
from imu.influences.parameters import chosen, gradient_bytes, per_sample_gradients
from imu.influences.prefix import record, replaying
from imu.objectives import Samples, features_and_logits
from tasks import influence as stage
from tests import oracles
from tests.problems import (
    CASES,
    DAMPING,
    IMAGES,
    each_case,
    expected,
    farness,
    general,
    picked,
    reference,
    task,
)

torch.set_num_threads(1)


@each_case
@pytest.mark.parametrize("cache_prefix", [False, True])
@pytest.mark.parametrize("score", ["mean", "self"])
def test_general_form_equals_the_per_sample_loop(name, where, cache_prefix, score):
    found = general(name, where, cache_prefix=cache_prefix, score=score)
    assert farness(found.scores, reference(name, where, score=score)) <= 1e-12


@each_case
def test_pieces_of_the_general_form_equal_the_per_sample_loop(name, where):
    found = general(name, where, cache_prefix=True)
    model, objective, samples = task(name)
    gradients = oracles.gradients(model, objective, samples, picked(model, where))
    fisher, mean = oracles.fisher_diagonal(gradients), oracles.mean_gradient(gradients)
    assert farness(torch.cat([f.flatten() for f in found.fisher.values()]), fisher) <= 1e-12
    assert farness(torch.cat([m.flatten() for m in found.mean.values()]), mean) <= 1e-12


@pytest.mark.parametrize("case", ["last block and head", "attention projections"])
@pytest.mark.parametrize("cache_prefix", [False, True])
def test_general_form_in_single_precision(case, cache_prefix):
    name, where = CASES[case]
    model, objective, samples = task(name, torch.float32)
    found = parameter_influence(
        model, objective, samples, parameters=where, damping=DAMPING, chunk=3,
        cache_prefix=cache_prefix,
    ).scores  # fmt: skip
    assert found.dtype == torch.float32
    images = isinstance(samples.inputs, Tensor)
    wide = Samples(samples.inputs.double(), samples.targets) if images else samples
    gradients = oracles.gradients(model.double(), objective, wide, picked(model, where))
    assert farness(found, expected(gradients, "diagonal", "mean")) <= 1e-5


@each_case
@pytest.mark.parametrize("score", ["mean", "self"])
def test_general_form_without_curvature_is_told_apart(name, where, score):
    found = general(name, where, cache_prefix=True, score=score)
    assert farness(found.scores, reference(name, where, "identity", score)) > 0.1


@each_case
def test_aliasing_is_told_apart_by_the_general_form(name, where):
    model, objective, samples = task(name)
    gradients = oracles.gradients(model, objective, samples, picked(model, where))
    mean, seen = oracles.aliased_mean(gradients)
    assert farness(general(name, where).scores, expected(seen, "diagonal", "mean", mean)) > 0.1


@pytest.mark.parametrize("cache_prefix", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_chunk_does_not_matter(chunk, cache_prefix):
    name, where = CASES["last block and head"]
    found = general(name, where, chunk=chunk, cache_prefix=cache_prefix).scores
    assert farness(found, general(name, where, chunk=4).scores) <= 1e-12


@pytest.mark.parametrize("score", ["mean", "self"])
def test_general_form_equals_the_closed_form_on_the_head(score):
    model, objective, samples = task("resnet")
    features, logits = features_and_logits(model, objective, samples.inputs)
    closed = head_influence(features, logits, samples.targets, damping=DAMPING, score=score)
    assert farness(general("resnet", ["head"], score=score).scores, closed) <= 1e-12


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_the_batch_size_of_the_pass_does_not_matter(batch_size):
    model, objective, samples = task("resnet")
    features, logits = features_and_logits(model, objective, samples.inputs, batch_size)
    found = head_influence(features, logits, samples.targets, damping=DAMPING)
    assert farness(found, reference("resnet", ["head"])) <= 1e-12


def test_the_scores_of_a_set_do_not_depend_on_its_order():
    model, objective, samples = task("resnet")
    config = Config(parameters=("blocks.2",), chunk=2)
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    found = influence(model, objective, samples[order], config)
    assert farness(found, influence(model, objective, samples, config)[order]) <= 1e-12


def recorded(name: str, where):
    model, objective, samples = task(name)

    def losses(some: Samples) -> Tensor:
        return objective.losses(objective.logits(model, some.inputs), some.targets)

    model.eval()
    found = record(model, losses, samples, chosen(model, where).values(), 3)
    return model, losses, samples, found


@pytest.mark.parametrize(
    ("case", "stored", "unread"),
    [
        # The block adds its input to what it computes, so that an operation reads blocks.1.
        ("last block and head", {"blocks.1"}, {"stem", "blocks.0"}),
        (
            "one parameter",
            {"blocks.1.norm1", "blocks.1.shortcut"},
            {"stem", "blocks.0", "blocks.1.conv1"},
        ),
        ("first block", {"stem"}, set()),
        ("all parameters", set(), set()),
        ("inner layer of a sequence", {"hidden"}, {"embedding"}),
    ],
)
def test_what_is_read_is_stored_and_what_is_independent_not_run(case, stored, unread):
    model, losses, samples, found = recorded(*CASES[case])
    assert set(found.outputs) == stored
    assert found.unread == unread
    assert all(len(output) == len(samples) for output in found.outputs.values())
    run: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in stored | unread):
            module.register_forward_hook(lambda *_, name=name: run.append(name))
    right = losses(samples)
    run.clear()
    with replaying(model, found, found.rows(slice(None))):
        assert farness(losses(samples), right) <= 1e-12
    assert run == []


def test_a_failure_puts_the_network_back():
    name, where = CASES["last block and head"]
    model, losses, samples, found = recorded(name, where)
    right, state = losses(samples), {n: p.requires_grad for n, p in model.named_parameters()}
    with pytest.raises(RuntimeError), replaying(model, found, found.rows(slice(None))):
        raise RuntimeError
    wrong = Samples(samples.inputs, samples.targets + 4)
    with pytest.raises(RuntimeError, match="out of bounds"):
        parameter_influence(
            model, IMAGES, wrong, parameters=where, damping=1.0, chunk=3, cache_prefix=True
        )
    assert torch.equal(losses(samples), right)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == state
    assert all("forward" not in vars(m) and not m._forward_hooks for m in model.modules())
    assert all(not m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("cache_prefix", [False, True])
@pytest.mark.parametrize("where", [("head",), ("blocks.2",), ("blocks.1.conv2.weight",)])
def test_the_network_is_left_as_it_was(where, cache_prefix):
    model, objective, samples = task("resnet")
    model.train()
    model.blocks[1].eval()
    model.stem.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    config = Config(parameters=where, chunk=3, cache_prefix=cache_prefix)
    found = influence(model, objective, samples, config)
    assert not found.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert farness(found, reference("resnet", where)) <= 1e-12


def test_a_frozen_parameter_can_be_chosen():
    model, objective, samples = task("resnet")
    model.requires_grad_(False)
    found = influence(model, objective, samples, Config(parameters=("blocks.2",)))
    assert farness(found, reference("resnet", ["blocks.2"])) <= 1e-12


@pytest.mark.parametrize("cache_prefix", [False, True])
@pytest.mark.parametrize(("chunk", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (64, [7])])
def test_no_more_gradients_than_the_chunk_are_held(chunk, sizes, cache_prefix):
    model, objective, samples = task("resnet")
    model.train()
    where = ["blocks.2", "head.bias"]
    found = []
    for gradients in per_sample_gradients(
        model, objective, samples, where, chunk, cache_prefix=cache_prefix
    ):
        assert list(gradients) == [
            n for n, _ in model.named_parameters() if n.startswith(tuple(where))
        ]
        assert all(not g.requires_grad for g in gradients.values())
        assert model.training
        found.append(torch.cat([g.flatten(1) for g in gradients.values()], 1))
    assert [len(rows) for rows in found] == sizes
    right = oracles.gradients(model, objective, samples, picked(model, where))
    assert farness(torch.cat(found), right) <= 1e-12


@pytest.mark.parametrize("score", ["mean", "self"])
def test_one_chunk_is_held_at_a_time_and_progress_told_of_each(score, monkeypatch):
    model, objective, samples = task("resnet")
    made: list[weakref.ref[Tensor]] = []
    alive, told = [], []

    def watched(*given, **choices):
        differentiate = vmap(*given, **choices)

        def run(*chunk):
            alive.append(sum(one() is not None for one in made))
            found = differentiate(*chunk)
            made.extend(map(weakref.ref, found.values()))
            return found

        return run

    monkeypatch.setattr(parameters, "vmap", watched)
    parameter_influence(
        model,
        objective,
        samples,
        parameters=["blocks.2"],
        damping=DAMPING,
        chunk=3,
        score=score,
        progress=lambda *now: told.append(now),
    )
    assert len(alive) == (3 if score == "mean" else 6)
    assert max(alive) <= 1  # the parameter that was taken out last
    assert told == [(n, 14) for n in (3, 6, 7, 10, 13, 14)]


def test_what_gradients_take_is_known_before():
    model, objective, samples = task("resnet")
    block = sum(p.numel() for p in model.blocks[2].parameters())
    assert gradient_bytes(model, ["blocks.2"], 5) == 5 * block * 8  # float64
    assert held_bytes(model, objective, samples, Config()) == 0  # the head has a closed form


def test_the_stage_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(stage, "EVERY", 0.0)
    model, objective, samples = task("resnet")
    asked = Config(parameters=("blocks.2",), chunk=4)
    stage.scored(model, objective, samples, asked, stage._telling())
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" in ")[0] for line in said] == [
        f"influence: {share} %" for share in (29, 50, 79, 100)
    ]


def test_parameters_are_chosen_by_name_or_as_modules():
    model, _, _ = task("resnet")
    every = [name for name, _ in model.named_parameters()]
    block = [name for name in every if name.startswith("blocks.1.")]
    assert list(chosen(model, ["blocks.1"])) == list(chosen(model, [model.blocks[1]])) == block
    assert list(chosen(model, ["head.bias", model.head])) == ["head.weight", "head.bias"]
    assert list(chosen(model, [model])) == list(chosen(model, [""])) == every


def test_a_tied_parameter_is_chosen_once_by_either_name():
    model, objective, samples = task("tokens")
    model.inner = nn.Linear(6, 5, dtype=torch.float64)
    model.head = nn.Linear(5, 11, bias=False, dtype=torch.float64)
    model.head.weight = model.embedding.weight
    assert list(chosen(model, ["head"])) == list(chosen(model, ["head.weight", "embedding"]))
    found = influence(model, objective, samples, Config(parameters=("head",), chunk=3))
    gradients = oracles.gradients(model, objective, samples, [model.embedding.weight])
    assert farness(found, expected(gradients, "diagonal", "mean")) <= 1e-12


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (["fc"], r"Tokens has no module or parameter 'fc': choose from embedding, hidden, hid"),
        ([nn.Linear(2, 3)], r"Tokens has no module or parameter Linear\(.*: choose from embedd"),
        (["hidden.1"], r"module 'hidden\.1' has no parameters"),
        ([], "no parameters are chosen"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(where, message):
    with pytest.raises(ValueError, match=message):
        general("tokens", where)


@pytest.mark.parametrize("where", [("head",), ("blocks.2",)])
@pytest.mark.parametrize("cache_prefix", [False, True])
def test_a_bad_sample_is_named(where, cache_prefix):
    model, objective, samples = task("resnet")
    samples.inputs[4, 0, 2, 2] = float("nan")
    config = Config(parameters=where, chunk=3, cache_prefix=cache_prefix)
    with pytest.raises(FloatingPointError, match="influence of sample 4 is nan"):
        influence(model, objective, samples, config)


def test_a_squared_gradient_that_overflows_is_named():
    features = torch.tensor([[1.0], [1e30], [2.0]])
    with pytest.raises(FloatingPointError, match="sample 1 is nan: its squared gradient is not"):
        head_influence(features, torch.zeros(3, 2), torch.tensor([0, 1, 0]), damping=1.0)
