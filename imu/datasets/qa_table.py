"""Questions and answers that a table lists: a JSON Lines, CSV or parquet file, a row per question.

Columns: ``question``, ``answer``, ``subject`` (whom or what it is about) and ``id``; and, each if
wanted, ``paraphrased_question`` and ``paraphrased_answer``, other wordings of them that no network
is trained on; ``perturbed_answer``, several answers that are not true (a list, or in CSV texts with
| between them), in the wording of the paraphrased answer where there is one; and ``part``:
``train``, or what is set apart, ``val`` and ``test``. Other columns are passed over. These are the
names of the columns in TOFU.
"""

from pathlib import Path

from imu.datasets import Source
from imu.datasets.common import tables, texts
from imu.datasets.common.texts import Texts

OBJECTIVE = "language"
NAME = "qa_table"
OF_THE_USER = True
REQUIRED = ("question", "answer", "subject", "id")
OPTIONAL = ("paraphrased_question", "paraphrased_answer", "part")
WRONG = "perturbed_answer"


def write(folder: Path, source: Source) -> None:
    """Store what the table ``source.path`` lists, in its order, without spaces at the ends.

    Raises FileNotFoundError when there is no such table. Raises ValueError, naming the table, the
    line and the value, when a column or a value is missing, a part is unknown, an id is repeated,
    or a subject lies in several parts.
    """
    rows = tables.rows(Path(source.path), "texts", REQUIRED, OPTIONAL, (WRONG,))
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
        prompt=row.values["question"],
        answer=row.values["answer"],
        other_prompt=row.values.get("paraphrased_question", ""),
        other_answer=row.values.get("paraphrased_answer", ""),
        wrong=row.lists[WRONG],
        part=row.values.get("part", ""),
    )
