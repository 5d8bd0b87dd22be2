"""EK-FAC, and scores for pairs, against matrices that are written out."""

import pytest
import torch
from torch import Tensor, nn

import imu
from imu.influences import Config, influence, layer_influence, pairs, parameter_influence
from imu.objectives import Samples
from tests import oracles
from tests.problems import DAMPING, farness, picked, reference, task

torch.set_num_threads(1)
WHERE = ("stem", "blocks.2", "head")
EXACT = 1e-10  # of a solved system of a few hundred equations


def written_out(name: str, where=WHERE, n: int = 7) -> tuple[Tensor, Tensor]:
    """Gradients (n, P) and the EK-FAC matrix (P, P)."""
    model, objective, samples = task(name, n=n)
    own = picked(model, where)
    fisher = oracles.fisher_ekfac(model, objective, samples, own)
    return oracles.gradients(model, objective, samples, own), fisher


@pytest.mark.parametrize(
    ("name", "where"), [("resnet", WHERE), ("resnet", ("head",)), ("tokens", ("inner", "hidden"))]
)
@pytest.mark.parametrize("score", ["mean", "self"])
@pytest.mark.parametrize("chunk", [3, 64])
def test_ekfac_equals_the_matrix_written_out(name, where, score, chunk):
    gradients, fisher = written_out(name, where)
    towards = oracles.mean_gradient(gradients) if score == "mean" else None
    right = oracles.influence_full(gradients, fisher, DAMPING, towards)
    choices = {"score": score, "parameters": where, "chunk": chunk}
    found = influence(*task(name), Config(fisher="ekfac", **choices))
    assert farness(found, right) <= EXACT
    # Neither without curvature nor without the turn.
    assert farness(found, reference(name, where, "identity", score)) > 0.1
    assert farness(found, reference(name, where, "diagonal", score)) > 0.01


def test_the_mean_gradient_is_turned_back():
    choices = {"parameters": WHERE, "damping": DAMPING, "chunk": 3}
    plain, along = (
        layer_influence(*task("resnet"), fisher=fisher, **choices).mean
        for fisher in ("diagonal", "ekfac")
    )
    assert {name: value.shape for name, value in along.items()} == {
        name: value.shape for name, value in plain.items()
    }
    assert all(farness(along[name], plain[name]) <= EXACT for name in plain)


@pytest.mark.parametrize("fisher", ["diagonal", "full", "ekfac"])
def test_pairs_equal_the_system_solved_for_each(fisher):
    where = ("head",) if fisher == "full" else WHERE
    model, objective, samples = task("resnet", n=12)
    train, queries = samples[:7], samples[7:]
    own = picked(model, where)
    g, asked = (oracles.gradients(model, objective, of, own) for of in (train, queries))
    matrix = {
        "diagonal": lambda: oracles.fisher_diagonal(g).diag(),
        "full": lambda: oracles.fisher_full(g),
        "ekfac": lambda: oracles.fisher_ekfac(model, objective, train, own),
    }[fisher]()
    damped = matrix + DAMPING * torch.eye(len(matrix), dtype=torch.float64)
    right = torch.stack([g @ torch.linalg.solve(damped, q) for q in asked], 1)
    config = Config(parameters=where, fisher=fisher, chunk=3)
    found = imu.influence(model, train, query=queries, objective=objective, config=config)
    assert found.shape == (7, 5)
    assert farness(found, right) <= EXACT
    assert farness(found, g @ asked.T / (1 + DAMPING)) > 0.1


@pytest.mark.parametrize(
    ("name", "fisher"),
    [
        *[("resnet", fisher) for fisher in ("diagonal", "full", "ekfac")],
        *[("attention", fisher) for fisher in ("diagonal", "ekfac")],
    ],
)
def test_pairs_of_the_training_samples_are_their_influence(fisher, name):
    model, objective, samples = task(name)
    config = Config(fisher=fisher, parameters=("head",))
    found = pairs(model, objective, samples, samples, config)
    for score, right in (("mean", -found.mean(1)), ("self", found.diagonal())):
        own = influence(
            model, objective, samples, Config(fisher=fisher, parameters=("head",), score=score)
        )
        assert farness(own, right) <= EXACT


def test_what_ekfac_does_not_know_is_refused():
    class Turned(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.T

    model, objective, samples = task("resnet")
    model.head = Turned(8, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"fisher must be diagonal where .* got ekfac for head"):
        influence(model, objective, samples, Config(fisher="ekfac", parameters=("head",)))


def test_a_query_whose_gradient_is_not_finite_is_not_passed_over():
    model, objective, samples = task("resnet")
    inputs = samples.inputs.clone()
    inputs[0] = torch.nan
    with pytest.raises(FloatingPointError, match="influence of sample 0 is nan"):
        pairs(model, objective, samples, Samples(inputs, samples.targets), Config())


@pytest.mark.parametrize(
    ("where", "fisher"),
    [(("head",), "diagonal"), (("head",), "full"), (WHERE, "diagonal"), (WHERE, "ekfac")],
)
def test_a_share_of_the_diagonal_is_added_to_the_damping(where, fisher):
    model, objective, samples = task("resnet")
    gradients = oracles.gradients(model, objective, samples, picked(model, where))
    same = DAMPING + 0.3 * float(oracles.fisher_diagonal(gradients).mean())
    given = [Config(parameters=where, fisher=fisher, damping_share=0.3)]
    given.append(Config(parameters=where, fisher=fisher, damping=same))
    for ask in (
        lambda config: influence(model, objective, samples, config),
        lambda config: pairs(model, objective, samples, samples[:2], config),
    ):
        shared, plain = (ask(config) for config in given)
        assert farness(shared, plain) <= EXACT
        assert farness(ask(Config(parameters=where, fisher=fisher)), plain) > 1e-4
    found = parameter_influence(
        model, objective, samples, parameters=where, damping=DAMPING, damping_share=0.3, chunk=3
    )
    assert found.damping == pytest.approx(same, rel=1e-12)
