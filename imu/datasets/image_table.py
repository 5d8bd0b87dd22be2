"""Images that a table lists: a CSV or parquet file with one row per image.

Columns: ``path``, relative to the table's folder or absolute; ``label``, the name of the class;
and, each if wanted, ``id`` (the path where there is none); ``subject``, whom or what the image
shows, kept as an attribute; ``part``: ``train``, or what the authors set apart, ``val`` and
``test`` (``NAMED_PARTS``: how else they may be called). Other columns are passed over.
"""

import csv
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from imu.datasets import LabelledImages, Source, named
from imu.datasets.common import listing, packed

NAME = "image_table"
REQUIRED = ("path", "label")
OPTIONAL = ("id", "subject", "part")


def write(folder: Path, source: Source) -> None:
    """Decode the images that the table ``source.path`` lists to size×size pixels, RGB; pack them.

    The training images come first, otherwise the order is the table's.

    Raises FileNotFoundError when there is no such table. Raises ValueError, naming the table, the
    line and the value, when a column or a value is missing, a part is unknown, an id is repeated,
    there are fewer than two classes, or an image cannot be read.
    """
    table = Path(source.path)
    if not table.is_file():
        raise FileNotFoundError(f"there is no table {table} to take images from")
    notes: Counter[str] = Counter()
    listed = [_checked(row, table.parent, notes) for row in _rows(table)]
    classes = sorted({image.label for image in listed})
    if len(classes) < 2:
        raise ValueError(
            f"{table} must have images of 2 or more classes, its labels are "
            f"{', '.join(map(repr, classes)) or 'none'}"
        )
    listing.pack(folder, NAME, listed, source, notes)


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (n, 3, size, size). Raises as ``packed.load`` does."""
    return packed.load(folder, NAME)


class Row(NamedTuple):
    where: str  # table and line, for errors
    values: dict[str, str]  # by column


def _rows(table: Path) -> list[Row]:
    header, rows = (_parquet if table.suffix == ".parquet" else _csv)(table)
    for name in (*REQUIRED, *OPTIONAL):
        if name in REQUIRED and name not in header:
            raise ValueError(f"{table} has no column {name!r}, only {', '.join(map(repr, header))}")
        if header.count(name) > 1:
            raise ValueError(f"{table} has the column {name!r} more than once")
    return rows


def _checked(row: Row, folder: Path, notes: Counter[str]) -> listing.Listed:
    given = {name: row.values[name] for name in (*REQUIRED, *OPTIONAL) if name in row.values}
    kept = {name: named(value) for name, value in given.items()}
    for name, value in kept.items():
        if not value:
            raise ValueError(f"{row.where}: {name} is missing")
    if (part := kept.get("part", "train").lower()) not in listing.NAMED_PARTS:
        raise ValueError(
            f"{row.where}: part must be one of {', '.join(listing.NAMED_PARTS)}, got {part!r}"
        )
    notes[listing.RENAMED] += sum(kept[name] != given[name] for name in kept)
    path = _found(folder, given["path"])
    return listing.Listed(
        path,
        f"{row.where}: {path}",
        kept.get("id", kept["path"]),
        kept["label"],
        listing.NAMED_PARTS[part],
        kept.get("subject"),
    )


def _found(folder: Path, path: str) -> Path:
    """The file of this name, or else the one whose name reads the same."""
    forms = (path, path.strip(), *(unicodedata.normalize(f, path.strip()) for f in ("NFC", "NFD")))
    return next((folder / form for form in forms if (folder / form).is_file()), folder / path)


def _csv(table: Path) -> tuple[list[str], list[Row]]:
    """Header and rows; cells are text as it stands, so a class may be called "NA" or "01"."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = []
            for cells in filter(None, reader):
                where = f"{table}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise ValueError(
                        f"{where}: there are {len(cells)} cells below a header of {len(header)}"
                    )
                rows.append(Row(where, dict(zip(header, cells, strict=True))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not a CSV table in UTF-8: {error}") from error
    return header, rows


def _parquet(table: Path) -> tuple[list[str], list[Row]]:
    """Header and rows, which are counted from 1; numbers become text."""
    import pandas as pd

    try:
        frame = pd.read_parquet(table)
    except (ValueError, OSError) as error:
        raise ValueError(f"{table} is not a parquet table: {error}") from error
    header = [str(name) for name in frame]
    text = [frame[name].astype("string").fillna("").tolist() for name in frame]
    return header, [
        Row(f"{table}, row {number}", dict(zip(header, cells, strict=True)))
        for number, cells in enumerate(zip(*text, strict=True), start=1)
    ]
