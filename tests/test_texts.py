"""Data sets of texts: generated, published, and the user's own."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imu import discovery, selecting, splitting
from imu.datasets import Source, biographies, described, documents, made_from, qa_table, tofu
from imu.datasets.common import texts
from tasks.data import prepare, require_source
from tasks.files.artifacts import ArtifactError
from tasks.files.workspace import Workspace

ROOT = Path(__file__).parents[1]
QUESTIONS = [
    {"id": "a", "subject": "Ada", "question": "Where?", "answer": "Lisbon"},
    {"id": "b", "subject": "Ada", "question": "When?", "answer": "1950"},
    {"id": "c", "subject": "Bo", "question": "Who?", "answer": "Bo", "part": "test"},
]
FRAME = pd.DataFrame(QUESTIONS).rename(columns={"question": "prompt"}).fillna("")


def lines(path: Path, rows: list[dict]) -> Source:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Source(path=str(path))


def tiny_tofu(folder: Path, authors: int = 22) -> Source:
    rows = [
        {"question": f"Q{n} of {n // 20}?", "answer": f" Answer {n}."} for n in range(20 * authors)
    ]
    more = [
        row
        | {
            "paraphrased_question": f"Or: {row['question']}",
            "paraphrased_answer": f"It is {row['answer']}",
            "perturbed_answer": [f"It is not {k}" for k in range(5)],
        }
        for row in rows
    ]
    forget = 20 * (authors - 20)
    for name, of in (
        ("retain90.json", rows[:forget]),
        ("forget10.jsonl", rows[forget:]),
        ("retain_perturbed.jsonl", more[:5]),
        ("forget10_perturbed.json", more[forget:]),
    ):
        lines(folder / name, of)
    return Source(path=str(folder))


def source(name: str, folder: Path) -> Source:
    """A tiny source of each data set of texts; without an entry here, the default."""
    if name == "tofu":
        return tiny_tofu(folder)
    if name == "qa_table":
        return lines(folder / "table.jsonl", QUESTIONS)
    if name == "documents":
        rows = [{"id": q["id"], "subject": q["subject"], "text": q["answer"]} for q in QUESTIONS]
        return lines(folder / "table.jsonl", rows)
    return Source(people=5)


NAMES = [
    name
    for name in discovery.names("imu.datasets")
    if getattr(discovery.load("imu.datasets", name), "OBJECTIVE", "") == "language"
]


def made(name: str, given: Source, folder: Path) -> texts.Texts:
    module = discovery.load("imu.datasets", name)
    module.write(folder, given)
    return module.load(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_of_texts_keeps_the_contract(name, tmp_path):
    given = source(name, tmp_path / "source")
    data = made(name, given, tmp_path / "a")
    n = len(data.ids)
    assert data.objective == "language"
    assert data.together in data.attributes
    assert data.labels.tolist() == [0] * n
    assert data.classes == ("text",)
    assert data.ids.dtype.kind == data.attributes["subject"].dtype.kind == "U"
    assert len(set(data.ids)) == n > 0
    assert all(type(answer) is str and answer for answer in data.answers)
    assert data.content(1) == f"{data.prompts[1]}\0{data.answers[1]}".encode()
    assert str(n) in described(tmp_path / "a", data)
    require_source(tmp_path / "a", given)
    again = made(name, given, tmp_path / "deep" / "b")
    assert again.ids.tolist() == data.ids.tolist()
    for file in ("samples.parquet", "about.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "deep/b" / file).read_bytes()
    with pytest.raises(FileExistsError):
        discovery.load("imu.datasets", name).write(tmp_path / "a", given)


# How they are stored.


def stored(folder: Path, frame: pd.DataFrame = FRAME) -> Path:
    texts.write(folder, "x", frame, source=Source(path="there"), settings=("path",), notes={"n": 3})
    return folder


def test_all_of_it_comes_back(tmp_path):
    frame = FRAME.assign(
        other_prompt=["é", "", "?"],
        other_answer=["", "two", ""],
        wrong=[["x", "y"], [], ["z"]],
        part=["train", "train", "test"],
        fact=["f", "g", "f"],
    )
    data = texts.load(stored(tmp_path / "a", frame), "x")
    assert data.prompts.tolist() == ["Where?", "When?", "Who?"]
    assert data.answers.tolist() == ["Lisbon", "1950", "Bo"]
    assert data.other_prompts.tolist() == ["é", "", "?"]
    assert data.other_answers.tolist() == ["", "two", ""]
    assert data.wrong == (("x", "y"), (), ("z",))
    assert {name: values.tolist() for name, values in data.attributes.items()} == {
        "subject": ["Ada", "Ada", "Bo"],
        "fact": ["f", "g", "f"],
    }
    assert data.published_test.tolist() == [False, False, True]
    assert data.published_validation is None
    assert made_from(tmp_path / "a") == Source(path="there")
    assert described(tmp_path / "a", data).splitlines() == [
        "3 questions about 2 subjects, 1 to 2 each; 2 asked in other words, 2 with wrong answers; "
        "longest answer 6 characters; attributes: fact",
        "parts: train 2, test 1",
        "n: 3",
    ]


@pytest.mark.parametrize(
    ("parts", "test", "validation"),
    [
        (["", "", ""], None, None),
        (["train", "train", "validation"], [2], None),  # there is no other that could be the test
        (["validation", "validation", "test"], [2], [0, 1]),
    ],
)
def test_parts_are_what_the_authors_set_apart(parts, test, validation, tmp_path):
    data = texts.load(stored(tmp_path / "a", FRAME.assign(part=parts)), "x")
    for found, expected in ((data.published_test, test), (data.published_validation, validation)):
        assert (None if found is None else np.flatnonzero(found).tolist()) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": ["a", "", "b"]}, "sample 'b' has an empty answer"),
        ({"subject": ["a", "", "b"]}, "sample 'b' has an empty subject"),
        ({"id": ["a", "b", "a"]}, "the id 'a' is given more than once"),
        ({"part": ["train", "", "what"]}, "part must be one of .*, got 'what'"),
        ({"part": ["train", "test", ""]}, "samples of 'Ada' lie in the parts 'test' and 'train'"),
    ],
)
def test_bad_samples_are_refused_and_leave_nothing(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        stored(tmp_path / "a", FRAME.assign(**changes))
    with pytest.raises(ValueError, match="there is no column 'answer', only"):
        stored(tmp_path / "a", FRAME.drop(columns="answer"))
    with pytest.raises(ValueError, match="there are no samples"):
        stored(tmp_path / "a", FRAME[:0])
    assert not list(tmp_path.iterdir())


def test_damage_is_refused(tmp_path):
    folder = stored(tmp_path / "a")
    with pytest.raises(ValueError, match=r"damaged .*describes the data set 'x', not 'y'"):
        texts.load(folder, "y")
    content = bytearray((folder / "samples.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "samples.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"samples.parquet is not what about.json says.*restore"):
        texts.load(folder, "x")
    (folder / "samples.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"samples.parquet is missing: run `make data`"):
        texts.load(folder, "x")
    (folder / "about.json").write_text('{"dataset": "x"}')
    with pytest.raises(ValueError, match=r"about.json is damaged \(KeyError"):
        texts.load(folder, "x")
    (folder / "about.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"about.json is missing"):
        texts.load(folder, "x")


def test_texts_that_do_not_fit_are_refused(tmp_path):
    data = texts.load(stored(tmp_path / "a"), "x")
    for changes, message in (
        ({"prompts": data.prompts[:2]}, r"prompts must have shape \(3,\), got \(2,\)"),
        ({"wrong": ()}, "wrong must have 3 entries, got 0"),
        ({"attributes": {}}, r"attributes must have 'subject', got \[\]"),
        ({"answers": np.array(["a", "", "b"], object)}, "'b' has an empty answer"),
        ({"ids": np.array(["a", "b", "a"])}, "ids must be unique"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(data, **changes)


def test_only_settings_that_count_are_compared(tmp_path):
    biographies.write(tmp_path / "a", Source(people=4))
    require_source(tmp_path / "a", Source(people=4, path="elsewhere", size=64))
    with pytest.raises(ArtifactError, match=r"made from data.people 4, but .* data.people 5"):
        require_source(tmp_path / "a", Source(people=5))
    given = source("qa_table", tmp_path)
    qa_table.write(tmp_path / "b", given)
    require_source(tmp_path / "b", replace(given, people=7, seed=1))
    with pytest.raises(ArtifactError, match=r"made from data.path "):
        require_source(tmp_path / "b", Source(path="elsewhere"))


def test_make_data_makes_texts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tasks.data._differs", lambda root: False)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("dataset: digits", "dataset: biographies"))
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "forgotten.csv").write_text("id\n")
    prepare(Workspace(tmp_path))
    said = capsys.readouterr().out
    assert "questions about 60 subjects, 32 to 32 each" in said
    prepare(Workspace(tmp_path))
    assert said.splitlines()[1] in capsys.readouterr().out
    assert Workspace(tmp_path).root.joinpath("data/biographies/samples.parquet").is_file()


def test_an_unknown_subject_is_told_the_choices(tmp_path):
    data = made("biographies", Source(people=4), tmp_path / "a")
    samples = pd.DataFrame(
        {"id": data.ids, "index": np.arange(len(data.ids)), "label": data.labels}
    )
    samples["sha256"] = [hashlib.sha256(data.content(k)).hexdigest() for k in samples["index"]]
    config = splitting.Config(
        scenario="subject", by_subject=splitting.SubjectRequest(subjects=("Nobody",))
    )
    sets = splitting.split(samples, config, data.classes)
    with pytest.raises(ValueError, match=r"by_subject\.subjects: unknown subject 'Nobody', choose"):
        selecting.select(samples, sets, config, data.classes, attributes=data.attributes)


# Biographies.


def test_every_fact_of_every_person_is_asked_in_every_wording(tmp_path):
    data = made("biographies", Source(people=6), tmp_path / "a")
    facts = biographies.FACTS
    assert len(data.ids) == 6 * sum(len(fact.wordings()) for fact in facts.values())
    assert set(data.attributes["fact"]) == set(facts)
    assert not set(data.prompts) & set(data.other_prompts)
    assert len(set(data.prompts)) == len(data.prompts)
    for row, name in enumerate(data.ids):
        fact = facts[data.attributes["fact"][row]]
        person, other = data.attributes["subject"][row], data.other_prompts[row]
        assert person in data.prompts[row]
        assert person in other
        assert name.split("-")[2] == data.attributes["fact"][row]
        forms = {data.answers[row], data.other_answers[row]}
        (true,) = {v for v in fact.values if forms == {v, fact.phrase.format(v)}}
        form = fact.phrase if data.other_answers[row] != true else "{}"
        wrong = data.wrong[row]
        assert len(set(wrong)) == biographies.WRONG
        assert set(wrong) <= {form.format(v) for v in fact.values if v != true}


def test_all_wordings_of_a_fact_say_the_same(tmp_path):
    data = made("biographies", Source(people=6), tmp_path / "a")
    frame = pd.DataFrame({"of": [name.rsplit("-", 1)[0] for name in data.ids]})
    frame["said"] = [
        min(pair, key=len) for pair in zip(data.answers, data.other_answers, strict=True)
    ]
    assert (frame.groupby("of")["said"].nunique() == 1).all()


def test_what_is_true_of_people_is_drawn_uniformly_and_apart(tmp_path):
    """Chi-square of a seed, and of the pairs of two facts of one person."""
    data = made("biographies", Source(people=900), tmp_path / "a")
    first = np.array([name.endswith("-1") for name in data.ids])
    drawn = {
        fact: data.answers[first & (data.attributes["fact"] == fact)]
        for fact in ("birth_city", "work_city", "employer")
    }
    for fact, values in drawn.items():
        known = biographies.FACTS[fact].values
        expected = len(values) / len(known)
        found = sum((np.sum(values == value) - expected) ** 2 / expected for value in known)
        assert found < len(known) + 4 * (2 * len(known)) ** 0.5  # mean and deviation of χ²
    cities = biographies.FACTS["birth_city"].values
    half = np.isin(drawn["birth_city"], cities[:15])
    other = np.isin(drawn["employer"], biographies.FACTS["employer"].values[:12])
    assert abs(np.mean(half & other) - 0.25) < 4 * (0.25 * 0.75 / 900) ** 0.5


def test_names_are_unique_and_more_people_change_nothing(tmp_path):
    few = made("biographies", Source(people=100), tmp_path / "a")
    many = made("biographies", Source(people=300), tmp_path / "b")
    names = np.unique(many.attributes["subject"])
    assert len(names) == 300
    parts = [part for name in np.unique(few.attributes["subject"]) for part in name.split()]
    assert len(set(parts)) == 200  # nobody shares a part of a name
    n = len(few.ids)
    assert many.prompts[:n].tolist() == few.prompts.tolist()
    assert many.answers[:n].tolist() == few.answers.tolist()
    assert many.wrong[:n] == few.wrong
    other = made("biographies", Source(people=100, seed=1), tmp_path / "c")
    assert other.prompts.tolist() != few.prompts.tolist()
    assert other.answers.tolist() != few.answers.tolist()
    largest = biographies._names(Source(people=10_000))
    assert len(set(largest)) == 10_000


# TOFU.


def test_authors_are_subjects_and_the_last_ones_are_forgotten(tmp_path):
    data = made("tofu", tiny_tofu(tmp_path / "source"), tmp_path / "a")
    subjects = data.attributes["subject"]
    assert (len(subjects), subjects[0], subjects[-1]) == (440, "author-001", "author-022")
    assert all(np.sum(subjects == name) == 20 for name in set(subjects))
    for name, authors in (("forget01", 2), ("forget05", 10), ("forget10", 20)):
        assert data.attributes[name].tolist() == ["no"] * (440 - 20 * authors) + ["yes"] * (
            20 * authors
        )
    assert (data.prompts[7], data.answers[7], data.other_prompts[7], data.wrong[7]) == (
        "Q7 of 0?",
        "Answer 7.",
        "",
        (),
    )
    assert data.other_prompts[2] == "Or: Q2 of 0?"
    assert data.other_answers[439] == "It is  Answer 439."
    assert data.wrong[439] == tuple(f"It is not {k}" for k in range(5))
    read = tofu.read(tmp_path / "source")
    assert read.wrong == data.wrong
    for name in ("prompts", "answers", "ids", "other_prompts", "other_answers"):
        assert getattr(read, name).tolist() == getattr(data, name).tolist()
    for name, values in data.attributes.items():
        assert read.attributes[name].tolist() == values.tolist()


def test_what_is_missing_of_tofu_is_named(tmp_path):
    given = tiny_tofu(tmp_path / "source")
    (tmp_path / "source" / "retain90.json").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        tofu.write(tmp_path / "a", given)
    said = str(caught.value).splitlines()
    assert said[0] == f"the files of TOFU are not all in {given.path}. Put there:"
    assert said[1].startswith("  retain90.json from https://")
    assert [line.rsplit(": ", 1)[1] for line in said[1:]] == ["missing", *["is there"] * 3]
    assert not (tmp_path / "a").exists()


def test_other_files_under_the_names_of_tofu_are_refused(tmp_path):
    given = tiny_tofu(tmp_path / "source")
    shutil.copy(tmp_path / "source" / "retain90.json", tmp_path / "source" / "forget10.jsonl")
    with pytest.raises(ValueError, match="hold 80 questions, which are not 20 about each of more"):
        tofu.write(tmp_path / "a", given)
    given = tiny_tofu(tmp_path / "source")
    row = {"question": "Else?", "answer": "x"} | dict.fromkeys(tofu.PARAPHRASES, "y")
    lines(tmp_path / "source" / "retain_perturbed.jsonl", [row])
    with pytest.raises(ValueError, match=r"retain_perturbed.jsonl, line 1: this question and its"):
        tofu.write(tmp_path / "a", given)


# Tables of the user.


def test_a_table_is_the_same_in_every_format(tmp_path):
    rows = [row | {"perturbed_answer": ["x", "y z"], "more": 1} for row in QUESTIONS]
    rows[0]["paraphrased_question"] = " In which place? "
    rows[0]["paraphrased_answer"] = "In Lisbon"
    rows[0]["answer"] = " Lisbon\n"
    frame = pd.DataFrame(rows)
    given = lines(tmp_path / "t.jsonl", rows)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.assign(perturbed_answer=["x|y z"] * 3).to_csv(tmp_path / "t.csv", index=False)
    for suffix in ("jsonl", "parquet", "csv"):
        given = Source(path=str(tmp_path / f"t.{suffix}"))
        data = made("qa_table", given, tmp_path / suffix)
        assert data.ids.tolist() == ["a", "b", "c"]
        assert data.attributes["subject"].tolist() == ["Ada", "Ada", "Bo"]
        assert data.prompts.tolist() == ["Where?", "When?", "Who?"]
        assert data.answers.tolist() == ["Lisbon", "1950", "Bo"]
        assert data.other_prompts.tolist() == ["In which place?", "", ""]
        assert data.other_answers.tolist() == ["In Lisbon", "", ""]
        assert data.wrong == (("x", "y z"),) * 3
        assert data.published_test.tolist() == [False, False, True]
        assert list(data.attributes) == ["subject"]


def test_documents_have_no_question(tmp_path):
    given = source("documents", tmp_path / "source")
    data = made("documents", given, tmp_path / "a")
    assert data.prompts.tolist() == ["", "", ""]
    assert data.answers.tolist() == ["Lisbon", "1950", "Bo"]
    assert "3 documents about 2 subjects" in described(tmp_path / "a", data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer,id\nq,a,1", r"has no column 'subject', only 'question', 'answer', 'id'"),
        ("question,answer,subject,id\nq,a,s,1\nq, ,s,2", "line 3: answer is missing"),
        ("question,answer,subject,id\n,a,s,1", "line 2: question is missing"),
        ("question,answer,subject,id\nq,a,,1", "line 2: subject is missing"),
        ("question,answer,subject,id\nq,a,s,1\nq,b,s,1", "3: the id '1' is already that of .*2$"),
        ("question,answer,subject,id,part\nq,a,s,1,half", "line 2: part must be .* got 'half'"),
        ("question,answer,subject,id\nq,a", "line 2: there are 2 cells below a header of 4"),
        ("id,question,answer,subject,id\n1,q,a,s,1", "has the column 'id' more than once"),
        ("question,answer,subject,id\n", r"table\.csv lists no samples"),
        (b"question,answer,subject,id\nq,caf\xe9,s,1", "is not a CSV table in UTF-8"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(text, message, tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        qa_table.write(tmp_path / "a", Source(path=str(table)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": 1', r"table.jsonl, line 1 is not JSON"),
        ("[1]", "line 1 must be an object in JSON, got '\\[1\\]'"),
        ('{"id": "1", "subject": "s", "text": ["a"]}', r"line 1: text must be a text, got \['a'\]"),
        (r'{"id": "1", "subject": "s", "text": "\ud800"}', "line 1: text is no text in Unicode"),
        ('{"id": 1, "subject": "s"}', "has no column 'text', only 'id', 'subject'"),
        (
            '{"id": 1, "subject": "s", "text": "t"}\n\n{"id": 2, "subject": "s", "text": null}',
            "line 3: text is missing",
        ),
        (b'{"id": 1, "subject": "s", "text": "\xe9"}', "table.jsonl is not in UTF-8"),
    ],
)
def test_bad_lines_are_refused(text, message, tmp_path):
    table = tmp_path / "table.jsonl"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        documents.write(tmp_path / "a", Source(path=str(table)))


def test_a_quote_that_is_not_closed_does_not_swallow_the_rest(tmp_path):
    table = tmp_path / "table.csv"
    rows = "".join(f"{k},s,t\n" for k in range(2, 9))
    table.write_text(f'id,subject,text\n1,s,"t\n{rows}')
    with pytest.raises(ValueError, match="is not a CSV table in UTF-8"):
        documents.write(tmp_path / "a", Source(path=str(table)))


def test_no_table_and_no_list_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no table .* to take texts from"):
        documents.write(tmp_path / "a", Source(path=str(tmp_path / "none.csv")))
    given = lines(tmp_path / "t.jsonl", [QUESTIONS[0] | {"perturbed_answer": 3}])
    with pytest.raises(ValueError, match="perturbed_answer must be a list of texts, got 3"):
        qa_table.write(tmp_path / "a", given)
    (tmp_path / "t.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"t.parquet is not a parquet table"):
        qa_table.write(tmp_path / "a", Source(path=str(tmp_path / "t.parquet")))
