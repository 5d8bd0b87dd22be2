"""How samples are shown to people; a kind of problem per file, as in ``imu/objectives``.

A file offers ``DEFAULT``, the method of this project that is taken where nothing else is known;
``TESTED``, what the accuracy on the test set is measured on;
``CONFIDENCE``, what the column of that name is, and ``TOLD``, what else is to be known of slices;
``influential(data, parts)``, parts: title -> rows of the table of influence with "row", the place
in the data; and ``slices(data, parts)``, parts: title -> (rows of the table of predictions with
"row", the column that they are ordered by). Both give a list of ``Part``; so does, where there is
one, ``whole(data, table)``, of all that a model was asked. ``shown(data, rows)``: columns that tell
what some samples are, for a table.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tasks.pages.shares import Shares


class Card(NamedTuple):
    png: str  # in base64
    lines: list[tuple[str, str]]  # what, and its value
    wide: bool = False  # shown as wide as the card


class Part(NamedTuple):
    """Pictures, a figure, or a table: a header and rows of cells."""

    title: str
    cards: Sequence[Card] = ()
    table: Sequence[list[str]] = ()
    figure: Shares | None = None
    note: str = ""  # how the figure is read


def short(value: float) -> str:
    return f"{value:.2g}".replace("-", "−")


def part_of_one(value: float) -> str:
    """A difference of probabilities."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")  # no −0
