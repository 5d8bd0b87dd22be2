"""What a network says of the next states of sequences, and what is true of them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from imu.datasets.common.sequences import Sequences
    from imu.objectives import Objective, Samples

FLOOR = -100.0  # nats; what is suppressed has log 0, which no mean survives


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """By set: "forget", "retain", "validation" and "test"; T positions, S states.

    log_probabilities: (n, T, S) in nats, at least −100, and so is what is not a number.
    states, targets: int64 (n, T), the state that is known last, and the one that follows.
    own: (n, T, S), the true law of what follows, by the chain that the sequence was drawn from.
    known: (n, T, S), what can be foretold by one who knows the chains that stay, and nothing else.
    subjects: (n,), the chains. seed: of attacks that draw samples.
    """

    objective: ClassVar[str] = "sequences"
    log_probabilities: dict[str, np.ndarray]
    states: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    own: dict[str, np.ndarray]
    known: dict[str, np.ndarray]
    subjects: dict[str, np.ndarray]
    seed: int = 0

    @property
    def asked(self) -> dict[str, int]:
        """How many sequences there are."""
        return {name: len(states) for name, states in self.states.items()}

    def same_samples(self, other: "Foretold") -> bool:
        return self.states.keys() == other.states.keys() and all(
            np.array_equal(states, other.states[name])
            and np.array_equal(self.targets[name], other.targets[name])
            for name, states in self.states.items()
        )


def foretold_of(
    model: "nn.Module",
    objective: "Objective",
    data: "Sequences",
    samples: "Mapping[str, Samples]",
    rows: Mapping[str, list[int]],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
) -> Foretold:
    """What ``model`` says of each set, in evaluation mode.

    samples: of ``rows`` of ``data``, by set. shares: of the chains that stay, see
    ``Sequences.known``.
    """
    found = Foretold(
        **{field.name: {} for field in fields(Foretold) if field.name != "seed"}, seed=seed
    )
    for name, chosen in rows.items():
        index = np.asarray(chosen, int)
        found.log_probabilities[name] = log_probabilities(model, objective, samples[name])
        found.states[name] = data.states[index, :-1]
        found.targets[name] = data.states[index, 1:]
        found.own[name], found.known[name] = data.own(index), data.known(index, shares)
        found.subjects[name] = data.attributes["subject"][index]
    return found


def log_probabilities(model: "nn.Module", objective: "Objective", samples: "Samples") -> np.ndarray:
    """Of every state at every position: float64 (n, T, S), within the floor."""
    from imu.objectives import predictions

    logits = predictions(model, objective, samples.inputs)
    found = logits.double().log_softmax(-1).nan_to_num(nan=FLOOR).clamp(min=FLOOR)
    return np.asarray(found.cpu().numpy())


def divergences(true: np.ndarray, log_probabilities: np.ndarray) -> np.ndarray:
    """KL(true ‖ p) = Σ_s true_s (log true_s − log p_s) in nats at every position: (n, T)."""
    from scipy.special import entr

    # Never below 0, but for rounding.
    return np.maximum(-entr(true).sum(-1) - (true * log_probabilities).sum(-1), 0.0)


def by_state(values: np.ndarray, states: np.ndarray) -> dict[int, float]:
    """Mean of ``values`` (n, T) over all positions at which a state is known last."""
    return {int(state): float(values[states == state].mean()) for state in np.unique(states)}


def lacking(asked: Mapping[str, int], needs: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """Name -> why it cannot be measured; needs: name -> (set, sequences at least)."""
    return {
        name: f"needs {least} or more {of} sequences, has {asked.get(of, 0)}"
        for name, (of, least) in needs.items()
        if asked.get(of, 0) < least
    }
