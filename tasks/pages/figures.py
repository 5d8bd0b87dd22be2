"""Figures of pages in ``docs/``, as PNG bytes that depend on nothing but the numbers given.

White background, Okabe-Ito colours, one message each; matplotlib is imported when it is drawn.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, SKY, BLUE = "#000000", "#56B4E9", "#0072B2"
CURVES = (BLUE, "#D55E00", "#009E73", "#CC79A7")
BAND = "#CFE8F7"  # retraining variability
LINEAR_TO = 0.1  # points; beyond, the axis of a distance is logarithmic
DECADES = (0, 0.1, 1, 10, 100)
LABEL: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}


class Distance(NamedTuple):
    """One metric: how far every model is from the reference, and how far retraining varies."""

    metric: str
    unit: str  # "points", or "" for a value in [0, 1]
    of_models: dict[str, float]  # NaN where there is no model to measure
    of_variability: float | None  # the largest of models retrained with other seeds


def distances(found: Sequence[Distance], baselines: Sequence[str]) -> bytes:
    """Distance to the reference per metric: a dot per model, retraining variability as a band."""
    models = list(found[0].of_models)
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    with _figure(10, rows * (1.25 + 0.26 * len(models))) as (figure, png):
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, distance in zip(grid.flat, found, strict=False):
            _distance(axes, distance, baselines)
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()
        grid[0, 0].set_yticks(range(len(models)), models)
        grid[0, 0].set_ylim(len(models) - 0.4, -0.6)
        handles = [_mark("o", BLUE, BLUE, "method"), _mark("o", "white", BLACK, "baseline")]
        if any(distance.of_variability is not None for distance in found):
            handles.append(_patch(BAND, "retraining variability: retrained with other seeds"))
        figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False)
    return png.getvalue()


def _distance(axes: "Axes", distance: Distance, baselines: Sequence[str]) -> None:
    points = distance.unit == "points"
    largest = float(np.nanmax([*distance.of_models.values(), distance.of_variability or 0.0, 1e-9]))
    if points:
        axes.set_xscale("symlog", linthresh=LINEAR_TO)
        axes.set_xticks(DECADES, [f"{tick:g}" for tick in DECADES])
        axes.minorticks_off()
        axes.set_xlim(-0.03, 250)
    else:
        axes.set_xlim(-0.04 * largest, 1.35 * largest)
        axes.locator_params(axis="x", nbins=4)
    title = distance.metric
    if distance.of_variability is not None:
        axes.axvspan(axes.get_xlim()[0], distance.of_variability, color=BAND, zorder=0)
        axes.axvline(distance.of_variability, color=SKY, linewidth=1.5, zorder=1)
        title += f" (retraining {_short(distance.of_variability, distance.unit)})"
    for place, (model, value) in enumerate(distance.of_models.items()):
        if np.isnan(value):
            axes.annotate("failed", (axes.get_xlim()[0], place), xytext=(7, 0), **LABEL)
            continue
        face = "white" if model in baselines else BLUE
        edge = BLACK if model in baselines else BLUE
        axes.plot(value, place, "o", color=face, markeredgecolor=edge, markersize=6, zorder=3)
        left = value > (10 if points else 0.75 * largest)
        axes.annotate(
            _short(value, distance.unit),
            (value, place),
            xytext=(-7 if left else 7, 0),
            ha="right" if left else "left",
            **LABEL,
        )
    axes.set_title(title, loc="left", fontsize=10)
    unit = f", {distance.unit}" if distance.unit else ""
    axes.set_xlabel(f"distance to reference{unit}")
    axes.grid(axis="both", color="#E6E6E6", linewidth=0.6)


class Panel(NamedTuple):
    """Curves over the same steps. band: noise floor, from 0. bound: a line across, with a name."""

    title: str
    x: str
    y: str
    curves: dict[str, Sequence[float]]
    band: float = 0.0
    bound: tuple[str, float] | None = None


def curves(panels: Sequence[Panel]) -> bytes:
    """Panels side by side, the curves of each named at their ends' height in a legend."""
    with _figure(5 * len(panels), 3.6) as (figure, png):
        for axes, panel in zip(
            figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True
        ):
            if panel.band:
                axes.axhspan(0, panel.band, color=BAND, zorder=0, label="retraining variability")
            if panel.bound:
                name, value = panel.bound
                axes.axhline(value, color=BLACK, linewidth=1, linestyle=":", label=name)
            for (name, values), colour in zip(panel.curves.items(), CURVES, strict=False):
                axes.plot(range(1, len(values) + 1), values, color=colour, label=name)
            axes.set(xlabel=panel.x, ylabel=panel.y, ylim=(0, None))
            axes.set_title(panel.title, loc="left", fontsize=10)
            axes.grid(axis="both", color="#E6E6E6", linewidth=0.6)
            axes.legend(fontsize=8, frameon=False)
    return png.getvalue()


@contextmanager
def _figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[tuple["Figure", BytesIO]]:
    """A figure of ``width`` × ``height`` inches, and the PNG it becomes when the block ends."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own settings must not change the bytes
        matplotlib.rcParams |= {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
        figure, png = Figure(figsize=(width, height), dpi=144, layout=layout), BytesIO()
        FigureCanvasAgg(figure)
        yield figure, png
        figure.savefig(png, format="png", facecolor="white", metadata={"Software": None})


def _short(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "points" else f"{value:.3f}"


def _mark(marker: str, face: str, edge: str, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, color="none", mfc=face, mec=edge, label=label)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, label=label)
