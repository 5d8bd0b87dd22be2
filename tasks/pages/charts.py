"""The figures of the report: positions in % of the width and height, which its template draws.

Without units a figure is as wide as the page, on a phone too, and its text is the page's.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from imu import verdicts
from tasks.pages import findings, summary
from tasks.pages.findings import Compared, Finding
from tasks.pages.plain import PLAIN
from tasks.pages.summary import Column

SETS = ("forget", "retain", "test")  # of a course; the last is drawn dashed
LIMIT = 40.0  # % of the width at which a test's limit lies
FARTHEST = 100.0  # times what is allowed, where the axis ends
LEFT, RIGHT = 1.5, 98.0  # % of the width between which values lie, so that dots are whole
BINS = 30
FIRST = ("best", "default")  # looks of the models that the page begins with
TESTS = 3  # of a question, on the first screen


class Dot(NamedTuple):
    at: float
    look: str  # classes of the style sheet
    title: str


class Line(NamedTuple):
    label: str
    note: str
    dots: list[Dot]
    text: str = ""  # beside the dots


class Tick(NamedTuple):
    at: float
    text: str


class Panel(NamedTuple):
    """Rows of dots over one axis. band: shaded from, to. mark: a line across all rows."""

    title: str
    note: str
    lines: list[Line]
    ticks: list[Tick]
    band: tuple[float, float] | None = None
    mark: float | None = None


class Stroke(NamedTuple):
    """A line from one point to the next, in % from the left and from the top."""

    x1: float
    y1: float
    x2: float
    y2: float
    look: str


class Point(NamedTuple):
    x: float
    y: float
    look: str
    title: str


class Course(NamedTuple):
    """Accuracy by step of one model. bands: where the retrained models are."""

    model: str
    strokes: list[Stroke]
    points: list[Point]
    bands: list[tuple[float, float, str]]  # top, height, set
    last: str  # step


class Bar(NamedTuple):
    x: float
    width: float
    y: float
    height: float
    look: str
    title: str


class Histogram(NamedTuple):
    bars: list[Bar]
    ticks: list[Tick]
    most: int
    note: str


TESTED = [
    Tick(_at, _text)
    for _at, _text in (
        (LEFT, "0"),
        (LIMIT, "limit"),
        (LIMIT + (RIGHT - LIMIT) / 2, "10×"),
        (RIGHT, "100×"),
    )
]


def tests(found: Sequence[Finding], question: str, looks: Mapping[str, str]) -> list[Panel | None]:
    """Every test of a question: how far each model lies on the bad side, in units of its limit.

    looks: model -> classes. Two panels, of the tests that say most about the models that stand
    first, and of the others; [] where no test was made.
    """
    shown = [f for f in found if f.kind != "retrained"]
    asked = list(dict.fromkeys(result.test for f in shown for result in f.of(question)))
    farthest = {
        test: max(
            (
                summary.times(r)
                for f in shown
                if looks[f.model] in FIRST
                for r in f.of(question)
                if r.test == test
            ),
            default=0.0,
        )
        for test in asked
    }
    named = findings.QUESTIONS[question]
    asked.sort(key=lambda test: (test.metric not in named or test.side == "below", -farthest[test]))
    if question == "What did it cost?":
        asked.sort(key=lambda test: test.metric not in named)
    lines = [_tested(shown, question, test, looks) for test in asked]
    parts = (lines[:TESTS], lines[TESTS:])
    panels = [
        Panel(question, "", part, TESTED, (0.0, LIMIT), LIMIT) if part else None for part in parts
    ]
    return panels if lines else []


def _tested(
    found: Sequence[Finding], question: str, test: verdicts.Criterion, looks: Mapping[str, str]
) -> Line:
    dots = [
        Dot(
            tested_at(summary.times(result)),
            looks[f.model],
            f"{f.model}: {test.metric} {findings.shown(test.metric, result.value)}; "
            + summary.against(result),
        )
        for f in found
        for result in f.of(question)
        if result.test == test
    ]
    dots.sort(key=lambda dot: dot.look in FIRST)  # the first models lie on top
    forgot_more = test.outcome == "distinguishable" and test.side == "below"
    note = PLAIN.get(test.metric, test.metric)
    return Line(test.metric, f"{note}{': too low' if forgot_more else ''}", dots)


def tested_at(times: float) -> float:
    """Linear to the limit, then logarithmic."""
    if times <= 1:
        return LEFT + (LIMIT - LEFT) * times
    return LIMIT + (RIGHT - LIMIT) * min(np.log(times) / np.log(FARTHEST), 1.0)


def values(
    compared: Compared, column: Column, order: Sequence[str], looks: Mapping[str, str]
) -> Panel:
    """One metric of every model; the reference as a line, and how far retraining varies, shaded."""
    found = {model: summary.value(compared, model, column.name) for model in order}
    about = findings.about().get(column.name)
    level = varies = None
    if about and compared.retrained:
        varies = compared.variability(column.name)
        if about.aim == "reference":
            level = compared.value(compared.reference, column.name)
    texts = {model: summary.printed(column.name, value) for model, value in found.items()}
    dots = {model: {f"{model}: {texts[model]}": value} for model, value in found.items()}
    return measured(column, dots, looks, texts, level, varies)


def measured(
    column: Column,
    dots: Mapping[str, Mapping[str, float]],
    looks: Mapping[str, str],
    texts: Mapping[str, str] | None,
    level: float | None,
    varies: float | None,
) -> Panel:
    """Values of one metric over its axis: a line per model, or one line where there are no texts.

    dots: model -> title of a dot and its value, NaN for none. texts: model -> what stands beside
    its dots. level: the reference's. varies: how far retraining lies from that, or from 0.
    """
    known = [v for of in dots.values() for v in of.values() if not math.isnan(v)]
    low, high = min([0.0, *known]), max([1e-9, varies or 0.0, *known])
    if column.unit == "%" and column.name != summary.WORK and known:
        low, high = _share(known, low, high)

    def at(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (min(max(value, low), high) - low) / (high - low)

    band = None
    if varies is not None:
        middle = low if level is None else level
        start = at(middle if level is None else middle - varies)
        band = (start, at(middle + varies) - start)
    drawn = {
        model: [Dot(at(v), looks[model], title) for title, v in of.items() if not math.isnan(v)]
        for model, of in dots.items()
    }
    if texts is None:
        together = sorted(chain(*drawn.values()), key=lambda dot: dot.look in FIRST)
        lines = [Line(column.header, column.plain, together)]
    else:
        lines = [Line(model, "", of, texts[model] or "–") for model, of in drawn.items()]
    ticks = [
        Tick(at(v), f"{v:.3g}" if v >= 10 else f"{v:.2g}") for v in (low, (low + high) / 2, high)
    ]
    mark = None if level is None else at(level)
    return Panel(column.header, column.plain, lines, ticks, band, mark)


def _share(known: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """From 0 to 100, or from a full ten where everything lies in the upper half."""
    least = min(known)
    return (min(10.0 * math.floor(least / 10), 90.0) if least > 50 else low), max(high, 100.0)


def course(model: str, table: pd.DataFrame, aims: Mapping[str, Sequence[float]]) -> Course:
    """aims: accuracy by set, of the reference first, then of those retrained with other seeds."""
    last = max(float(table["step"].max()), 1.0)

    def x(step: float) -> float:
        return 2 + 96 * step / last

    def y(accuracy: float) -> float:
        return 96 - 0.92 * accuracy

    strokes, points = [], []
    for name in SETS:
        rows = list(zip(table["step"], table[name], strict=True))
        strokes += [Stroke(x(a), y(b), x(c), y(d), name) for (a, b), (c, d) in pairwise(rows)]
        points += [
            Point(x(step), y(value), name, f"{model}, step {step:g}: {name} {value:.1f} %")
            for step, value in rows
        ]
    shown = {name: of for name, of in aims.items() if name in SETS}
    return Course(
        model,
        strokes,
        points,
        [(y(max(of)), y(min(of)) - y(max(of)), name) for name, of in shown.items()],
        f"{last:g}",
    )


def influences(table: pd.DataFrame) -> Histogram:
    """How many forget samples have which influence; the selected ones in colour."""
    scores, chosen = table["influence"].to_numpy(), table["selected"].to_numpy(dtype=bool)
    width, ticks = _asinh(scores)
    low, high = np.arcsinh(scores.min() / width) - 1e-6, np.arcsinh(scores.max() / width) + 1e-6
    edges = np.linspace(low, high, BINS + 1)
    places = np.arcsinh(scores / width)
    taken, left = (np.histogram(places[of], edges)[0] for of in (chosen, ~chosen))
    most = int((taken + left).max())
    bounds = width * np.sinh(edges)
    bars = []
    for place in range(BINS):
        said = f"influence {bounds[place]:.2g} to {bounds[place + 1]:.2g}"
        base = 100.0
        for count, look in ((taken[place], "chosen"), (left[place], "left")):
            if count:
                height = 96.0 * count / most
                base -= height
                word = "selected" if look == "chosen" else "left out"
                title = f"{said}: {count} {word}".replace("-", "−")
                bars.append(Bar(100 * place / BINS, 100 / BINS, base, height, look, title))
    at = [100 * (np.arcsinh(tick / width) - low) / (high - low) for tick in ticks]
    marked = [(x, t) for x, t in zip(at, ticks, strict=True) if 0 <= x <= 100]
    if len(marked) < 2 and scores.min() < scores.max():  # 0 and powers of ten lie beyond the data
        marked = [(0.0, scores.min()), (100.0, scores.max())]
    marks = [Tick(float(x), f"{t:.2g}".replace("-", "−")) for x, t in marked]
    note = f"{chosen.sum()} of {len(chosen)} are selected; linear to ±{width:g}, logarithmic beyond"
    return Histogram(bars, marks, most, note)


def _asinh(scores: np.ndarray) -> tuple[float, list[float]]:
    """Width of the linear part, and labelled ticks: 0 and powers of ten within the data."""
    sizes = np.abs(scores[scores != 0])
    if len(sizes) == 0:
        return 1.0, [0.0]
    top = int(np.ceil(np.log10(sizes.max())))
    low = max(int(np.floor(np.log10(np.quantile(sizes, 0.1)))), top - 3)
    powers = [10.0**k for k in range(low, top + 1)]
    ticks = [-p for p in reversed(powers) if -p >= scores.min()]
    return powers[0], [*ticks, 0.0, *(p for p in powers if p <= scores.max())]
