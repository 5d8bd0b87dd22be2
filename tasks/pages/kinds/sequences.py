"""Sequences of states: what is held to follow, and how far off that is after each state."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pandas as pd

from imu.datasets.common.sequences import Sequences, said
from tasks.pages.kinds import Part, part_of_one, short

DEFAULT = "imu_sequences"
TESTED = ", on the next states of sequences that it never saw: they are drawn by chance"
CONFIDENCE = "confidence in the truth"
TOLD = ""
SAYS = {"original_": "original", "reference_": "reference", "": "this model"}


def influential(data: Sequences, parts: Mapping[str, pd.DataFrame]) -> list[Part]:
    header = ["chain", "sequence", "influence", "loss"]
    return [
        Part(
            title,
            table=[
                header,
                *(
                    [*_sequence(data, row.row), short(row.influence), short(row.loss)]
                    for row in part.itertuples()
                ),
            ],
        )
        for title, part in parts.items()
    ]


def slices(data: Sequences, parts: Mapping[str, tuple[pd.DataFrame, str]]) -> list[Part]:
    """Each sequence with the most probable next states by this model."""
    found = []
    for title, (part, column) in parts.items():
        rows = [
            [*_sequence(data, row["row"]), str(row["said"]), part_of_one(row[column])]
            for _, row in part.iterrows()
        ]
        header = ["chain", "sequence", "most probable after each state", column]
        found.append(Part(title, table=[header, *rows]))
    return found


def whole(data: Sequences, table: pd.DataFrame) -> list[Part]:
    """Divergence from what the chains that stay foretell, by the state that is known last."""
    parts = []
    known = {prefix: who for prefix, who in SAYS.items() if f"{prefix}divergence" in table}
    for of, name in (("forget", "Forget"), ("retain", "Retain")):
        rows = table[table["set"] == of]
        means = {who: _by_state(rows, f"{prefix}divergence") for prefix, who in known.items()}
        states = sorted(next(iter(means.values())))
        parts.append(
            Part(
                f"{name} set, by state: nats from what the chains that stay foretell",
                table=[
                    ["after state", *map(str, states)],
                    *(
                        [who, *(f"{of_who[s]:.3f}" for s in states)]
                        for who, of_who in means.items()
                    ),
                ],
            )
        )
    return parts


def _by_state(rows: pd.DataFrame, column: str) -> dict[int, float]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for states, nats in zip(rows["asked"], rows[column], strict=True):
        for state, value in zip(states.split(), nats.split(), strict=True):
            found[int(state)].append(float(value))
    return {state: float(np.mean(values)) for state, values in found.items()}


def _sequence(data: Sequences, row: int) -> list[str]:
    return [str(data.attributes["subject"][row]), said(data.states[row])]


def shown(data: Sequences, rows: list[int]) -> dict[str, list[str]]:
    """Some rows for a table: the chain, and the sequence."""
    return {
        "subject": data.attributes["subject"][rows].tolist(),
        "sequence": [said(states) for states in data.states[rows]],
    }
