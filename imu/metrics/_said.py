"""What a language model says of texts, and how that is found out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from imu.datasets.common.texts import Texts
    from imu.models.common.tokens import Tokens
    from imu.objectives import Objective

IN_FULL = ("forget", "retain")  # sets that also answer freely and to other wordings
OTHER_WORDS = ("other", "asked_otherwise", "wrong")
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
    prompts, answers: what they answer to, and what they should be; a document is continued from
    its first half. subjects: (n,). seed: of attacks that draw samples.
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

    found: dict[str, dict[str, np.ndarray]] = {
        kind: {} for kind in ("token_log_probabilities", "standardised", "right", *OTHER_WORDS)
    }
    prompts, answers, generated, subjects = {}, {}, {}, {}

    def told(questions: Sequence[str], replies: Sequence[str]) -> np.ndarray:
        """Mean log-probability per token of each reply, NaN where it or its question is ""."""
        values = np.full(len(replies), np.nan)
        there = [i for i, pair in enumerate(zip(questions, replies, strict=True)) if all(pair)]
        if there:
            pair = [[texts[i] for i in there] for texts in (questions, replies)]
            values[there] = _passes.mean_log_probabilities(
                model, objective, *tokens.encode(*pair, longest=longest)
            )
        return values

    for name, chosen in rows.items():
        index = np.asarray(chosen, int)
        asked, true = ([str(t) for t in column[index]] for column in (texts.prompts, texts.answers))
        subjects[name] = texts.attributes["subject"][index]
        prompts[name], answers[name] = tuple(asked), tuple(true)
        inputs, targets = tokens.encode(asked, true, longest=longest)
        forced = _passes.forced(model, objective, inputs, targets)
        found["token_log_probabilities"][name] = forced.log_probabilities
        found["standardised"][name] = forced.standardised
        found["right"][name] = forced.right
        if name not in IN_FULL:
            continue
        found["other"][name] = told(asked, [str(t) for t in texts.other_answers[index]])
        found["asked_otherwise"][name] = told([str(t) for t in texts.other_prompts[index]], true)
        k = max((len(texts.wrong[row]) for row in index), default=0)
        perturbed = [(*texts.wrong[row], *[""] * (k - len(texts.wrong[row]))) for row in index]
        found["wrong"][name] = told(
            [question for question in asked for _ in range(k)], [t for of in perturbed for t in of]
        ).reshape(len(index), k)
        given, wanted, guesses = [], [], []
        for i, question in enumerate(asked):
            positions = (targets[i] >= 0).nonzero()[:, 0].tolist()
            positions = positions if question else positions[len(positions) // 2 :]
            given.append(inputs[i, : positions[0] + 1].tolist())
            wanted.append(targets[i, positions[:-1]].tolist())
            # The positions of a context that is full cannot be exceeded.
            room = min(LONGER, longest - positions[-1] - 1)
            guesses.append(forced.said[i, positions].tolist() + [tokens.end] * room)
        prompts[name] = tuple(
            q or tokens.decode(g).strip() for q, g in zip(asked, given, strict=True)
        )
        answers[name] = tuple(
            a if q else tokens.decode(w).strip()
            for q, a, w in zip(asked, true, wanted, strict=True)
        )
        said = _passes.greedy(model, objective, given, guesses, tokens.end)
        generated[name] = tuple(tokens.decode(answer).strip() for answer in said)
    return Said(
        **found,
        generated=generated,
        prompts=prompts,
        answers=answers,
        subjects=subjects,
        seed=seed,
    )
