"""Sequences of Markov chains that keep to states of their own, and leave them now and then.

The published sequence experiment of IMU (arXiv 2508.01620), which took it from SimNPO (Fan et al.
2024, arXiv 2410.07163, section 5): 10 states, sequences of 20, 10,000 of a chain that stays and
5,000 of each of two that are forgotten. With k = states // chains, chain c has the states
c·k … c·k + k − 1 for its own; what remains, state 9 of 10, is nobody's.

    P(next | current)   (1 − leakage) / k       to each of its own states,
    from an own state   leakage / (states − k)  to each of the others
    from any other      1 / states              to each: nothing draws it back
    P(first)            as from an own state

So the chains have transition matrices of their own, and go over into each other's states with the
probability ``leakage``: a state alone does not tell which chain a sequence is of. Read from the
program of SimNPO; its paper leaves open what follows a foreign state. There rows of foreign states
are the leakage, normalised, which is uniform; with leakage 0 that is 0 / 0, here uniform as well.

The script of the published program trains its original on the first two chains alone; here it is
trained on all of them, and what is forgotten is what the request names. A sample is one sequence,
its subject the chain: "chain-1" is the one that the published experiment retains.
"""

from pathlib import Path

import numpy as np

from imu.datasets import Source, made_from
from imu.datasets.common import texts
from imu.datasets.common.sequences import Chain, Sequences, said

OBJECTIVE = "sequences"
NAME = "markov_chains"


def write(folder: Path, source: Source) -> None:
    """Draw ``source.sequences`` sequences of each chain; ``source.seed`` decides.

    Each chain is drawn apart and row by row, so that more sequences leave the first as they are.
    """
    import pandas as pd

    rows = []
    for number, (name, chain) in enumerate(chains(source).items()):
        draw = np.random.default_rng([source.seed, number])
        states = walks(chain, draw.random((source.sequences[number], source.length)))
        rows += [
            {"id": f"{name}-{row:05d}", "subject": name, "prompt": "", "answer": said(of)}
            for row, of in enumerate(states)
        ]
    settings = ("states", "length", "leakage", "sequences", "seed")
    texts.write(folder, NAME, pd.DataFrame(rows), source=source, settings=settings)


def load(folder: Path) -> Sequences:
    """Read what ``write`` wrote. Raises as ``texts.load`` does."""
    found = texts.load(folder, NAME)
    source = made_from(folder)
    if source is None:
        raise ValueError(f"{folder} does not say which chains it was drawn from")
    return Sequences(
        states=np.array([answer.split() for answer in found.answers], np.int64),
        ids=found.ids,
        chains=chains(source),
        attributes=found.attributes,
    )


def chains(source: Source) -> dict[str, Chain]:
    """The law of each chain, by its name."""
    count, each = source.states, source.states // len(source.sequences)
    found = {}
    for number in range(len(source.sequences)):
        own = slice(number * each, (number + 1) * each)
        row = np.full(count, source.leakage / (count - each))
        row[own] = (1 - source.leakage) / each
        law = np.full((count, count), 1 / count)
        law[own] = row
        found[f"chain-{number + 1}"] = Chain(row, law)
    return found


def walks(chain: Chain, uniform: np.ndarray) -> np.ndarray:
    """States (n, length) by numbers in [0, 1) of that shape, each the inverse of a distribution."""
    rows = np.vstack([chain.start, chain.law])  # the first state is drawn from row 0
    bounds = rows.cumsum(1)
    after = np.zeros_like(rows)
    after[:, :-1] = rows[:, :0:-1].cumsum(1)[:, ::-1]
    bounds[after == 0] = np.inf  # the last possible state, where rounding ends below 1
    states, at = np.empty(uniform.shape, np.int64), np.zeros(len(uniform), np.int64)
    for t in range(uniform.shape[1]):
        states[:, t] = (uniform[:, t, None] >= bounds[at]).sum(1)
        at = states[:, t] + 1
    return states
