"""Passes of a language model over sequences, with few enough logits at a time.

Padding is on the right and attention causal, so no token sees it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from imu.models import evaluating
from imu.objectives import IGNORED, Objective, Samples, asked_positions

LOGITS = 2**22  # of a pass on a CPU at most, 16 MiB in float32; elsewhere 16 times as many
FLOOR = -100.0  # nats: a token that is suppressed has log 0, which no mean survives


class Forced(NamedTuple):
    """What a network says of each token of the true answers: four arrays (n, T).

    ``Said`` explains the first three; said: the most probable token at every position, int64.
    """

    log_probabilities: np.ndarray
    standardised: np.ndarray
    right: np.ndarray
    said: np.ndarray


@torch.no_grad()
def forced(model: nn.Module, objective: Objective, tokens: Tensor, targets: Tensor) -> Forced:
    values, standard, right = (np.full(tokens.shape, np.nan) for _ in range(3))
    said = np.zeros(tokens.shape, np.int64)
    for rows, logits in _passes(model, objective, tokens, asked_positions(targets)):
        wanted = targets[rows, : logits.shape[1]].to(logits.device)
        predicted = wanted != IGNORED  # (b, t)
        log_p, own = _log_probabilities(logits[predicted], wanted[predicted])
        p = log_p.exp()  # (predicted, vocabulary)
        mean = (p * log_p).sum(-1)
        deviation = ((p * log_p**2).sum(-1) - mean**2).clamp(min=0).sqrt()
        there = np.ix_(rows.numpy(), np.arange(logits.shape[1]))
        most = logits.argmax(-1)
        said[there] = most.cpu().numpy()
        for array, found in (
            (values, own),
            (standard, torch.where(deviation > 0, (own - mean) / deviation, 0.0)),
            (right, ((most == wanted)[predicted] & ~logits[predicted].isnan().any(-1)).double()),
        ):
            of_batch = np.full(predicted.shape, np.nan)
            of_batch[predicted.cpu().numpy()] = found.cpu().numpy()
            array[there] = of_batch
    return Forced(values, standard, right, said)


@torch.no_grad()
def mean_log_probabilities(model: nn.Module, objective: Objective, samples: Samples) -> np.ndarray:
    """Mean log-probability per predicted token of each sample: (n,)."""
    tokens, targets = samples.inputs, samples.targets
    if not isinstance(tokens, Tensor):
        raise TypeError(f"texts must be one tensor of tokens, got {type(tokens).__name__}")
    values = np.empty(len(tokens))
    for rows, logits in _passes(model, objective, tokens, asked_positions(targets)):
        wanted = targets[rows, : logits.shape[1]].to(logits.device)
        predicted = wanted != IGNORED  # (b, t)
        of_batch = torch.zeros(predicted.shape, dtype=torch.float64, device=logits.device)
        _, of_batch[predicted] = _log_probabilities(logits[predicted], wanted[predicted])
        values[rows.numpy()] = (of_batch.sum(1) / predicted.sum(1)).cpu().numpy()
    return values


@torch.no_grad()
def greedy(
    model: nn.Module,
    objective: Objective,
    given: list[list[int]],
    guesses: list[list[int]],
    end: int,
) -> list[list[int]]:
    """The most probable token after each ``given``, again and again, up to ``end``, without it.

    An answer has at most as many tokens as its guess, of which it depends on nothing else. Each
    pass asks at all positions at once what follows the guess so far, which is the next guess; one
    that the network says itself is the greedy answer. A pass settles one token or more, so a good
    guess saves passes. Jacobi decoding: Santilli et al. 2023, arXiv 2305.10427.
    """
    guesses, unsettled = list(guesses), list(range(len(given)))
    for _ in range(max(map(len, guesses), default=0) + 1):
        if not unsettled:
            break
        sequences = [torch.tensor(given[i] + guesses[i][:-1]) for i in unsettled]
        tokens = nn.utils.rnn.pad_sequence(sequences, batch_first=True)  # (unsettled, t)
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        still = []
        for rows, logits in _passes(model, objective, tokens, lengths):
            for row, said in zip(rows.tolist(), logits.argmax(-1).tolist(), strict=True):
                i = unsettled[row]
                said = said[len(given[i]) - 1 :][: len(guesses[i])]
                upto = said.index(end) + 1 if end in said else len(said)
                if said[:upto] != guesses[i][:upto]:
                    still.append(i)
                guesses[i] = said
        unsettled = still
    return [answer[: answer.index(end)] if end in answer else answer for answer in guesses]


def _passes(
    model: nn.Module, objective: Objective, tokens: Tensor, lengths: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of a batch (b,) and its logits (b, t, vocabulary), those of like length together."""
    if len(tokens) == 0:
        return
    with evaluating(model):
        first = objective.logits(model, tokens[:1, :1])  # (1, 1, vocabulary)
        most = LOGITS * (1 if first.device.type == "cpu" else 16) // first.shape[-1]  # tokens
        order = lengths.argsort(stable=True).cpu()
        at = len(order)
        while at > 0:  # the longest first
            longest = int(lengths[order[at - 1]])
            rows = order[max(0, at - max(1, most // longest)) : at]
            at -= len(rows)
            yield rows, objective.logits(model, tokens[rows, :longest])


def _log_probabilities(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """All (m, vocabulary) and those of the targets (m,), float64 and within the floor."""
    log_p = logits.double().log_softmax(-1).nan_to_num(nan=FLOOR).clamp(min=FLOOR)
    return log_p, log_p.gather(-1, targets[:, None])[:, 0]
