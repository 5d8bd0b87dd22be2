"""Text as tokens, and the small transformer that reads them."""

import json

import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from imu.datasets import Source, biographies
from imu.models import gpt_small, head_name
from imu.models.common.tokens import IGNORED, Tokens
from tests import oracles

PROMPTS = ["Where was Ada born?", "", "Wo wurde Zoë geboren?"]
ANSWERS = ["Lisbon", "Ada was born in Lisbon.", "in Malmö 北"]
SMALL = gpt_small.Config(width=8, layers=2, heads=2, hidden=12, vocabulary=300, context=40)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens.trained([*PROMPTS, *ANSWERS], 300)


def network(vocabulary: int = 300) -> torch.nn.Module:
    torch.manual_seed(0)
    return gpt_small.build(SMALL, vocabulary).double()


def test_rows_are_those_of_a_naive_layout(tokens):
    found, targets = tokens.encode(PROMPTS, ANSWERS, longest=100)
    rows, asked = oracles.layout(tokens, PROMPTS, ANSWERS)
    assert found.tolist() == rows
    assert targets.tolist() == asked
    assert found.dtype == targets.dtype == torch.int64


def test_the_targets_are_the_answer_and_its_end_to_the_token(tokens):
    found, targets = tokens.encode(PROMPTS, ANSWERS, longest=100)
    for row, wanted, prompt, answer in zip(found, targets, PROMPTS, ANSWERS, strict=True):
        asked = wanted[wanted != IGNORED]
        assert asked[-1] == tokens.end
        assert tokens.decode(asked.tolist()) == answer
        where = (wanted != IGNORED).nonzero().flatten()
        assert row[where[1:]].tolist() == asked[:-1].tolist()  # what was asked for comes next
        assert tokens.decode(row[: where[0] + 1].tolist()) == prompt
        assert tokens.decode(row.tolist()) == f"{prompt} {answer}".strip()
        assert row[0] == tokens.start
        assert (row[where[-1] + 1 :] == tokens.pad).all()
        assert where.tolist() == list(range(where[0], where[-1] + 1))


def test_a_long_sample_is_named(tokens):
    length = tokens.encode(PROMPTS, ANSWERS, longest=100)[0].shape[1]
    assert tokens.encode(PROMPTS, ANSWERS, longest=length)[0].shape == (3, length)
    alone = [
        tokens.encode([p], [a], longest=100)[0].shape[1]
        for p, a in zip(PROMPTS, ANSWERS, strict=True)
    ]
    longest = alone.index(length)
    with pytest.raises(ValueError, match=rf"sample {longest} is {length} tokens long, at most"):
        tokens.encode(PROMPTS, ANSWERS, longest=length - 1)


def test_nothing_is_encoded_to_nothing(tokens):
    assert [t.shape for t in tokens.encode([], [], longest=5)] == [(0, 0), (0, 0)]


def test_the_same_texts_give_the_same_tokenizer(tokens, tmp_path):
    assert Tokens.trained([*PROMPTS, *ANSWERS], 300).to_json() == tokens.to_json()
    biographies.write(tmp_path / "a", Source(people=8))
    data = biographies.load(tmp_path / "a")
    first, again = (Tokens.trained([*data.prompts, *data.answers], 600) for _ in range(2))
    assert first.to_json() == again.to_json() != tokens.to_json()
    assert first.size == 600


def test_a_tokenizer_survives_json(tokens):
    again = Tokens.from_json(tokens.to_json())
    assert again.to_json() == tokens.to_json()
    assert (again.size, again.start, again.end, again.pad) == (
        tokens.size,
        tokens.start,
        tokens.end,
        tokens.pad,
    )
    for one, other in zip(
        again.encode(PROMPTS, ANSWERS, longest=99),
        tokens.encode(PROMPTS, ANSWERS, longest=99),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"start": 1, "end": 2, "pad": 0, "tokenizer": 3}']
)
def test_what_is_no_tokenizer_is_refused(text):
    with pytest.raises(ValueError, match="this is no tokenizer"):
        Tokens.from_json(text)


def test_tokens_beyond_the_vocabulary_are_refused(tokens):
    stored = json.loads(tokens.to_json()) | {"end": tokens.size}
    with pytest.raises(ValueError, match=r"end must be in \[0, \d+\), got"):
        Tokens.from_json(json.dumps(stored))
    with pytest.raises(ValueError, match="size must be >= 259, got 258"):
        Tokens.trained(PROMPTS, 258)


# The network.


def loss(parameters, model, row, target):
    logits = functional_call(model, parameters, (row[None],))[0]
    return F.cross_entropy(logits, target, ignore_index=IGNORED)


def test_what_it_says_depends_on_nothing_to_the_right_nor_on_the_batch(tokens):
    found, _ = tokens.encode(PROMPTS, ANSWERS, longest=40)
    model = network()
    logits = model(found)
    assert logits.shape == (*found.shape, 300)
    for k, row in enumerate(found):
        length = int((row != tokens.pad).sum())
        alone = model(row[None, :length])[0]
        # Products over rows of another number add up in another order.
        torch.testing.assert_close(alone, logits[k, :length], rtol=0, atol=1e-12)
    changed = found.clone()
    changed[:, 3:] = 7
    assert torch.equal(model(changed)[:, :3], logits[:, :3])
    assert not torch.allclose(model(changed)[:, 3:], logits[:, 3:])
    changed = found.clone()
    changed[:, 0] = 7
    assert not torch.allclose(model(changed)[:, 2], logits[:, 2])  # but on all to the left


# torch compiles its forward derivatives with a tool that it calls out of date.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_gradients_of_samples_and_forward_derivatives_are_those_of_autograd(tokens):
    found, targets = tokens.encode(PROMPTS, ANSWERS, longest=40)
    model = network()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    together = vmap(grad(loss), (None, None, 0, 0))(parameters, model, found, targets)
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}
    for k in range(len(found)):
        model.zero_grad()
        loss(dict(model.named_parameters()), model, found[k], targets[k]).backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(together[name][k], p.grad, rtol=0, atol=1e-12)
        _, slope = jvp(
            lambda w, k=k: loss(w, model, found[k], targets[k]), (parameters,), (direction,)
        )
        expected = sum((p.grad * direction[name]).sum() for name, p in model.named_parameters())
        torch.testing.assert_close(slope, expected, rtol=1e-10, atol=0)


def test_every_setting_counts_and_the_head_is_found():
    shapes = {name: tuple(p.shape) for name, p in network().named_parameters()}
    assert shapes["words.weight"] == (300, 8)
    assert shapes["positions.weight"] == (40, 8)
    assert shapes["blocks.1.up.weight"] == (12, 8)
    assert "blocks.2.up.weight" not in shapes
    assert shapes["head.bias"] == (300,)
    assert head_name(network()) == "head"
    assert {block.heads for block in network().blocks} == {2}


def test_special_tokens_in_a_text_are_text(tokens):
    again = Tokens.from_json(tokens.to_json())
    for of in (tokens, again):
        rows, targets = of.encode(["say <start>"], ["use <end> or <pad> here"], longest=64)
        assert rows[0].tolist().count(of.start) == 1
        assert targets[0].tolist().count(of.end) == 1
        assert of.pad not in targets[0].tolist()
        assert "<end>" in of.decode(rows[0].tolist())


def test_it_learns(tokens):
    found, targets = tokens.encode(PROMPTS, ANSWERS, longest=40)
    model = network().float()
    optimizer = torch.optim.AdamW(model.parameters(), 0.03)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(found).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    right = model(found).argmax(-1) == targets
    assert right[targets != IGNORED].all()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 0, r"width must be in \[1, 65536\], got 0"),
        ("layers", 0, r"layers must be in \[1, 1024\], got 0"),
        ("heads", 3, r"width must be a multiple of heads \(3\), got 128"),
        ("hidden", 0, r"hidden must be in \[1, 65536\], got 0"),
        ("vocabulary", 0, r"vocabulary must be in \[1, 65536\], got 0"),
        ("context", 1, r"context must be in \[2, 65536\], got 1"),
    ],
)
def test_settings_out_of_range_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        gpt_small.Config(**{field: value})


def test_rows_beyond_the_context_are_refused():
    with pytest.raises(ValueError, match=r"at most 40 tokens \(context\), got 41"):
        network()(torch.zeros(1, 41, dtype=torch.int64))
