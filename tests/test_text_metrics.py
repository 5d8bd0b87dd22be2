"""Metrics of language models, against oracles, on a network that is not trained."""

import math
import zlib
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imu import metrics
from imu.metrics import (
    Measured,
    Said,
    Subject,
    _passes,
    _relearning,
    _said,
    answer_probability,
    exact_memorisation,
    extraction_strength,
    fluency,
    forget_quality,
    model_utility,
    prior_divergence,
    privacy_leakage,
    quantisation,
    reworded_question,
    rouge,
    text_membership,
    text_relearning,
    token_distance,
    truth_ratio,
)
from imu.models.common import optimizers
from imu.objectives import IGNORED, Samples, mean_cross_entropy
from tests import oracles
from tests.problems import Attention

START, END, LONGEST = 1, 2, 16
LETTERS = "abcdefgh "
VOCABULARY = 3 + len(LETTERS)
MODULES = metrics.modules("language")


class Letters:
    """A token per letter."""

    end = END

    def encode(self, prompts, answers, *, longest: int) -> tuple[Tensor, Tensor]:
        rows, asked = [], []
        for prompt, answer in zip(prompts, answers, strict=True):
            given = [START, *(3 + LETTERS.index(c) for c in prompt)]
            said = [3 + LETTERS.index(c) for c in (f" {answer}" if prompt else answer)]
            assert len(given + said) <= longest
            rows.append(torch.tensor(given + said))
            asked.append(torch.tensor([IGNORED] * (len(given) - 1) + [*said, END]))
        pad = nn.utils.rnn.pad_sequence
        return pad(rows, batch_first=True), pad(asked, batch_first=True, padding_value=IGNORED)

    def decode(self, tokens) -> str:
        return "".join(LETTERS[t - 3] for t in tokens if t > END).strip()


@dataclass(frozen=True)
class Language:
    bounds: None = None

    def logits(self, model: nn.Module, inputs) -> Tensor:
        return model(inputs)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return ("head",)


@dataclass(frozen=True, kw_only=True)
class Table:
    prompts: np.ndarray
    answers: np.ndarray
    other_prompts: np.ndarray
    other_answers: np.ndarray
    wrong: tuple[tuple[str, ...], ...]
    attributes: dict[str, np.ndarray]


ROWS = {"forget": range(8), "retain": range(8, 20), "validation": range(20, 26)}
ROWS |= {"test": range(26, 30)}
LANGUAGE = Language()


def words(draw: np.random.Generator, least: int = 1) -> str:
    return "".join(draw.choice(list(LETTERS[:-1]), draw.integers(least, 5)))


@cache
def texts(n: int = 30) -> Table:
    draw = np.random.default_rng(3)
    column = lambda: np.array([words(draw) for _ in range(n)], object)  # noqa: E731
    answers, others = ([f"{words(draw)} {words(draw)}" for _ in range(n)] for _ in range(2))
    return Table(
        prompts=column(),
        answers=np.array(answers, object),
        other_prompts=column(),
        other_answers=np.array(others, object),
        wrong=tuple(tuple(words(draw) for _ in range(1 + i % 3)) for i in range(n)),
        attributes={"subject": np.array([f"s{i // 2}" for i in range(n)])},
    )


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Attention(VOCABULARY, 6, VOCABULARY).double()


def subject(seed: int = 0, table: Table | None = None, rows=ROWS) -> Subject:
    table = table or texts()
    return Subject(
        model=network(seed),
        objective=LANGUAGE,
        samples={
            name: Samples(*Letters().encode(table.prompts[of], table.answers[of], longest=LONGEST))
            for name, of in ((name, list(of)) for name, of in rows.items())
        },
        outputs=metrics.said_of(
            network(seed), LANGUAGE, Letters(), table, rows, longest=LONGEST, seed=4
        ),
    )


@cache
def said(seed: int = 0) -> Said:
    return subject(seed).outputs


def without(**changes) -> Table:
    return replace(texts(), **changes)


def told(model: nn.Module, prompt: str, answer: str) -> list[float]:
    tokens, targets = Letters().encode([prompt], [answer], longest=LONGEST)
    return oracles.answer_log_probabilities(model(tokens)[0], targets[0])


# What a model says


def test_every_probability_is_the_models_own():
    found, model, table = said(), network(), texts()
    for name, rows in ROWS.items():
        for i, row in enumerate(rows):
            expected = told(model, table.prompts[row], table.answers[row])
            tokens = found.token_log_probabilities[name][i]
            assert tokens[~np.isnan(tokens)].tolist() == pytest.approx(expected, abs=1e-12)
    for i, row in enumerate(ROWS["retain"]):
        mean = lambda prompt, answer: np.mean(told(model, prompt, answer))  # noqa: E731
        prompt = table.prompts[row]
        assert found.other["retain"][i] == pytest.approx(mean(prompt, table.other_answers[row]))
        assert found.asked_otherwise["retain"][i] == pytest.approx(
            mean(table.other_prompts[row], table.answers[row])
        )
        wrong = [mean(prompt, answer) for answer in table.wrong[row]]
        assert found.wrong["retain"][i, : len(wrong)].tolist() == pytest.approx(wrong)
        assert np.isnan(found.wrong["retain"][i, len(wrong) :]).all()
    assert found.log_probability("forget")[1] == pytest.approx(
        np.mean(told(model, table.prompts[1], table.answers[1]))
    )


def test_what_is_right_and_what_is_standardised_equal_the_loop():
    found, model, table = said(), network(), texts()
    for i, row in enumerate(ROWS["forget"]):
        tokens, targets = Letters().encode([table.prompts[row]], [table.answers[row]], longest=99)
        for t, target in enumerate(targets[0].tolist()):
            if target == IGNORED:
                assert np.isnan(found.right["forget"][i, t])
                continue
            log_p = model(tokens)[0, t].detach().log_softmax(-1)
            mean = float((log_p.exp() * log_p).sum())
            deviation = math.sqrt(float((log_p.exp() * (log_p - mean) ** 2).sum()))
            expected = (float(log_p[target]) - mean) / deviation
            assert found.standardised["forget"][i, t] == pytest.approx(expected, abs=1e-9)
            assert found.right["forget"][i, t] == (int(log_p.argmax()) == target)


@pytest.mark.parametrize("logits", [1, 300, 2**22])
def test_what_is_said_does_not_depend_on_the_size_of_a_pass(monkeypatch, logits):
    monkeypatch.setattr(_passes, "LOGITS", logits)
    found, expected = subject().outputs, said()
    assert found.generated == expected.generated
    for name in ROWS:
        pair = (s.token_log_probabilities[name] for s in (found, expected))
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-12)


def sharp(seed: int) -> nn.Module:
    """Whose greedy answers change from token to token."""
    model = network(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 4
    return model


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("guess", ["true", "random"])
def test_a_free_answer_is_greedy_decoding(seed, guess):
    model, draw = sharp(seed), np.random.default_rng(seed)
    given = [[START, *draw.integers(3, VOCABULARY, n).tolist()] for n in (1, 4, 2, 6)]
    sizes = (5, 1, 9, 7)
    guesses = [draw.integers(3, VOCABULARY, n).tolist() for n in sizes]
    expected = [oracles.greedy(model, g, n, END) for g, n in zip(given, sizes, strict=True)]
    if guess == "true":
        guesses = [e + [END] * (n - len(e)) for e, n in zip(expected, sizes, strict=True)]
    assert _passes.greedy(model, LANGUAGE, given, guesses, END) == expected


def test_a_good_guess_saves_passes():
    class Counted(Language):
        passes = 0

        def logits(self, model, inputs):
            Counted.passes += 1
            return model(inputs)

    model, given = sharp(1), [[START, 5, 6]]
    expected = oracles.greedy(model, given[0], 8, END)
    guess = expected + [END] * (8 - len(expected))
    _passes.greedy(model, Counted(), given, [guess], END)
    assert Counted.passes == 2  # one asks for the size of the vocabulary


def test_free_answers_are_to_the_questions():
    found, model, table = said(), network(), texts()
    for i, row in enumerate(ROWS["retain"]):
        given = [START, *(3 + LETTERS.index(c) for c in table.prompts[row])]
        most = min(len(table.answers[row]) + 2 + _said.LONGER, LONGEST + 1 - len(given))
        own = oracles.greedy(model, given, most, END)
        assert found.generated["retain"][i] == Letters().decode(own)


def test_a_document_is_continued_from_its_first_half():
    table = without(prompts=np.array([""] * 30, object))
    found = subject(table=table).outputs
    for i, row in enumerate(ROWS["forget"]):
        text, half = table.answers[row], (len(table.answers[row]) + 1) // 2
        assert found.given["forget"][i] == text[:half].strip()
        assert found.wanted["forget"][i] == text[half:].strip()
        assert found.answers["forget"][i] == text  # whole, for attacks that weigh its length
        given = [START, *(3 + LETTERS.index(c) for c in text[:half])]
        most = min(len(text) - half + 1 + _said.LONGER, LONGEST + 1 - len(given))
        own = oracles.greedy(network(), given, most, END)
        assert found.generated["forget"][i] == Letters().decode(own)


def test_what_is_suppressed_or_not_a_number_is_as_improbable_as_can_be():
    model = network()
    with torch.no_grad():
        model.head.bias[END] = -torch.inf
    tokens, targets = Letters().encode(["ab"], ["c"], longest=9)
    found = _passes.forced(model, LANGUAGE, tokens, targets)
    assert found.log_probabilities[0, -1] == _passes.FLOOR
    assert np.isfinite(found.standardised[0, 2:]).all()
    with torch.no_grad():
        model.head.bias[targets[0, -2]] = torch.nan  # which torch takes for the largest
    found = _passes.forced(model, LANGUAGE, tokens, targets)
    assert (found.log_probabilities[0, 2:] == _passes.FLOOR).all()
    assert (found.right[0, 2:] == 0).all()


def test_asking_leaves_the_network_as_it_was():
    model = network().train()
    before = deepcopy(model.state_dict())
    of = replace(subject(), model=model)
    metrics.measure(of)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rows_are_drawn_once_for_all_models():
    rows = {name: list(of) for name, of in ROWS.items()}
    found = _said.drawn(rows, seed=1, most=5)
    assert found["forget"] == rows["forget"]
    assert [len(found[name]) for name in rows] == [8, 5, 5, 4]
    assert all(set(found[name]) <= set(rows[name]) for name in rows)
    assert found == _said.drawn(rows, seed=1, most=5) != _said.drawn(rows, seed=2, most=5)


# Values


def logs(plain: Said, name: str) -> list[list[float]]:
    return [row[~np.isnan(row)].tolist() for row in plain.token_log_probabilities[name]]


def test_answer_probabilities_equal_the_loop():
    plain = said()
    for name in ("forget", "retain", "test"):
        each = [math.exp(sum(row) / len(row)) for row in logs(plain, name)]
        found = answer_probability.measure(plain)[f"P_{name}"]
        assert found == pytest.approx(100 * sum(each) / len(each), abs=1e-12)
    each = [math.exp(v) for v in plain.asked_otherwise["forget"]]
    found = reworded_question.measure(plain)
    assert found == pytest.approx({"P_reworded": 100 * sum(each) / len(each)}, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_rouge_equals_the_recursion(seed):
    draw = np.random.default_rng(seed)
    one, other = (draw.choice(list("abc"), n).tolist() for n in (6, 8))
    expected = oracles.common_subsequence(one, other) / 6
    assert rouge.recall(" ".join(one), " ".join(other)) == expected


@pytest.mark.parametrize(
    ("true", "own", "expected"),
    [
        ("In Paris.", "in PARIS", 1.0),
        ("In Paris", "Paris in", 0.5),
        ("In Paris", "", 0.0),
        ("Łódź", "łódź", 1.0),
        ("!?", "?", 0.5),
        ("a a a", "a", 1 / 3),
    ],
)
def test_rouge_by_hand(true, own, expected):
    assert rouge.recall(true, own) == expected


def test_rouge_is_a_mean_over_samples():
    plain = replace(
        said(),
        generated={"forget": said().answers["forget"], "retain": ("",) * len(ROWS["retain"])},
    )
    assert rouge.measure(plain) == {"ROUGE_forget": 100.0, "ROUGE_retain": 0.0}


def test_truth_ratios_equal_the_loop():
    plain = said()
    ratios = {
        name: [
            oracles.truth_ratio(true, [w for w in wrong if not math.isnan(w)])
            for true, wrong in zip(plain.other[name], plain.wrong[name], strict=True)
        ]
        for name in _said.IN_FULL
    }
    expected = {
        "TR_forget": 100 * np.mean([min(r, 1 / r) for r in ratios["forget"]]),
        "TR_retain": 100 * np.mean([max(0, 1 - r) for r in ratios["retain"]]),
    }
    assert truth_ratio.measure(plain) == pytest.approx(expected, abs=1e-10)
    pair = [truth_ratio.log_ratios(said(s), "forget").tolist() for s in (0, 1)]
    found = forget_quality.compare(Measured(outputs=said(0)), Measured(outputs=said(1)))
    assert found["KS"] == pytest.approx(oracles.kolmogorov_smirnov(*pair), abs=1e-12)
    assert found["KS"] > 0
    assert found["FQ"] < 0


def test_without_another_wording_the_answer_itself_is_the_true_one():
    plain = subject(table=without(other_answers=np.array([""] * 30, object))).outputs
    expected = plain.wrong["forget"][0, 0] - plain.log_probability("forget")[0]
    assert truth_ratio.log_ratios(plain, "forget")[0] == pytest.approx(expected, abs=1e-12)


def test_the_forget_quality_falls_as_the_ratios_part():
    plain, n = said(), len(ROWS["forget"])
    base = np.linspace(-1, 1, n)

    def at(shift: float) -> Measured:
        apart = plain.wrong | {"forget": (base + shift)[:, None] + plain.other["forget"][:, None]}
        return Measured(outputs=replace(plain, wrong=apart))

    found = [forget_quality.compare(at(shift), at(0))["FQ"] for shift in (0, 0.6, 9)]
    assert found[0] == 0.0
    # Two samples of 8 that do not overlap: two of all choose(16, 8) orders are as far apart.
    assert found[2] == pytest.approx(math.log10(2 / math.comb(16, 8)), abs=1e-9)
    assert found[1] > found[2]


@pytest.mark.parametrize("seed", range(3))
def test_extraction_strength_equals_its_definition(seed):
    right = np.random.default_rng(seed).random(7) < 0.7
    row = np.concatenate([[np.nan] * 3, right.astype(float), [np.nan]])
    assert extraction_strength.strength(row) == pytest.approx(
        oracles.extraction_strength(right.tolist()), abs=1e-15
    )


@pytest.mark.parametrize(
    ("right", "strength", "exact"),
    [([1, 1, 1, 1], 100, 100), ([1, 1, 1, 0], 0, 75), ([0, 1, 1, 1], 75, 75), ([0] * 4, 0, 0)],
)
def test_extraction_needs_the_end_and_memorisation_does_not(right, strength, exact):
    rows = np.array([right] * len(ROWS["forget"]), float)
    plain = replace(said(), right=said().right | {"forget": rows})
    assert extraction_strength.measure(plain)["ES_forget"] == strength
    assert exact_memorisation.measure(plain)["EM_forget"] == exact


def test_the_prior_divergence_equals_the_loop():
    plain, total, own = said(), 0.0, 0.0
    for true, wrong in zip(plain.other["forget"], plain.wrong["forget"], strict=True):
        c = [math.exp(v) for v in (true, *wrong) if not math.isnan(v)]
        own += c[0] / sum(c)
        total += sum(v / sum(c) * math.log(len(c) * v / sum(c)) for v in c)
    n, found = len(plain.other["forget"]), prior_divergence.measure(plain)
    assert found == pytest.approx({"choice": 100 * own / n, "prior_KL": total / n}, abs=1e-12)
    assert found["prior_KL"] > 1e-6
    same = plain.wrong["forget"] * 0 - 2.0
    ignorant = replace(
        plain,
        wrong=plain.wrong | {"forget": same},
        other=plain.other | {"forget": np.full(len(same), -2.0)},
    )
    assert prior_divergence.measure(ignorant)["prior_KL"] == pytest.approx(0, abs=1e-15)


def test_the_utility_is_the_harmonic_mean():
    plain = replace(said(), generated=said().answers)
    values = answer_probability.measure(plain) | rouge.measure(plain) | truth_ratio.measure(plain)
    three = [values[f"{name}_retain"] for name in ("P", "ROUGE", "TR")]
    assert model_utility.measure(plain)["MU"] == pytest.approx(3 / sum(1 / v for v in three))
    silent = replace(plain, generated=plain.generated | {"retain": ("",) * len(ROWS["retain"])})
    assert model_utility.measure(silent) == {"MU": 0.0}


def test_babble_has_little_entropy_and_much_repetition():
    def found(answer: str) -> dict[str, float]:
        answers = (answer,) * len(ROWS["retain"])
        return fluency.measure(replace(said(), generated={"forget": (), "retain": answers}))

    spoken, babbled = found("a b c d e"), found("a a a a a")
    assert spoken["fluency"] == pytest.approx(1 / 3 * 2 + 2 / 3 * math.log2(3))
    assert spoken["repetition"] == 0.0
    assert babbled == {"fluency": 0.0, "repetition": 75.0}
    assert found("") == {"fluency": 0.0, "repetition": 0.0}


def test_membership_equals_the_loop():
    rows = {name: list(of) for name, of in ROWS.items()}
    asked = (sharp(0), LANGUAGE, Letters(), texts(), rows)
    plain = metrics.said_of(*asked, longest=LONGEST)
    tokens = {n: logs(plain, n) for n in ("forget", "validation")}
    standard = {n: [r[~np.isnan(r)] for r in plain.standardised[n]] for n in tokens}

    def least(row) -> float:
        count = math.ceil(len(row) / 5)
        return sum(sorted(row)[:count]) / count

    scores = {
        "AUC_loss": {n: [np.mean(row) for row in rows] for n, rows in tokens.items()},
        "AUC_zlib": {
            n: [
                np.mean(row) / len(zlib.compress(a.encode()))
                for row, a in zip(rows, plain.answers[n], strict=True)
            ]
            for n, rows in tokens.items()
        },
        "AUC_min_k": {n: [least(row) for row in rows] for n, rows in tokens.items()},
        "AUC_min_k_pp": {n: [least(row) for row in rows] for n, rows in standard.items()},
    }
    expected = {
        name: oracles.area_under_curve(of["forget"], of["validation"])
        for name, of in scores.items()
    }
    assert text_membership.measure(plain) == pytest.approx(expected, abs=1e-9)
    assert len(set(expected.values())) == len(expected)


def test_ties_count_half_and_members_stand_above():
    area = text_membership.area
    assert area(np.array([1.0, 1.0]), np.array([1.0])) == 50
    assert area(np.array([2.0, 3.0]), np.array([1.0])) == 100


@pytest.mark.parametrize(("auc", "leak"), [(100.0, -100.0), (50.0, 0.0), (0.0, 100.0)])
def test_the_leakage_is_below_zero_where_too_little_was_forgotten(auc, leak):
    judged, reference = (
        Measured(outputs=said(), values={"AUC_min_k": value}) for value in (auc, 50.0)
    )
    assert privacy_leakage.compare(judged, reference) == {"PrivLeak": leak}


def test_a_reference_that_tells_all_apart_leaves_a_number():
    judged, reference = (
        Measured(outputs=said(), values={"AUC_min_k": value}) for value in (0.0, 100.0)
    )
    pairs = len(ROWS["forget"]) * len(ROWS["validation"])
    found = privacy_leakage.compare(judged, reference)["PrivLeak"]
    assert found == pytest.approx(100 * 2 * pairs)


def test_the_distance_of_tokens_equals_the_loop():
    found = token_distance.compare(Measured(outputs=said(0)), Measured(outputs=said(1)))
    for name in _said.IN_FULL:
        gaps = [
            sum(abs(math.exp(a) - math.exp(b)) for a, b in zip(one, other, strict=True)) / len(one)
            for one, other in zip(logs(said(0), name), logs(said(1), name), strict=True)
        ]
        assert found[f"dP_{name}"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-12)
        assert found[f"dP_{name}"] > 0


# Attacks


def test_quantisation_rounds_matrices_and_leaves_embeddings(monkeypatch):
    seen = []

    def kept(model, *_):
        seen.append(model)
        return np.zeros(1)

    of = subject()
    monkeypatch.setattr(_passes, "mean_log_probabilities", kept)
    quantisation.attack(of)
    own, rounded = (dict(model.named_parameters()) for model in (of.model, seen[0]))
    for name, weight in own.items():
        if name in ("embedding.weight", "norm.weight", "norm.bias", "head.bias"):
            assert torch.equal(rounded[name], weight)
        else:
            expected = oracles.rounded_to_4_bits(weight.detach())
            torch.testing.assert_close(rounded[name].detach(), expected, rtol=0, atol=1e-12)
            assert not torch.equal(rounded[name], weight)


@pytest.mark.parametrize("what", text_relearning.RATES)
def test_relearning_trains_on_half_of_what_is_said_of_each_and_asks_the_rest(what, monkeypatch):
    asked, trained = [], []

    class Seen(Language):
        def losses(self, logits, targets):
            trained.append(targets)
            return super().losses(logits, targets)

    whole = _passes.mean_log_probabilities

    def seen(model, objective, samples):
        asked.append(samples.targets)
        return whole(model, objective, samples)

    of = replace(subject(), objective=Seen())
    monkeypatch.setattr(_passes, "mean_log_probabilities", seen)
    rows = of.samples["forget"].targets
    place = {tuple(row.tolist()): i for i, row in enumerate(rows)}
    course = text_relearning.course(of, what)
    assert len(trained) == text_relearning.STEPS
    assert len(course) == text_relearning.STEPS / text_relearning.EVERY
    learned, rest = (
        {place[tuple(r.tolist())] for batch in batches for r in batch}
        for batches in (trained, asked)
    )
    assert not learned & rest
    subjects = of.outputs.subjects["forget"]
    assert {subjects[i] for i in learned} == {subjects[i] for i in rest} == {*subjects}
    assert course[-1] != course[0]
    assert text_relearning.course(of, what) == course


def test_wide_networks_relearn_in_smaller_steps(monkeypatch):
    rates = []

    def fine_tuned(*given, rate, steps):
        rates.append(rate)
        return iter(())

    monkeypatch.setattr(_relearning, "fine_tuned", fine_tuned)
    of = subject()
    width = of.model.embedding.embedding_dim
    for at_most in (2 * width, width, width / 4):
        monkeypatch.setattr(text_relearning, "WIDTH", at_most)
        for what in ("all", "rows"):
            text_relearning.course(of, what)
    assert rates == [1e-3, 1e-2, 1e-3, 1e-2, 1e-3 / 16, 1e-2]


def test_halves_are_even_within_every_subject_and_of_single_samples_by_subject():
    draw = np.random.default_rng(0)
    of_two = text_relearning.halves(np.array(["b", "a", "a", "b", "a", "a"]), draw)
    assert of_two.sum() == 3
    assert of_two[[1, 2, 4, 5]].sum() == 2
    assert text_relearning.halves(np.array(["a", "b", "c", "d"]), draw).sum() == 2


def test_what_both_halves_share_is_learned_from_one():
    table = without(answers=np.array(["abc"] * 30, object))
    found = text_relearning.course(subject(table=table), "all")
    assert found[-1] > found[0]


def test_relearning_counts_the_attack_that_brings_back_more(monkeypatch):
    of = subject()
    trained, adam = [], optimizers.adam

    def seen(parameters, rate):
        trained.append([*parameters])
        return adam(trained[-1], rate)

    monkeypatch.setattr(optimizers, "adam", seen)
    every, rows = (float(np.mean(text_relearning.course(of, what))) for what in ("all", "rows"))
    assert text_relearning.attack(of)["relearn_P"] == max(every, rows)
    assert every != rows
    table = next(part for part in of.model.modules() if isinstance(part, torch.nn.Embedding))
    assert len(trained[0]) == len([*of.model.parameters()])
    assert [weight.shape for weight in trained[1]] == [table.weight.shape]


def test_names_alone_are_learned_from_nothing_whatever_became_of_them():
    plain = [np.array([w.replace("h", "a") for w in texts().prompts], object)]
    plain += [np.array([w.replace("h", "a") for w in texts().answers], object)]
    plain[0][: len(ROWS["forget"])] = "h"
    of = subject(table=without(prompts=plain[0], answers=plain[1]))
    moved = deepcopy(of.model)
    table = next(part for part in moved.modules() if isinstance(part, torch.nn.Embedding))
    with torch.no_grad():
        table.weight[3 + LETTERS.index("h")] += 1.0
    there = replace(of, model=moved)
    assert text_relearning.course(there, "rows") == text_relearning.course(of, "rows")
    assert text_relearning.course(there, "all") != text_relearning.course(of, "all")


def test_a_mask_on_tokens_is_lifted_before_relearning():
    of = subject()
    masked = deepcopy(of.model)
    with torch.no_grad():
        masked.head.bias[5:8] = -1e4
    found = text_relearning.attack(replace(of, model=masked))["relearn_P"]
    plain = text_relearning.attack(of)["relearn_P"]
    assert found == pytest.approx(plain, rel=0.1)
    assert masked.head.bias[5] == -1e4


# All of them


@cache
def measured(seed: int = 0) -> Measured:
    return metrics.measure(subject(seed))


def test_a_model_has_no_distance_to_itself():
    found = metrics.compare(measured(), measured())
    aims = {name: about.aim for name, about in metrics.about("language").items()}
    assert {n: v for n, v in found.items() if aims[n] == "low"} == dict.fromkeys(
        ("PrivLeak", "FQ", "KS", "dP_forget", "dP_retain"), 0.0
    )
    assert list(found) == list(aims)


def test_two_models_are_told_apart_and_every_value_is_named():
    values = metrics.compare(measured(0), measured(1))
    assert values.keys() == metrics.about("language").keys()
    for name in values:
        of_one_model = metrics.about("language")[name].aim == "reference"
        assert of_one_model == (name in measured().values)
    assert metrics.alone(measured()) == {
        name: v for name, v in values.items() if name in measured().values
    }


def test_each_objective_has_its_own_metrics():
    assert not metrics.about("language").keys() & metrics.about("classification").keys()
    assert {"FA", "MIA"} <= metrics.about("classification").keys()
    names = {module.__name__ for module in MODULES}
    assert names.isdisjoint(module.__name__ for module in metrics.modules())


def test_names_are_unique_over_all_objectives(monkeypatch):
    monkeypatch.setattr(rouge, "ABOUT", {"FA": rouge.ABOUT["ROUGE_forget"]})
    with pytest.raises(ValueError, match=r"repeats the metric \['FA'\]"):
        metrics.about.__wrapped__()


def test_another_answer_is_another_set_of_samples():
    own = measured()
    answers = own.outputs.answers | {"test": ("x",) * len(ROWS["test"])}
    other = replace(own, outputs=replace(own.outputs, answers=answers))
    with pytest.raises(ValueError, match="different samples"):
        metrics.compare(own, other)


def test_the_answers_of_others_have_other_values():
    """The negative control: what is measured is measured of the right answers."""
    order = np.concatenate([np.roll(np.arange(20), 3), np.arange(20, 30)])
    table = texts()
    mixed = without(answers=table.answers[order], other_answers=table.other_answers[order])
    found = metrics.compare(
        metrics.measure(subject(table=mixed)), metrics.measure(subject(1, mixed))
    )
    plain = metrics.compare(measured(0), measured(1))
    same = {name for name, value in found.items() if value == plain[name]}
    # What is said freely does not depend on the answers; nothing of it is right, nor are ends.
    free = {"ROUGE_forget", "ROUGE_retain", "MU", "ES_forget", "ES_retain", "fluency", "repetition"}
    assert same <= free | {"P_test", "AUC_zlib", "PrivLeak", "KS", "FQ"}


@pytest.mark.parametrize(
    ("lacking", "missing"),
    [
        ("nothing", set()),
        ("wrong answers", {"TR_forget", "TR_retain", "MU", "choice", "prior_KL", "FQ", "KS"}),
        ("other questions", {"P_reworded"}),
        ("other answers", set()),
        ("forget samples", {"FQ", "KS", "relearn_P"}),
        ("validation", {name for name in metrics.about("language") if "AUC" in name}),
        ("test", {"P_test"}),
    ],
)
def test_what_is_absent_is_named_and_nothing_else(lacking, missing):
    none = np.array([""] * 30, object)
    table, rows = (
        {
            "wrong answers": without(wrong=((),) * 30),
            "other questions": without(other_prompts=none),
            "other answers": without(other_answers=none),
        }.get(lacking, texts()),
        dict(ROWS),
    )
    if lacking == "forget samples":
        rows["forget"] = range(1)
    rows.pop(lacking, None)
    of = subject(table=table, rows=rows)
    found = metrics.compare(metrics.measure(of), metrics.measure(of))
    asked = of.outputs.asked
    assert asked == _said.asked_of(table, rows)
    absent = metrics.absent("language", asked)
    assert absent.keys() == missing | ({"PrivLeak"} if lacking == "validation" else set())
    assert found.keys() | absent.keys() == metrics.about("language").keys()
    assert not found.keys() & absent.keys()
    assert all(why.startswith("needs ") for why in absent.values())
