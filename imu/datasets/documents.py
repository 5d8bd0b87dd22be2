"""Documents that a table lists: a JSON Lines, CSV or parquet file, a row per document.

Columns: ``text``, ``subject`` (whom or what it is about) and ``id``; and, if wanted, ``part``:
``train``, or what is set apart, ``val`` and ``test``. Other columns are passed over. A document is
learned and forgotten whole, from its first word on; one that is longer than what the network reads
at once must be given in several rows, with ids of their own and one subject.
"""

from pathlib import Path

from imu.datasets import Source
from imu.datasets.common import tables, texts
from imu.datasets.common.texts import Texts

OBJECTIVE = "language"
NAME = "documents"
OF_THE_USER = True
REQUIRED = ("text", "subject", "id")


def write(folder: Path, source: Source) -> None:
    """Store what the table ``source.path`` lists, in its order, without spaces at the ends.

    Raises as the ``write`` of ``qa_table`` does.
    """
    rows = tables.rows(Path(source.path), "texts", REQUIRED, ("part",))
    texts.pack(folder, NAME, [_sample(row) for row in rows], source)


def load(folder: Path) -> Texts:
    """Read what ``write`` wrote. Raises as ``texts.load`` does."""
    return texts.load(folder, NAME)


def _sample(row: tables.Row) -> texts.Sample:
    tables.require(row, REQUIRED)
    return texts.Sample(
        where=row.where,
        id=row.values["id"],
        subject=row.values["subject"],
        prompt="",
        answer=row.values["text"],
        part=row.values.get("part", ""),
    )
