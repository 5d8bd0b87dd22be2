"""Questions with answers, or documents: stored once, read by every stage.

A folder holds ``samples.parquet``, a row per sample with the columns of ``COLUMNS`` and one for
each further attribute, and ``about.json``: the name of the data set, its attributes, the SHA-256 of
the table, what it was made from, and what was done to how many samples.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from imu.datasets import ABOUT, Source, named
from imu.datasets.common.listing import AS_TEST, NAMED_PARTS, PARTS
from imu.datasets.common.origin import fingerprint
from imu.datasets.common.packed import RESTORE, appearing, require

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = "samples.parquet"
REQUIRED = ("id", "subject", "prompt", "answer")
COLUMNS = (*REQUIRED, "other_prompt", "other_answer", "wrong", "part")


class Sample(NamedTuple):
    """One row of a table of the user; see ``Texts``."""

    where: str  # for errors
    id: str
    subject: str
    prompt: str
    answer: str
    other_prompt: str = ""
    other_answer: str = ""
    wrong: tuple[str, ...] = ()
    part: str = ""  # one of ``NAMED_PARTS``, or ""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Questions with answers, or documents, as stored. All arrays have shape (n,).

    prompts: object array of str, what is given; "" for documents.
    answers: likewise, what is learned and forgotten; never empty.
    ids: str array, unique; what an erasure request names.
    other_prompts: as prompts, another wording of the question, which no model is trained on; ""
    where there is none.
    other_answers: as answers, another wording of the answer, for truth ratios; "" where there is
    none.
    wrong: for each sample answers that are not true, in the wording of its other answer, or of its
    answer where it has no other; () where there are none.
    attributes: name -> str array, what else is known of a sample; "subject" is always among them:
    whom or what it is about.
    published_test, published_validation: bool arrays, the samples that the authors set apart; None
    where they set none apart.

    Raises ValueError where shapes do not fit, an answer is empty, or an id is repeated.
    """

    prompts: np.ndarray
    answers: np.ndarray
    ids: np.ndarray
    other_prompts: np.ndarray
    other_answers: np.ndarray
    wrong: tuple[tuple[str, ...], ...]
    attributes: Mapping[str, np.ndarray]
    published_test: np.ndarray | None = None
    published_validation: np.ndarray | None = None
    objective: ClassVar[str] = "language"
    together: ClassVar[str] = "subject"  # all samples of one stay in one part of a split

    def __post_init__(self) -> None:
        n = len(self.ids)
        arrays: dict[str, np.ndarray | None] = {
            name: getattr(self, name)
            for name in ("prompts", "answers", "ids", "other_prompts", "other_answers")
        }
        arrays |= dict(self.attributes)
        arrays |= {
            "published_test": self.published_test,
            "published_validation": self.published_validation,
        }
        for name, array in arrays.items():
            if array is not None and array.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), got {array.shape}")
        if len(self.wrong) != n:
            raise ValueError(f"wrong must have {n} entries, got {len(self.wrong)}")
        if "subject" not in self.attributes:
            raise ValueError(f"attributes must have 'subject', got {sorted(self.attributes)}")
        if empty := [
            name for name, answer in zip(self.ids.tolist(), self.answers, strict=True) if not answer
        ]:
            raise ValueError(f"{empty[0]!r} has an empty answer")
        if len(set(self.ids.tolist())) < n:
            raise ValueError("ids must be unique")

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): all texts are of one class, so that they are split as images are."""
        return np.zeros(len(self.ids), np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("text",)

    def content(self, row: int) -> bytes:
        """What a manifest holds the SHA-256 of."""
        return f"{self.prompts[row]}\0{self.answers[row]}".encode()

    def summary(self) -> str:
        """How many samples there are, of how many subjects, and what they are like."""
        subjects, counts = np.unique(self.attributes["subject"], return_counts=True)
        asked = int((self.prompts != "").sum())
        kinds = [f"{asked} questions"] if asked else []
        kinds += [f"{len(self.ids) - asked} documents"] if asked < len(self.ids) else []
        others = ", ".join(name for name in sorted(self.attributes) if name != "subject")
        return (
            f"{' and '.join(kinds)} about {len(subjects)} subjects, {counts.min()} to "
            f"{counts.max()} each; {int((self.other_prompts != '').sum())} asked in other words, "
            f"{sum(map(bool, self.wrong))} with wrong answers; longest answer "
            f"{max(map(len, self.answers))} characters"
            + (f"; attributes: {others}" if others else "")
        )


def pack(folder: Path, name: str, samples: Sequence[Sample], source: Source) -> None:
    """Store samples that were made from ``source.path``, in their order.

    Spaces at the ends of a text go; ids and subjects take the form of ``named``.

    Raises ValueError, naming where it stands, for an unknown part and a repeated id, and where
    there are no samples; else as ``write`` does.
    """
    import pandas as pd

    if not samples:
        raise ValueError(f"{source.path} lists no samples")
    first: dict[str, str] = {}
    rows = []
    for sample in samples:
        values = {
            key: value.strip() if isinstance(value, str) else [wrong.strip() for wrong in value]
            for key, value in sample._asdict().items()
            if key != "where"
        }
        values |= {key: named(getattr(sample, key)) for key in ("id", "subject")}
        part = sample.part.strip().lower()
        if part and part not in NAMED_PARTS:
            raise ValueError(
                f"{sample.where}: part must be one of {', '.join(NAMED_PARTS)}, got {part!r}"
            )
        if (name_of := str(values["id"])) in first:
            raise ValueError(
                f"{sample.where}: the id {name_of!r} is already that of {first[name_of]}"
            )
        first[name_of] = sample.where
        rows.append(values | {"part": NAMED_PARTS[part] if part else ""})
    write(folder, name, pd.DataFrame(rows), source=source, settings=("path",))


def write(
    folder: Path,
    name: str,
    frame: "pd.DataFrame",
    *,
    source: Source,
    settings: Sequence[str],
    notes: Mapping[str, int] | None = None,
) -> None:
    """Store a data set in ``folder``, all or nothing.

    name: of the data set. frame: a row per sample; columns ``REQUIRED`` and, each if wanted, the
    others of ``COLUMNS`` (``wrong`` holds a sequence of str, ``part`` one of ``PARTS`` or "");
    every further column is an attribute. source: what the samples were made from. settings: the
    fields of it that they depend on. notes: what was done to how many.

    Raises FileExistsError when ``folder`` holds files; ValueError, naming the sample, when an
    answer is empty, an id repeated, or the samples of one subject lie in several parts.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    notes = dict(notes or {})
    _check(frame)
    columns: dict[str, pa.Array] = {}
    for column in COLUMNS:
        if column == "wrong":
            wrong = [list(of) for of in frame[column]] if column in frame else [[]] * len(frame)
            columns[column] = pa.array(wrong, pa.list_(pa.string()))
        else:
            values = frame[column].tolist() if column in frame else [""] * len(frame)
            columns[column] = pa.array(values, pa.string())
    attributes = [column for column in frame if column not in COLUMNS]
    columns |= {column: pa.array(frame[column].tolist(), pa.string()) for column in attributes}
    if "part" in frame and set(frame["part"]) & set(PARTS[1:]) == {"validation"}:
        notes[AS_TEST] = int((frame["part"] == "validation").sum())
    with appearing(folder) as temporary:
        pq.write_table(pa.table(columns), temporary / SAMPLES)
        about = {
            "dataset": name,
            "attributes": attributes,
            "sha256": hashlib.sha256((temporary / SAMPLES).read_bytes()).hexdigest(),
            "source": {key: getattr(source, key) for key in settings},
        }
        if "path" in settings:
            about["fingerprint"] = fingerprint(Path(source.path))
        if notes:
            about["notes"] = dict(sorted(notes.items()))
        text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (temporary / ABOUT).write_text(text, encoding="utf-8")


def load(folder: Path, name: str) -> Texts:
    """Read what ``write`` wrote.

    Raises FileNotFoundError when a file is missing and ValueError when the table is not what
    ``about.json`` says.
    """
    import pyarrow.parquet as pq

    path = folder / ABOUT
    require(path)
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["dataset"] != name:
            raise ValueError(f"it describes the data set {about['dataset']!r}, not {name!r}")
        expected, attributes = str(about["sha256"]), [str(key) for key in about["attributes"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): {RESTORE}"
        ) from error
    require(folder / SAMPLES)
    content = (folder / SAMPLES).read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        raise ValueError(
            f"{folder / SAMPLES} is not what {ABOUT} says: its SHA-256 is {found}, must be "
            f"{expected}; {RESTORE}"
        )
    columns = pq.read_table(io.BytesIO(content)).to_pydict()
    return of_columns(columns, attributes)


def of_columns(columns: Mapping[str, Sequence[Any]], attributes: Sequence[str]) -> Texts:
    """Samples by the columns of ``COLUMNS``, all of them, and of ``attributes``."""
    parts = np.array(columns["part"])
    apart = [part for part in PARTS[1:] if (parts == part).any()]
    return Texts(
        prompts=np.array(columns["prompt"], object),
        answers=np.array(columns["answer"], object),
        ids=np.array(columns["id"]),
        other_prompts=np.array(columns["other_prompt"], object),
        other_answers=np.array(columns["other_answer"], object),
        wrong=tuple(map(tuple, columns["wrong"])),
        attributes={key: np.array(columns[key]) for key in ("subject", *attributes)},
        published_test=parts == apart[-1] if apart else None,
        published_validation=parts == apart[0] if len(apart) == 2 else None,
    )


def _check(frame: "pd.DataFrame") -> None:
    """Raises ValueError, see ``write``."""
    if missing := [column for column in REQUIRED if column not in frame]:
        raise ValueError(f"there is no column {missing[0]!r}, only {list(frame)}")
    if not len(frame):
        raise ValueError("there are no samples")
    for column in ("id", "subject", "answer"):
        if (empty := frame[column] == "").any():
            raise ValueError(f"sample {frame['id'][empty].iloc[0]!r} has an empty {column}")
    if (repeated := frame["id"].duplicated()).any():
        raise ValueError(f"the id {frame['id'][repeated].iloc[0]!r} is given more than once")
    if "part" not in frame:
        return
    if (unknown := ~frame["part"].isin((*PARTS, ""))).any():
        raise ValueError(
            f"part must be one of {', '.join(PARTS)}, got {frame['part'][unknown].iloc[0]!r}"
        )
    several = frame.groupby("subject")["part"].nunique() > 1
    if several.any():
        subject = several.idxmax()
        parts = " and ".join(map(repr, sorted(frame["part"][frame["subject"] == subject].unique())))
        raise ValueError(
            f"the samples of {subject!r} lie in the parts {parts}: what is said of one subject "
            "must stay in one part"
        )
