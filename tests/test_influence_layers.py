"""Influence by products, against one backward pass per sample."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from imu import influences as subject
from imu.influences import Config, held_bytes, influence, layer_influence, layers, parts
from imu.influences.operations import Recorder, Unfit
from imu.influences.parameters import gradient_bytes
from imu.objectives import IGNORED, Samples, mean_cross_entropy
from tests import oracles
from tests.problems import DAMPING, each_case, expected, farness, picked, reference, task

torch.set_num_threads(1)
EXACT = 1e-10
# An even kernel is what "same" pads unevenly.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


class Net(nn.Module):
    """Layers, and what is made of them: ``run(self, inputs)`` gives (n, *positions, classes)."""

    def __init__(self, run: Callable[["Net", Tensor], Tensor], **parts: nn.Module | nn.Parameter):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.run(self, inputs)


@dataclass(frozen=True)
class Task:
    """Cross-entropy at one or many positions."""

    bounds: None = None

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return model(inputs)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return ("",)


VECTORS, SEQUENCES, TOKENS, MAPS = (6, 5), (6, 4, 5), (6, 4), (6, 4, 7, 6)


def chain(*modules: nn.Module) -> Callable[[], Net]:
    def run(net: Net, inputs: Tensor) -> Tensor:
        out = net.chain(inputs)
        return out.mean((2, 3)) if out.dim() == 4 else out

    return lambda: Net(run, chain=nn.Sequential(*modules))


def convolution(*sizes: int, **options) -> Callable[[], Net]:
    return chain(nn.Conv2d(*sizes, **options), nn.Tanh(), nn.Conv2d(sizes[1], 3, 2))


def embedded(**parts) -> dict:
    return {"embedding": nn.Embedding(5, 4, padding_idx=1), "head": nn.Linear(4, 3)} | parts


def scaled() -> Net:
    """An RMS norm as language models write it out."""

    def run(net: Net, x: Tensor) -> Tensor:
        h = net.into(x)
        return net.head(net.weight * (h * h.square().mean(-1, keepdim=True).rsqrt()))

    return Net(run, into=nn.Linear(5, 4), weight=nn.Parameter(torch.rand(4)), head=nn.Linear(4, 3))


def tied() -> Net:
    """An embedding that is the head as well, and positions that all samples share."""

    def run(net: Net, tokens: Tensor) -> Tensor:
        x = net.embedding(tokens) + net.places(torch.arange(tokens.shape[1]))
        return net.head(x.tanh() + net.more)

    net = Net(
        run,
        embedding=nn.Embedding(5, 4, padding_idx=1),
        places=nn.Embedding(4, 4),
        more=nn.Parameter(torch.rand(1, 4, 4)),
        head=nn.Linear(4, 5, bias=False),
    )
    net.head.weight = net.embedding.weight
    return net


def indexed() -> Net:
    """Tables of parameters of which rows are taken, the same of all samples and others of each."""

    def run(net: Net, tokens: Tensor) -> Tensor:
        return net.head((net.words[tokens] + net.places[1 : tokens.shape[1] + 1]).tanh())

    words, places = (nn.Parameter(torch.rand(n, 4)) for n in (5, 6))
    return Net(run, words=words, places=places, head=nn.Linear(4, 3))


def twice() -> Net:
    """A layer that is called twice, a convolution that shares its weight, samples times places."""

    def run(net: Net, maps: Tensor) -> Tensor:
        maps = net.other(net.conv(net.conv(maps).tanh()).tanh())
        rows = maps.permute(0, 2, 3, 1).reshape(-1, 4)
        return net.head(net.norm(rows)).unflatten(0, (len(maps), -1)).mean(1)

    net = Net(
        run,
        conv=nn.Conv2d(4, 4, 3, padding=1),
        other=nn.Conv2d(4, 4, 3, padding=1, bias=False),
        norm=nn.LayerNorm(4),
        head=nn.Linear(4, 3),
    )
    net.other.weight = net.conv.weight
    return net


def transformer(batch_first: bool) -> Callable[[], Net]:
    def run(net: Net, tokens: Tensor) -> Tensor:
        x = net.embedding(tokens)
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=x.dtype)
        x = x if batch_first else x.transpose(0, 1)
        x = net.block(x, src_mask=mask, is_causal=True)
        return net.head(x if batch_first else x.transpose(0, 1))

    block = nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=batch_first)
    return lambda: Net(run, **embedded(block=block))


# What makes a network, and the form of its inputs.
NETWORKS = {
    "linear layers": (chain(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), VECTORS),
    "positions": (chain(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3, bias=False)), SEQUENCES),
    "convolution": (convolution(4, 6, 3, bias=False), MAPS),
    "stride and padding": (convolution(4, 6, (3, 2), stride=(2, 1), padding=(2, 1)), MAPS),
    "groups and dilation": (convolution(4, 6, 3, groups=2, dilation=2, padding=2), MAPS),
    "depthwise, same": (convolution(4, 4, (2, 3), groups=4, padding="same"), MAPS),
    "reflected": (convolution(4, 6, 3, padding=1, padding_mode="reflect"), MAPS),
    "one place": (convolution(4, 6, (6, 5)), MAPS),
    "embedding": (lambda: Net(lambda n, t: n.head(n.embedding(t)), **embedded()), TOKENS),
    "layer norm": (chain(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)), SEQUENCES),
    "RMS norm": (chain(nn.Linear(5, 4), nn.RMSNorm(4), nn.Linear(4, 3)), SEQUENCES),
    "RMS norm, written out": (scaled, SEQUENCES),
    "batch norm": (chain(nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)), MAPS),
    "batch norm of vectors": (chain(nn.BatchNorm1d(5), nn.Linear(5, 3)), VECTORS),
    "group norm": (chain(nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 3), nn.GroupNorm(1, 3)), MAPS),
    "tied": (tied, TOKENS),
    "rows of tables": (indexed, TOKENS),
    "called twice": (twice, MAPS),
    "transformer": (transformer(batch_first=True), TOKENS),
    "places first": (transformer(batch_first=False), TOKENS),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def given(name: str) -> tuple[nn.Module, Task, Samples]:
    """A network with parameters and statistics that are not the initial ones, and samples."""
    make, shape = NETWORKS[name]
    torch.manual_seed(4)
    model = deepcopy(make()).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    inputs = torch.rand(shape, dtype=torch.float64)
    # Few tokens, so that they repeat and are padding at times.
    inputs = torch.randint(0, 5, shape) if shape is TOKENS else inputs
    model.train()
    model(inputs)
    places = model(inputs).shape[:-1]
    targets = torch.randint(0, 3, places)
    if len(places) > 1:
        targets[:, 0] = targets[2, 1:] = IGNORED
        targets[2, 0] = 1
    return model.eval(), Task(), Samples(inputs, targets)


def right(name: str, where=("",), fisher: str = "diagonal", score: str = "mean") -> Tensor:
    model, objective, samples = given(name)
    return expected(
        oracles.gradients(model, objective, samples, picked(model, where)), fisher, score
    )


def by_products(name: str, where=("",), **choices):
    choices = {"damping": DAMPING, "chunk": 4, "cache_prefix": True} | choices
    return layer_influence(*given(name), parameters=where, **choices)


@each_network
@pytest.mark.parametrize("score", ["mean", "self"])
def test_products_equal_the_per_sample_loop(name, score):
    found = by_products(name, score=score).scores
    assert farness(found, right(name, score=score)) <= EXACT
    assert farness(found, right(name, fisher="identity", score=score)) > 0.1


@each_network
def test_pieces_equal_those_of_the_loop(name):
    found = by_products(name)
    model, objective, samples = given(name)
    gradients = oracles.gradients(model, objective, samples, list(model.parameters()))
    for pieces, own in (
        (found.fisher, oracles.fisher_diagonal(gradients)),
        (found.mean, oracles.mean_gradient(gradients)),
    ):
        assert farness(torch.cat([piece.flatten() for piece in pieces.values()]), own) <= EXACT


@each_network
def test_one_parameter_alone(name):
    for where, _ in given(name)[0].named_parameters():
        found = by_products(name, [where]).scores
        assert (found - right(name, [where])).abs().max() <= EXACT * right(name).abs().max()


@each_case
@pytest.mark.parametrize("cache_prefix", [False, True])
def test_products_equal_the_loop_behind_a_prefix(name, where, cache_prefix, monkeypatch):
    monkeypatch.setattr(layers, "_room", lambda *_: 0)  # all run twice
    model, objective, samples = task(name)
    for score in ("mean", "self"):
        found = layer_influence(
            model, objective, samples, parameters=where, damping=DAMPING, chunk=3,
            score=score, cache_prefix=cache_prefix,
        ).scores  # fmt: skip
        assert farness(found, reference(name, where, score=score)) <= EXACT


@pytest.mark.parametrize("name", ["tied", "groups and dilation", "transformer", "called twice"])
@pytest.mark.parametrize("score", ["mean", "self"])
@pytest.mark.parametrize("block", [8, 200, 10_000])
def test_neither_chunk_nor_block_matters(name, score, block, monkeypatch):
    monkeypatch.setattr(parts, "BLOCK", block)
    scores = right(name, score=score)
    for chunk in (1, 2, 5, 64):
        assert farness(by_products(name, chunk=chunk, score=score).scores, scores) <= EXACT


@pytest.mark.parametrize("score", ["mean", "self"])
def test_what_does_not_fit_is_run_again(score, monkeypatch):
    runs: list[int] = []
    record = Recorder.__init__

    def counted(self, names, samples, shared):
        runs.append(samples)
        record(self, names, samples, shared)

    monkeypatch.setattr(Recorder, "__init__", counted)
    told: list[tuple[int, int]] = []
    choices = {"chunk": 2, "score": score, "progress": lambda *now: told.append(now)}
    for room, ran in ((1e9, 3), (0, 6)):
        monkeypatch.setattr(layers, "_room", lambda *_, room=room: room)
        runs.clear()
        found = by_products("transformer", **choices).scores
        assert farness(found, right("transformer", score=score)) <= EXACT
        assert len(runs) - ran == 1  # the trial
    assert told == 2 * [(n, 12) for n in (2, 4, 6, 8, 10, 12)]


def test_no_more_gradients_than_a_block_are_written_out(monkeypatch):
    made: list[int] = []
    write = parts.Product.gradients

    def watched(self, samples):
        rows = write(self, samples)

        def written(cut):
            found = rows(cut)
            made.append(found.numel() * found.element_size())
            return found

        return written

    monkeypatch.setattr(parts.Product, "gradients", watched)
    monkeypatch.setattr(layers._Passes, "_try", lambda *_: None)  # which writes one out
    monkeypatch.setattr(parts, "BLOCK", 100)  # less than one gradient
    by_products("transformer", score="self")
    assert 60 < max(made) <= 100


def test_what_is_shared_is_held_once():
    given, deltas = torch.ones(3, 2, 5), torch.ones(2, 3, 2, 4)
    own = [parts.Product(given, delta.clone(), torch.Size((4, 5))) for delta in deltas]
    assert parts.held(own) == 4 * (given.numel() + deltas.numel())


def test_what_is_held_is_known_before(monkeypatch):
    model, objective, samples = task("resnet", n=40)
    config = Config(parameters=("blocks.2",), chunk=3)
    passes = layers._Passes(model, objective, samples, layers.chosen(model, ["blocks.2"]), 3)
    with passes.ready():
        held = [parts.held(passes.run(slice(at, at + 3)).values()) for at in (0, 3)]
    assert held[0] == held[1] > 0
    room = gradient_bytes(model, ["blocks.2"], 3)
    for least in (0, room - 1, room + 1):
        monkeypatch.setattr(layers, "KEPT", least)
        found = held_bytes(model, objective, samples, config)
        assert found == held[0] + max(least, room) < 40 * held[0] / 3
    # Where all is kept anyway, it is that.
    assert held_bytes(model, objective, samples[:3], replace(config, chunk=64)) == held[0]
    assert held_bytes(model, objective, samples[:0], config) == 0


def reversed_weight(net: Net, x: Tensor) -> Tensor:
    return net.head(x @ net.into.weight.T)


def routed(net: Net, x: Tensor) -> Tensor:
    """Each sample goes through a layer of its choice; the first two choose the same."""
    out = x.new_zeros(len(x), 4)
    chosen = x[:, 0] > x.new_tensor(0.45)
    for layer, rows in ((net.into, chosen), (net.more, ~chosen)):
        if rows.any():
            out = out.index_add(0, rows.nonzero()[:, 0], layer(x[rows]))
    return net.head(out)


def varying(net: Net, x: Tensor) -> Tensor:
    """More than two samples have two places each."""
    count = 2 if len(x) > 2 else 1
    return net.head(net.into(x.repeat_interleave(count, 0)).unflatten(0, (len(x), count)).mean(1))


def other_sequence(net: Net, x: Tensor) -> Tensor:
    x = x[:, :, None].expand(-1, -1, 4)
    return net.head(net.into(x, x.tanh(), x.tanh())[0].mean(1))


UNFIT = {
    "a weight that is turned": (reversed_weight, {"into": nn.Linear(5, 4)}),
    "samples that are routed": (routed, {"into": nn.Linear(5, 4), "more": nn.Linear(5, 4)}),
    "places that vary": (varying, {"into": nn.Linear(5, 4)}),
    "another sequence": (
        other_sequence, {"into": nn.MultiheadAttention(4, 2, batch_first=True)}
    ),
    "an embedding that is cut": (
        lambda net, x: net.head(net.into((5 * x).long()).mean(1)),
        {"into": nn.Embedding(5, 4, scale_grad_by_freq=True)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_not_known_takes_the_functional_form(name, monkeypatch):
    run, own = UNFIT[name]
    monkeypatch.setitem(NETWORKS, name, (lambda: Net(run, **own, head=nn.Linear(4, 3)), VECTORS))
    taken: list[str] = []
    monkeypatch.setattr(
        subject, "parameter_influence", lambda *_, **__: taken.append("functional") or FOUND
    )
    with pytest.raises(Unfit):
        by_products(name)
    assert influence(*given(name), Config(parameters=("",))) is FOUND.scores
    assert taken == ["functional"]
    if run not in (routed, varying):  # which shows only as more than two samples run
        held = held_bytes(*given(name), Config(parameters=("into",), chunk=4))
        assert held == gradient_bytes(given(name)[0], ["into"], 4)


@pytest.mark.parametrize("bad", [0, 1, 5])
def test_a_sample_whose_gradient_is_not_finite_is_named(bad):
    model, objective, samples = given("positions")
    samples.inputs[bad, 2] = torch.nan
    with pytest.raises(FloatingPointError, match=f"influence of sample {bad} is nan"):
        influence(model, objective, samples, Config(parameters=("",), chunk=2))


class FOUND:
    scores = torch.ones(())
