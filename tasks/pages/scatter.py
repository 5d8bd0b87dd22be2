"""Forgetting against utility, the field's usual picture: a dot per model, retraining as a cloud."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tasks.pages import findings
from tasks.pages.charts import FIRST, LEFT, RIGHT, Point, Tick
from tasks.pages.findings import Compared
from tasks.pages.plain import PLAIN

LOW, HIGH = 95.0, 6.0  # % of the height between which values lie
NEAR = (4.0, 5.0)  # % of width and height: dots nearer than that share a label
APART = (30.0, 6.0)  # a label is moved that comes nearer than that to another, or to a dot
LEAST = 2.5  # % of a side of the cloud, so that it is seen


class Label(NamedTuple):
    x: float
    y: float
    text: str
    anchor: str


class Cloud(NamedTuple):
    """From the left and from the top, with width and height."""

    x: float
    y: float
    width: float
    height: float


class Scatter(NamedTuple):
    """cloud: the reference and what was retrained with other seeds lie in it."""

    across: str
    up: str
    points: list[Point]
    labels: list[Label]
    cloud: Cloud
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def scatter(compared: Compared, looks: Mapping[str, str]) -> Scatter | None:
    """looks: model -> classes. None where nothing was retrained, or the two were not measured."""
    measured = compared.table.dropna(axis="columns", how="all").columns
    axes = findings.picture(measured)
    if axes is None or not compared.retrained:
        return None
    across, up = findings.explained(list(axes))
    known = compared.table[[*axes]].dropna()
    x, x_ticks = _scale(known[across.name].tolist(), LEFT, RIGHT)
    y, y_ticks = _scale(known[up.name].tolist(), LOW, HIGH)
    places = {str(m): (x(a), y(b)) for m, a, b in known.itertuples(name=None)}
    again = [*compared.of_kind("reference"), *compared.of_kind("retrained")]
    first = sorted(places, key=lambda m: looks[m] in FIRST)  # these lie on top
    return Scatter(
        _said(across),
        _said(up),
        [
            Point(*places[m], looks[m], f"{m}: {_value(compared, m, axes)}".replace("-", "−"))
            for m in first
        ],
        _labels(list(reversed(first)), places, again),
        _cloud([places[m] for m in again if m in places]),
        x_ticks,
        y_ticks,
    )


def _said(axis: findings.Explained) -> str:
    unit = f", {axis.unit}" if axis.unit else ""
    return f"{axis.name}{unit}: {PLAIN.get(axis.name, axis.meaning)}"


def _value(compared: Compared, model: str, axes: Sequence[str]) -> str:
    values = (f"{name} {findings.shown(name, compared.value(model, name))}" for name in axes)
    return ", ".join(values)


def _scale(
    values: Sequence[float], start: float, end: float
) -> tuple[Callable[[float], float], list[Tick]]:
    """From a value to its place in %, and the ticks: at round values within the data."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 1.0
    low, high = low - room, high + room

    def at(value: float) -> float:
        return start + (end - start) * (value - low) / (high - low)

    power = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(s for s in (5 * power, 2 * power, power) if (high - low) / s >= 2)
    first, last = math.ceil(low / step), math.floor(high / step)
    marks = [step * n for n in range(first, last + 1)]
    return at, [Tick(at(v), f"{round(v, 6):g}".replace("-", "−")) for v in marks]


def _labels(
    models: Sequence[str], places: Mapping[str, tuple[float, float]], again: Sequence[str]
) -> list[Label]:
    """Of dots that lie together the first model's name, and how many more there are."""
    labels: list[Label] = []
    left = [model for model in models if model not in again]
    while left:
        x, y = places[left[0]]
        near = [m for m in left if _near(places[m], (x, y), NEAR)]
        text = near[0] + (f" and {len(near) - 1} more" if len(near) > 1 else "")
        side = -1 if x > (LEFT + RIGHT) / 2 else 1
        down = 1 if y < (LOW + HIGH) / 2 else -1
        dots = [at for at in places.values() if 0 < side * (at[0] - x) < APART[0]]
        taken = [(x, height) for _, height in dots]
        taken += [(label.x, label.y) for label in labels]
        while any(_near((x, y), other, APART) for other in taken):
            y += down * APART[1]
        labels.append(Label(x, y, text, "end" if side < 0 else "start"))
        left = [m for m in left if m not in near]
    return labels


def _near(one: tuple[float, float], other: tuple[float, float], by: tuple[float, float]) -> bool:
    return abs(one[0] - other[0]) < by[0] and abs(one[1] - other[1]) < by[1]


def _cloud(places: Sequence[tuple[float, float]]) -> Cloud:
    """The box around what was retrained."""
    across, up = zip(*places, strict=True)
    width = max(max(across) - min(across), 0.0) + LEAST
    height = max(max(up) - min(up), 0.0) + 2 * LEAST
    return Cloud(min(across) - LEAST / 2, min(up) - LEAST, width, height)
