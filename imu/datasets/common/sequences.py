"""Sequences of states that chains of a known law were drawn to, for ``imu.datasets``.

Because the law is known, so is what a network can know: ``Sequences.known`` is the best prediction
of the next state by one who knows some of the chains and nothing of the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np


class Chain(NamedTuple):
    """start: (states,), the law of the first state. law: (states, states), rows sum to 1."""

    start: np.ndarray
    law: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Sequences as stored, and the chains that they were drawn from.

    states: int64 (n, length), values in [0, count). ids: str (n,), unique.
    chains: name -> its law. attributes: name -> str (n,); "subject" is the chain of a sequence.

    Raises ValueError where shapes do not fit, an id is repeated, or a state or chain is unknown.
    """

    states: np.ndarray
    ids: np.ndarray
    chains: Mapping[str, Chain]
    attributes: Mapping[str, np.ndarray]
    objective: ClassVar[str] = "sequences"
    together: ClassVar[str] = ""  # unseen sequences are of every chain
    published_test: ClassVar[None] = None
    published_validation: ClassVar[None] = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.states.ndim != 2 or len(self.states) != n or self.states.shape[1] < 2:
            raise ValueError(f"states must have shape ({n}, 2 or more), got {self.states.shape}")
        if self.states.size and not 0 <= self.states.min() <= self.states.max() < self.count:
            raise ValueError(
                f"states must be in [0, {self.count}), got {self.states.min()} to "
                f"{self.states.max()}"
            )
        for name, array in self.attributes.items():
            if array.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), got {array.shape}")
        if "subject" not in self.attributes:
            raise ValueError(f"attributes must have 'subject', got {sorted(self.attributes)}")
        if unknown := sorted({*self.attributes["subject"].tolist()} - self.chains.keys()):
            raise ValueError(f"{unknown[0]!r} is none of the chains {', '.join(self.chains)}")
        if len({*self.ids.tolist()}) < n:
            raise ValueError("ids must be unique")

    @property
    def count(self) -> int:
        """How many states there are."""
        return len(next(iter(self.chains.values())).start)

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): all sequences are of one class, so that they are split as images are."""
        return np.zeros(len(self.ids), np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("sequence",)

    def content(self, row: int) -> bytes:
        """What a manifest holds the SHA-256 of."""
        return said(self.states[row]).encode()

    def summary(self) -> str:
        subjects, counts = np.unique(self.attributes["subject"], return_counts=True)
        of = ", ".join(f"{count} of {name}" for name, count in zip(subjects, counts, strict=True))
        n, length = self.states.shape
        return f"{n} sequences of {length} states, of {self.count} different ones: {of}"

    def own(self, rows: np.ndarray) -> np.ndarray:
        """True law of every next state, by the chain of the sequence: (n, length − 1, states)."""
        laws = np.stack([chain.law for chain in self.chains.values()])
        names = {name: number for number, name in enumerate(self.chains)}
        of = np.array([names[str(name)] for name in self.attributes["subject"][rows]], int)
        return laws[of[:, None], self.states[rows, :-1]]

    def known(self, rows: np.ndarray, shares: Mapping[str, float]) -> np.ndarray:
        """What can be foretold by one who knows some chains alone: (n, length − 1, states).

            q(x_{t+1} | x_1 … x_t) = Σ_c w_c P_c(x_{t+1} | x_t),
            w_c ∝ share_c · P_c(x_1) Π_{s<t} P_c(x_{s+1} | x_s)

        Bayes' rule over the chains: the least expected loss that there is. shares: chain -> its
        share of the sequences that are known, > 0. Where none of them can have made what was seen,
        w_c is the share.
        """
        states = self.states[rows]
        prior = np.array([*shares.values()], float)
        prior = np.log(prior / prior.sum())
        laws = np.stack([self.chains[name].law for name in shares])  # (c, states, states)
        with np.errstate(divide="ignore"):
            seen = np.log(np.stack([self.chains[name].start for name in shares])[:, states[:, 0]])
            logs = np.log(laws)
        foretold = np.empty((*states[:, 1:].shape, self.count))
        for t in range(states.shape[1] - 1):
            weights = prior[:, None] + seen  # (c, n)
            impossible = np.isneginf(weights).all(0)
            weights = np.where(impossible, prior[:, None], weights)
            weights = np.exp(weights - weights.max(0))
            weights /= weights.sum(0)
            foretold[:, t] = np.einsum("cn,cns->ns", weights, laws[:, states[:, t]])
            seen = seen + logs[:, states[:, t], states[:, t + 1]]
        return foretold


def said(states: np.ndarray) -> str:
    """A sequence for people: "3 4 5 3"."""
    return " ".join(map(str, states.tolist()))
