"""How a number is spread over samples: a curve per model, the share of samples up to each value."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tasks.pages.charts import LEFT, RIGHT, Point, Stroke, Tick

STEPS = 40  # pieces of a curve
EVERY = 4  # of them ends in a dot, which says its number
TAIL = 0.01  # share of the values beyond either end of the axis
LOW, HIGH = 96.0, 4.0  # % of the height at which the shares 0 and 1 lie


class Shares(NamedTuple):
    names: list[tuple[str, str]]  # look and name of each curve
    strokes: list[Stroke]
    points: list[Point]
    ticks: list[Tick]


def shares(
    curves: Mapping[str, tuple[str, Sequence[float]]], named: Sequence[tuple[float, str]]
) -> Shares:
    """curves: name -> look, and the value of each sample. named: values that have a tick."""
    every = np.concatenate([values for _, values in curves.values()])
    ends = np.quantile(every, [TAIL, 1 - TAIL])
    low, high = min(ends[0], named[0][0]), max(ends[1], named[-1][0])

    def at(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (min(max(value, low), high) - low) / (high - low)

    strokes, points = [], []
    for name, (look, values) in curves.items():
        parts = np.linspace(0, 1, STEPS + 1)
        found = np.quantile(values, parts)
        places = [(at(v), LOW + (HIGH - LOW) * float(p)) for v, p in zip(found, parts, strict=True)]
        strokes += [Stroke(*one, *other, look) for one, other in pairwise(places)]
        points += [
            Point(
                *places[n], look, f"{name}: {100 * parts[n]:.0f} % up to {math.exp(found[n]):.2g}"
            )
            for n in range(0, STEPS + 1, EVERY)
        ]
    ticks = [Tick(at(value), text) for value, text in named]
    return Shares([(look, name) for name, (look, _) in curves.items()], strokes, points, ticks)
