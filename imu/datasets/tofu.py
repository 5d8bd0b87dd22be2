"""TOFU: 4,000 questions about 200 authors who do not exist.

P. Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs" (2024, arXiv 2401.06121), MIT
licence, https://huggingface.co/datasets/locuslab/TOFU. The files in ``data.path`` are read as they
are published, and nothing is downloaded.

A subject is an author: "author-001" to "author-200", 20 questions each, in the published order.
The authors of TOFU forget its last ones: forget01 is author-199 and 200, forget05 is author-191 to
200, forget10 is author-181 to 200. The attributes "forget01", "forget05" and "forget10" say "yes"
of their samples, for ``split.scenario: group``.

Paraphrases and perturbed answers are published for forget10 and for 400 of the questions that are
retained; perturbed answers are in the wording of the paraphrased answer.
"""

from pathlib import Path
from typing import Any

from imu.datasets import Source
from imu.datasets.common import tables, texts
from imu.datasets.common.texts import Texts

OBJECTIVE = "language"
NAME = "tofu"
URL = "https://huggingface.co/datasets/locuslab/TOFU/resolve/main"
QUESTIONS = ("retain90", "forget10")  # in this order they are all 4,000
PERTURBED = ("retain_perturbed", "forget10_perturbed")
WRONG = "perturbed_answer"
PARAPHRASES = ("paraphrased_question", "paraphrased_answer")
EACH = 20  # questions of an author
FORGOTTEN = {"forget01": 2, "forget05": 10, "forget10": 20}  # authors, the last ones


def write(folder: Path, source: Source) -> None:
    """Store the questions in ``source.path``.

    Raises FileNotFoundError, naming every file and its place, when one is missing; ValueError,
    naming file and line, when one does not hold what was published.
    """
    import pandas as pd

    samples = _samples(Path(source.path))
    texts.write(folder, NAME, pd.DataFrame(samples), source=source, settings=("path",))


def load(folder: Path) -> Texts:
    """Read what ``write`` wrote. Raises as ``texts.load`` does."""
    return texts.load(folder, NAME)


def read(published: Path) -> Texts:
    """The same of the published files, without storing anything. Raises as ``write`` does."""
    samples = _samples(published)
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    return texts.of_columns(columns | {"part": [""] * len(samples)}, tuple(FORGOTTEN))


def _samples(published: Path) -> list[dict[str, Any]]:
    _require(published)
    questions = [row for name in QUESTIONS for row in _rows(_file(published, name), ())]
    authors, left = divmod(len(questions), EACH)
    if left or authors <= max(FORGOTTEN.values()):
        raise ValueError(
            f"{published}: {' and '.join(QUESTIONS)} hold {len(questions)} questions, which are "
            f"not {EACH} about each of more than {max(FORGOTTEN.values())} authors"
        )
    more = {
        _key(row): row for name in PERTURBED for row in _rows(_file(published, name), PARAPHRASES)
    }
    samples = []
    for number, row in enumerate(questions):
        author = number // EACH
        other = more.pop(_key(row), None)
        samples.append(
            {
                "id": f"{NAME}-{number:04d}",
                "subject": f"author-{author + 1:03d}",
                "prompt": row.values["question"].strip(),
                "answer": row.values["answer"].strip(),
                "other_prompt": other.values[PARAPHRASES[0]].strip() if other else "",
                "other_answer": other.values[PARAPHRASES[1]].strip() if other else "",
                "wrong": other.lists[WRONG] if other else (),
            }
            | {name: ("no", "yes")[author >= authors - n] for name, n in FORGOTTEN.items()}
        )
    if more:
        raise ValueError(
            f"{next(iter(more.values())).where}: this question and its answer are in neither of "
            f"{' and '.join(QUESTIONS)}"
        )
    return samples


def _rows(path: Path, more: tuple[str, ...]) -> list[tables.Row]:
    required = ("question", "answer", *more)
    rows = tables.rows(path, "texts", required, (), (WRONG,))
    for row in rows:
        tables.require(row, required)
    return rows


def _key(row: tables.Row) -> tuple[str, str]:
    return row.values["question"], row.values["answer"]


def _file(published: Path, name: str) -> Path:
    """As it is published, JSON Lines called .json, or under its proper name."""
    proper = published / f"{name}.jsonl"
    return proper if proper.is_file() else published / f"{name}.json"


def _require(published: Path) -> None:
    names = (*QUESTIONS, *PERTURBED)
    if all(_file(published, name).is_file() for name in names):
        return
    lines = [f"the files of TOFU are not all in {published}. Put there:"]
    for name in names:
        state = "is there" if _file(published, name).is_file() else "missing"
        lines.append(f"  {name}.json from {URL}/{name}.json: {state}")
    raise FileNotFoundError("\n".join(lines))
