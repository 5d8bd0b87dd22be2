"""Tables of the user: CSV, JSON Lines or parquet, with a row per sample."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

BETWEEN = "|"  # the entries of a list in a cell of a CSV file


class Row(NamedTuple):
    where: str  # table and line, for errors
    values: dict[str, str]  # by column of the table; "" where a cell holds nothing
    lists: dict[str, tuple[str, ...]]  # by column; () where there is nothing


def rows(
    table: Path,
    what: str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> list[Row]:
    """The rows of ``table``: columns that it must have, and may have; others are passed over.

    what: the table lists, for errors. optional: where the table lacks such a column, rows do too.
    lists: columns that may be there and hold several texts each: a list in JSON Lines and parquet,
    in CSV texts with | between them.

    Raises FileNotFoundError when there is no such table. Raises ValueError, naming the table and
    the line, when it cannot be read or is not UTF-8, when a column is missing or there twice, and
    when a cell holds what is no text.
    """
    if not table.is_file():
        raise FileNotFoundError(f"there is no table {table} to take {what} from")
    read = {".parquet": _parquet, ".jsonl": _lines, ".json": _lines}.get(table.suffix, _csv)
    header, found = read(table)
    for name in (*required, *optional, *lists):
        if name in required and name not in header:
            raise ValueError(f"{table} has no column {name!r}, only {', '.join(map(repr, header))}")
        if header.count(name) > 1:
            raise ValueError(f"{table} has the column {name!r} more than once")
    return [
        Row(
            where,
            {
                key: _text(cells.get(key), f"{where}: {key}")
                for key in (*required, *optional)
                if key in header
            },
            {key: _several(cells.get(key), f"{where}: {key}") for key in lists},
        )
        for where, cells in found
    ]


def require(row: Row, names: Sequence[str]) -> None:
    """Raises ValueError where one of these columns holds nothing but spaces."""
    for name in names:
        if not row.values[name].strip():
            raise ValueError(f"{row.where}: {name} is missing")


Cells = list[tuple[str, dict[str, Any]]]  # where, and by column


def _csv(table: Path) -> tuple[list[str], Cells]:
    """Header and rows; cells are text as it stands, so a class may be called "NA" or "01"."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            found: Cells = []
            for cells in filter(None, reader):
                where = f"{table}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise ValueError(
                        f"{where}: there are {len(cells)} cells below a header of {len(header)}"
                    )
                found.append((where, dict(zip(header, cells, strict=True))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not a CSV table in UTF-8: {error}") from error
    return header, found


def _lines(table: Path) -> tuple[list[str], Cells]:
    """Columns that any line has, and the lines; an object in JSON each."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not in UTF-8: {error}") from error
    found: Cells = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{table}, line {number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON: {error}") from error
        if not isinstance(cells, dict):
            raise ValueError(f"{where} must be an object in JSON, got {line[:60]!r}")
        found.append((where, cells))
    return list(dict.fromkeys(key for _, cells in found for key in cells)), found


def _parquet(table: Path) -> tuple[list[str], Cells]:
    """Header and rows, which are counted from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = pq.read_table(table)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ValueError(f"{table} is not a parquet table: {error}") from error
    names = content.column_names
    columns = [column.to_pylist() for column in content.columns]
    return names, [
        (f"{table}, row {number}", dict(zip(names, cells, strict=True)))
        for number, cells in enumerate(zip(*columns, strict=True), start=1)
    ]


def _text(value: Any, where: str) -> str:
    """A number becomes text."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, list | dict | tuple | bytes):
        raise ValueError(f"{where} must be a text, got {value!r}")
    try:
        str(value).encode()
    except UnicodeEncodeError as error:  # half of a pair, as JSON can write it
        raise ValueError(f"{where} is no text in Unicode: {error}") from error
    return str(value)


def _several(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(BETWEEN)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list of texts, got {value!r}")
    return tuple(text for entry in value if (text := _text(entry, where).strip()))
