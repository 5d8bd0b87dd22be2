"""Images that a table lists: a CSV or parquet file with one row per image.

Columns: ``path``, relative to the table's folder or absolute; ``label``, the name of the class;
and, each if wanted, ``id`` (the path where there is none); ``subject``, whom or what the image
shows, kept as an attribute; ``part``: ``train``, or what the authors set apart, ``val`` and
``test`` (``NAMED_PARTS``: how else they may be called). Other columns are passed over.
"""

import unicodedata
from collections import Counter
from pathlib import Path

from imu.datasets import LabelledImages, Source, named
from imu.datasets.common import listing, packed, tables

NAME = "image_table"
OF_THE_USER = True
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
    notes: Counter[str] = Counter()
    listed = [
        _checked(row, table.parent, notes)
        for row in tables.rows(table, "images", REQUIRED, OPTIONAL)
    ]
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


def _checked(row: tables.Row, folder: Path, notes: Counter[str]) -> listing.Listed:
    given = row.values
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
