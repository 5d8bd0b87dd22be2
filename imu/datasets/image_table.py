"""Images that a table lists: a CSV or parquet file with one row per image.

Columns: ``path``, relative to the table's folder or absolute; ``label``, the name of the class;
and, each if wanted, ``id`` (the path where there is none); ``subject``, whom or what the image
shows, kept as an attribute; ``part``, ``train`` or ``test``, where test images count as set apart
by the authors. Other columns are passed over.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imu.datasets import LabelledImages, Source
from imu.datasets.common import decoding, packed

NAME = "image_table"
REQUIRED = ("path", "label")
OPTIONAL = ("id", "subject", "part")
PARTS = ("train", "test")


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
    rows = sorted(_checked(table), key=_is_test)
    classes = sorted({row.values["label"] for row in rows})
    is_test = np.array([_is_test(row) for row in rows])
    paths = [table.parent / row.values["path"] for row in rows]
    names = [f"{row.where}: {path}" for row, path in zip(rows, paths, strict=True)]
    has_subjects = "subject" in rows[0].values
    packed.write(
        folder,
        NAME,
        decoding.blocks(paths, names, source.size),
        labels=np.searchsorted(classes, [row.values["label"] for row in rows]),
        ids=[_id(row) for row in rows],
        classes=classes,
        published_test=is_test if is_test.any() else None,
        attributes={"subject": [row.values["subject"] for row in rows]} if has_subjects else None,
        source=source,
    )


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (n, 3, size, size). Raises as ``packed.load`` does."""
    return packed.load(folder, NAME)


class Row(NamedTuple):
    where: str  # table and line, for errors
    values: dict[str, str]  # by column


def _is_test(row: Row) -> bool:
    return row.values.get("part") == "test"


def _id(row: Row) -> str:
    return row.values.get("id", row.values["path"])


def _checked(table: Path) -> list[Row]:
    header, rows = (_parquet if table.suffix == ".parquet" else _csv)(table)
    for name in (*REQUIRED, *OPTIONAL):
        if name in REQUIRED and name not in header:
            raise ValueError(f"{table} has no column {name!r}, only {', '.join(map(repr, header))}")
        if header.count(name) > 1:
            raise ValueError(f"{table} has the column {name!r} more than once")
    first: dict[str, str] = {}
    for row in rows:
        _check(row)
        if (other := first.setdefault(_id(row), row.where)) != row.where:
            raise ValueError(f"{row.where}: the id {_id(row)!r} is already that of {other}")
    classes = sorted({row.values["label"] for row in rows})
    if len(classes) < 2:
        raise ValueError(
            f"{table} must have images of 2 or more classes, its labels are "
            f"{', '.join(map(repr, classes)) or 'none'}"
        )
    return rows


def _check(row: Row) -> None:
    for name in (*REQUIRED, *OPTIONAL):
        if row.values.get(name) == "":
            raise ValueError(f"{row.where}: {name} is missing")
    if (part := row.values.get("part", "train")) not in PARTS:
        raise ValueError(f"{row.where}: part must be {' or '.join(PARTS)}, got {part!r}")


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
