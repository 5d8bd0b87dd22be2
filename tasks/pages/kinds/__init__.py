"""How samples are shown to people; a kind of problem per file, as in ``imu/objectives``.

A file offers ``influential(data, parts) -> PNG``, parts: title -> rows of the table of influence
with "row", the place in the data; and ``slices(data, least, worse)``: what a method remembers of
the forget set and lost of the retain set, ``Picture`` or ``Rows``.
"""

from typing import NamedTuple

from tasks.pages import figures


class Picture(NamedTuple):
    png: str  # in base64


class Rows(NamedTuple):
    """Tables: title -> a header and rows of cells."""

    tables: dict[str, list[list[str]]]


def short(value: float) -> str:
    return figures.minus(f"{value:.2g}")
