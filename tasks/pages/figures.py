"""The figures of the report, as PNG bytes that depend on nothing but the numbers given.

White background, Okabe-Ito colours, one message each; matplotlib is imported when it is drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, SKY, GREEN, BLUE, VERMILION = "#000000", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
BAND = "#CFE8F7"  # retraining variability
SETS = {"forget": (VERMILION, "-"), "retain": (BLUE, "-"), "test": (GREEN, "--")}
LINEAR_TO = 0.1  # points; beyond, the axis of a distance is logarithmic
DECADES = (0, 0.1, 1, 10, 100)
CELL, ROW = 1.25, 2.05  # inches: an image with its margin; a row of them with title and captions
LINE = 0.22  # inches of a line of text
LABEL: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}


class Distance(NamedTuple):
    """One metric: how far every model is from the reference, and how far retraining varies."""

    metric: str
    unit: str  # "points", or "" for a value in [0, 1]
    of_models: dict[str, float]  # NaN where there is no model to measure
    of_variability: float | None  # the largest of models retrained with other seeds


class Images(NamedTuple):
    """A row of images as stored, (n, channels, height, width), each with its caption."""

    title: str
    captions: list[str]
    images: np.ndarray


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


def influences(table: pd.DataFrame) -> bytes:
    """Histogram of the influence scores; the selected ones in colour."""
    from matplotlib.ticker import MaxNLocator

    scores = table["influence"].to_numpy()
    width, ticks = _asinh(scores)
    bounds = np.arcsinh(np.array([scores.min(), scores.max()]) / width)
    edges = width * np.sinh(np.linspace(bounds[0] - 1e-6, bounds[1] + 1e-6, 31))
    chosen = table["selected"].to_numpy(dtype=bool)
    with _figure(8, 3) as (figure, png):
        axes = figure.subplots()
        axes.hist(
            [scores[chosen], scores[~chosen]],
            bins=list(edges),
            stacked=True,
            color=[BLUE, "#BBBBBB"],
            label=[f"selected: {chosen.sum()}", f"left out: {(~chosen).sum()}"],
        )
        axes.set_xscale("asinh", linear_width=width)
        axes.set_xticks(ticks, [minus(f"{tick:g}") for tick in ticks])
        axes.minorticks_off()
        axes.axvline(0, color=BLACK, linewidth=0.8, linestyle=":")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"influence (linear to ±{width:g}, logarithmic beyond)")
        axes.set_ylabel("forget images")
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(frameon=False)
    return png.getvalue()


def _asinh(scores: np.ndarray) -> tuple[float, list[float]]:
    """Width of the linear part, and labelled ticks: 0 and powers of ten within the data."""
    sizes = np.abs(scores[scores != 0])
    if len(sizes) == 0:
        return 1.0, [0.0]
    top = int(np.ceil(np.log10(sizes.max())))
    low = max(int(np.floor(np.log10(np.quantile(sizes, 0.1)))), top - 6)
    powers = [10.0**k for k in range(low, top + 1)]
    ticks = [-p for p in reversed(powers) if -p >= scores.min()]
    return powers[0], [*ticks, 0.0, *(p for p in powers if p <= scores.max())]


def samples(rows: Sequence[Images], scale: float) -> bytes:
    """Rows of images whose pixels lie in [0, scale]."""
    columns = max(len(row.images) for row in rows)
    width, height = max(CELL * columns, 4), ROW * len(rows)
    with _figure(width, height, layout=None) as (figure, png):
        # One plane in inches, on which a row is one picture: axes for each image take a second.
        plane = figure.add_axes((0, 0, 1, 1))
        plane.set_axis_off()
        for place, (title, captions, images) in enumerate(rows):
            top = height - ROW * place
            plane.text(0.1, top - 0.05, title, fontsize=10, va="top")
            edge = CELL * len(images)
            plane.imshow(
                _strip(np.clip(images / scale, 0, 1)),
                extent=(0, edge, top - ROW, top - ROW + CELL),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            for at, caption in enumerate(captions):
                plane.text(
                    CELL * (at + 0.5),
                    top - ROW + CELL,
                    caption,
                    fontsize=8,
                    ha="center",
                    va="bottom",
                    parse_math=False,
                )
        plane.set(xlim=(0, width), ylim=(0, height))
    return png.getvalue()


def lines(parts: Mapping[str, Sequence[str]]) -> bytes:
    """Lines of text under titles."""
    texts = [
        (line, index == 0) for title, of in parts.items() for index, line in enumerate((title, *of))
    ]
    height = LINE * len(texts)
    with _figure(8, height, layout=None) as (figure, png):
        for number, (text, is_title) in enumerate(texts):
            figure.text(
                0.02 if is_title else 0.04,
                1 - (number + 0.5) * LINE / height,
                text,
                fontsize=10 if is_title else 8,
                va="center",
                parse_math=False,
            )
    return png.getvalue()


def _strip(images: np.ndarray) -> np.ndarray:
    """Images (n, channels, h, w) in [0, 1] side by side, each with a white margin of 1/16 a side.

    (height, n · width), or (height, n · width, 3) in colour; each pixel is repeated to have margins
    of whole pixels.
    """
    pixels = images.repeat(8, 2).repeat(8, 3)
    margins = [-(-size // 14) for size in pixels.shape[2:]]
    framed = np.pad(pixels, ((0, 0), (0, 0), *((m, m) for m in margins)), constant_values=1.0)
    strip = framed.transpose(2, 0, 3, 1).reshape(framed.shape[2], -1, framed.shape[1])
    return strip[:, :, 0] if strip.shape[2] == 1 else strip


def courses(tables: dict[str, pd.DataFrame], aims: dict[str, list[float]]) -> bytes:
    """Accuracy by step, a panel per model; triangles mark the reference (first of the aims),
    bands reach from it to those retrained with other seeds. aims: {} where there is no reference.
    """
    from matplotlib.ticker import MaxNLocator

    columns = 2 if len(tables) in (2, 4) else min(3, len(tables))
    rows = -(-len(tables) // columns)
    with _figure(max(3.6 * columns, 5), 0.6 + 2.3 * rows) as (figure, png):
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, (model, table) in zip(grid.flat, tables.items(), strict=False):
            for name, (colour, style) in SETS.items():
                if name in aims:
                    _aim(axes, aims[name], colour)
                axes.plot(table["step"], table[name], color=colour, linestyle=style, marker=".")
            axes.set_title(model, loc="left", fontsize=10)
            axes.set_xlabel("step")
            axes.set_ylim(-4, 104)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="both", color="#E6E6E6", linewidth=0.6)
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy, %")
        for axes in grid.flat[len(tables) :]:
            axes.set_axis_off()
        handles = [_line(colour, style, name) for name, (colour, style) in SETS.items()]
        if aims:
            handles.append(_mark("<", "#999999", "#999999", "reference (retrained)"))
        figure.legend(handles=handles, loc="outside upper left", ncols=5, frameon=False)
    return png.getvalue()


def words(said: str) -> bytes:
    """A sentence in the place of a figure that there is nothing to draw for."""
    with _figure(10, 0.8) as (figure, png):
        figure.text(0.5, 0.5, said, ha="center", va="center", fontsize=11)
    return png.getvalue()


def _aim(axes: "Axes", accuracies: list[float], colour: str) -> None:
    axes.axhspan(min(accuracies), max(accuracies), color=colour, alpha=0.3, zorder=1)
    axes.plot(
        1.02,
        accuracies[0],
        marker="<",
        color=colour,
        transform=axes.get_yaxis_transform(),
        clip_on=False,
    )


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


def minus(number: str) -> str:
    return number.replace("-", "−")


def _short(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "points" else f"{value:.3f}"


def _mark(marker: str, face: str, edge: str, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, color="none", mfc=face, mec=edge, label=label)


def _line(colour: str, style: Any, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linestyle=style, marker=".", label=label)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, label=label)
