"""What a language model says of texts, and how that is found out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    from imu.datasets.common.texts import Texts
    from imu.models.common.tokens import Tokens
    from imu.objectives import Objective

IN_FULL = ("forget", "retain")  # sets that also answer freely and to other wordings
MOST = 200  # samples of a set besides the forget set: a share of them to 7 points in 95 of 100
LONGER = 8  # tokens that a free answer may have beyond the true one


class Asked(NamedTuple):
    """How many samples of a set there are, have another wording, or have a wrong answer."""

    samples: int
    subjects: int
    other_prompts: int
    other_answers: int
    wrong: int


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one language model says about each set: "forget", "retain", "validation", "test".

    Of the latter two no model saw a subject. T: positions, the end of an answer is one that is
    predicted. Log-probabilities are in nats, at least −100, and so is what is not a number.

    token_log_probabilities: (n, T), of the true answers' tokens; NaN where nothing is predicted.
    standardised: (n, T), (log p_y − μ) / σ with mean and deviation of log p under p itself.
    right: (n, T), 1.0 where the most probable token is the true one, else 0.0.
    other: (n,), mean log-probability per token of the answer in other words; NaN where none.
    asked_otherwise: (n,), of the answer when the question has other words; NaN where none.
    wrong: (n, k), of each wrong answer; NaN where fewer.
    generated: greedy answers, up to ``LONGER`` tokens longer than the true ones.
    given, wanted: what they answer to, and what they should be; a document is continued from its
    first half. prompts, answers: all of both. subjects: (n,). seed: of attacks that draw samples.
    ``other``, ``asked_otherwise``, ``wrong`` and ``generated`` are of the sets ``IN_FULL``.
    """

    objective: ClassVar[str] = "language"
    token_log_probabilities: dict[str, np.ndarray]
    standardised: dict[str, np.ndarray]
    right: dict[str, np.ndarray]
    other: dict[str, np.ndarray]
    asked_otherwise: dict[str, np.ndarray]
    wrong: dict[str, np.ndarray]
    generated: dict[str, tuple[str, ...]]
    given: dict[str, tuple[str, ...]]
    wanted: dict[str, tuple[str, ...]]
    prompts: dict[str, tuple[str, ...]]
    answers: dict[str, tuple[str, ...]]
    subjects: dict[str, np.ndarray]
    seed: int = 0

    def log_probability(self, name: str) -> np.ndarray:
        """Mean log-probability per token of the true answers, (n,)."""
        return means(self.token_log_probabilities[name])

    def in_form(self, name: str) -> np.ndarray:
        """The same of the true answers in the form of the wrong ones, (n,).

        That is the form of the other wording; of the answer itself where there is no other.
        """
        return np.where(np.isnan(self.other[name]), self.log_probability(name), self.other[name])

    @property
    def asked(self) -> dict[str, Asked]:
        def count(values: dict[str, np.ndarray], name: str) -> int:
            found = np.isfinite(values[name]) if name in values else np.zeros((0, 1), bool)
            return int((found.any(1) if found.ndim == 2 else found).sum())

        return {
            name: Asked(
                len(answers),
                len(np.unique(self.subjects[name])),
                *(count(values, name) for values in (self.asked_otherwise, self.other, self.wrong)),
            )
            for name, answers in self.answers.items()
        }

    def same_samples(self, other: "Said") -> bool:
        return self.prompts == other.prompts and self.answers == other.answers


def means(tokens: np.ndarray) -> np.ndarray:
    """Mean over the predicted positions of each sample: (n, T) with NaN elsewhere -> (n,)."""
    return np.array([row[~np.isnan(row)].mean() for row in tokens])


def drawn(
    rows: Mapping[str, Sequence[int]], *, seed: int, most: int = MOST
) -> dict[str, list[int]]:
    """All rows of the forget set and ``most`` of each other set, in order, to be asked about."""
    found = {}
    for number, (name, all_of) in enumerate(sorted(rows.items())):
        kept = np.random.default_rng([seed, number]).permutation(len(all_of))
        kept = kept if name == "forget" else kept[:most]
        found[name] = [int(all_of[k]) for k in sorted(kept)]
    return {name: found[name] for name in rows}


def asked_of(texts: "Texts", rows: Mapping[str, Sequence[int]]) -> dict[str, Asked]:
    """What ``Said.asked`` will be, without a model."""
    found = {}
    for name, chosen in rows.items():
        index = np.asarray(chosen, int)
        full = name in IN_FULL
        found[name] = Asked(
            len(index),
            len(np.unique(texts.attributes["subject"][index])),
            full * int((texts.other_prompts[index] != "").sum()),
            full * int((texts.other_answers[index] != "").sum()),
            full * sum(bool(texts.wrong[row]) for row in index),
        )
    return found


def lacking(
    asked: Mapping[str, Asked], needs: Mapping[str, Iterable[tuple[str, str, int]]]
) -> dict[str, str]:
    """Name -> why it cannot be measured; needs: name -> (set, field of ``Asked``, at least)."""
    kinds = {
        "samples": "{} samples",
        "subjects": "subjects in the {} set",
        "other_prompts": "{} questions with another wording",
        "wrong": "{} samples with wrong answers",
    }
    found: dict[str, str] = {}
    for name, conditions in needs.items():
        for of_set, kind, least in conditions:
            there = getattr(asked[of_set], kind) if of_set in asked else 0
            if there < least and name not in found:
                found[name] = f"needs {least} or more {kinds[kind].format(of_set)}, has {there}"
    return found


def said_of(
    model: "nn.Module",
    objective: "Objective",
    tokens: "Tokens",
    texts: "Texts",
    rows: Mapping[str, Sequence[int]],
    *,
    longest: int,
    seed: int = 0,
) -> Said:
    """What ``model`` says, in evaluation mode, of the rows of each set.

    longest: tokens that the network takes. Raises ValueError where a text has more.
    """
    from imu.metrics import _passes
    from imu.objectives import Samples

    def told(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Mean log-probability per token of each answer, NaN where it is "": (n,)."""
        values = np.full(len(answers), np.nan)
        if there := [i for i, answer in enumerate(answers) if answer]:
            pair = ([of[i] for i in there] for of in (prompts, answers))
            samples = Samples(*tokens.encode(*pair, longest=longest))
            values[there] = _passes.mean_log_probabilities(model, objective, samples)
        return values

    found = Said(**{field.name: {} for field in fields(Said) if field.name != "seed"}, seed=seed)
    for name, chosen in rows.items():
        index = np.asarray(chosen, int)
        prompts, answers = texts.prompts[index].tolist(), texts.answers[index].tolist()
        inputs, targets = tokens.encode(prompts, answers, longest=longest)
        forced = _passes.forced(model, objective, inputs, targets)
        found.token_log_probabilities[name] = forced.log_probabilities
        found.standardised[name] = forced.standardised
        found.right[name] = forced.right
        found.subjects[name] = texts.attributes["subject"][index]
        found.prompts[name], found.answers[name] = tuple(prompts), tuple(answers)
        if name not in IN_FULL:
            continue
        others, wrong = texts.other_prompts[index].tolist(), [texts.wrong[row] for row in index]
        k = max(map(len, wrong), default=0)
        found.other[name] = told(prompts, texts.other_answers[index].tolist())
        found.asked_otherwise[name] = told(
            others, [answer if other else "" for other, answer in zip(others, answers, strict=True)]
        )
        found.wrong[name] = told(
            [prompt for prompt in prompts for _ in range(k)],
            [answer for of in wrong for answer in (*of, *[""] * (k - len(of)))],
        ).reshape(len(index), k)
        found.given[name], found.wanted[name] = tuple(prompts), tuple(answers)
        given, true, found.generated[name] = _freely(
            model, objective, tokens, prompts, inputs, targets, forced.said, longest
        )
        if not all(prompts):
            pairs = zip(prompts, answers, given, true, strict=True)
            kept = [(prompt, a) if prompt else (half, rest) for prompt, a, half, rest in pairs]
            found.given[name], found.wanted[name] = zip(*kept, strict=True)
    return found


def _freely(
    model: "nn.Module",
    objective: "Objective",
    tokens: "Tokens",
    prompts: Sequence[str],
    inputs: "Tensor",
    targets: "Tensor",
    forced: np.ndarray,
    longest: int,
) -> tuple[tuple[str, ...], ...]:
    """What is given to be continued, what should follow, and what the model says instead.

    forced: int (n, T), the most probable tokens after the true ones, a guess of what it says.
    """
    from imu.metrics import _passes

    given, true, guesses = [], [], []
    for i, prompt in enumerate(prompts):
        at = np.flatnonzero(targets[i].numpy() >= 0)
        at = at if prompt else at[len(at) // 2 :]
        given.append(inputs[i, : at[0] + 1].tolist())
        true.append(targets[i, at].tolist())
        room = min(LONGER, longest - int(at[-1]) - 1)  # none where the context is full
        guesses.append(forced[i, at].tolist() + [tokens.end] * room)
    said = _passes.greedy(model, objective, given, guesses, tokens.end)
    return tuple(tuple(map(tokens.decode, texts)) for texts in (given, true, said))
