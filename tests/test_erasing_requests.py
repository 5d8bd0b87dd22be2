"""What a request asks for: letters, and the samples that they mean."""

from pathlib import Path

import pandas as pd
import pytest

from flows.erasing.letters import letters, settings_of
from flows.erasing.office import Office
from tasks.erasing import ErasureError, matching
from tasks.erasing.matching import Asked
from tasks.files import artifacts, forgotten, params
from tests.conftest import REPOSITORY
from tests.erasures import laid_out, letter


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return laid_out(tmp_path)


# Matching, and what comes back.

SAMPLES = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d", "e"],
        "label": 0,
        "sha256": ["1", "2", "1", "3", "4"],
    }
)
SETS = {
    "train": SAMPLES[SAMPLES["id"].isin(["a", "d"])],
    "validation": SAMPLES[SAMPLES["id"].isin(["b"])],
    "test": SAMPLES[SAMPLES["id"].isin(["c"])],
}


def test_samples_are_found_where_they_lie_and_so_are_their_copies() -> None:
    found = matching.matched(SAMPLES, SETS, {"a", "b", "e"}, set(), twins=True)
    assert found.counts == {"train": 1, "validation": 1, "test": 1, "not used": 1}
    assert found.samples.set_index("id")["of"].to_dict() == {"a": "", "b": "", "e": "", "c": "a"}
    left = matching.matched(SAMPLES, SETS, {"a"}, set(), twins=False)
    assert list(left.samples["id"]) == ["a"]
    assert left.kept[["id", "set", "of"]].to_numpy().tolist() == [["c", "test", "a"]]
    assert left.digests == {
        "before": matching.digest(SETS["train"]),
        "after": matching.digest(SAMPLES[SAMPLES["id"] == "d"]),
    }


def table(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(forgotten.COLUMNS))


def test_what_was_forgotten_is_left_out_by_its_mark_or_its_id() -> None:
    given = table(("", forgotten.mark("b", "2"), "2", "7"), ("d", "", "", ""))
    assert set(forgotten.left_out(SAMPLES, given, "f.csv")["id"]) == {"b", "d"}


def test_what_comes_back_under_another_id_is_refused_by_its_request() -> None:
    given = table(("", forgotten.mark("z", "2"), "2", "7"))
    with pytest.raises(ValueError, match=r"come back, the first is 'b', of erasure request 7"):
        forgotten.left_out(SAMPLES, given, "f.csv")
    forgotten.left_out(SAMPLES, table(("", forgotten.mark("z", "2"), "", "7")), "f.csv")


def test_rows_of_other_samples_and_further_columns_stay(root: Path) -> None:
    file = root / "requests/forgotten.csv"
    file.write_text(f"id,mark,sha256,request,why\n,{forgotten.mark('z', '9')},9,3,gdpr\nx,,,,\n")
    found = matching.matched(SAMPLES, SETS, {"a"}, set(), twins=False)
    for _ in range(2):
        Office(root).leave_out(file, 3, found)
    given = artifacts.read_given(file, **dict.fromkeys(forgotten.COLUMNS, "str"))
    assert list(given["mark"]) == [forgotten.mark("z", "9"), "", forgotten.mark("a", "1")]
    assert list(given["why"].fillna("")) == ["gdpr", "", ""]


def test_a_copy_that_was_kept_does_not_count_as_come_back(root: Path) -> None:
    found = matching.matched(SAMPLES, SETS, {"a"}, set(), twins=False)
    Office(root).leave_out(root / "requests/forgotten.csv", 3, found)
    given = artifacts.read_given(root / "requests/forgotten.csv", id="str", request="str")
    assert set(forgotten.left_out(SAMPLES, given, "f.csv")["id"]) == {"a"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "one of the two"),
        ({"ids": ("a",), "subjects": ("b",)}, "one of the two"),
        ({"ids": ("",)}, "each name"),
        ({"ids": ("a\0b",)}, "each name"),
        ({"subjects": (1,)}, "each name"),
    ],
)
def test_a_request_names_ids_or_subjects(asked, message) -> None:
    with pytest.raises(ErasureError, match=message):
        Asked(**asked)


# Letters.


def test_letters_are_read_and_bad_ones_named(root: Path) -> None:
    inbox = root / "requests" / "inbox"
    assert letters(root) == ([], [])
    (inbox / "1.csv").write_text("subject\nAda\nAda\n")
    (inbox / "2.yaml").write_text("people: [x]\n")
    (inbox / "3.yaml").write_text("ids: ['7']\n")
    (inbox / "2b.yaml").write_text("{ids: ['7'], settings: ../../../etc/passwd}\n")
    (inbox / ".4.yaml").write_text("half")
    found = letters(root)
    assert [asked for _, asked in found.good] == [Asked(subjects=("Ada",)), Asked(ids=("7",))]
    said, outside = found.bad
    assert "settings must be a file in settings/" in outside
    assert said.startswith("the letter 2.yaml cannot be served: it must be a mapping")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("subjects: " + "[" * 50_000, "nested deeper than 20"),
        ("subjects:\n - &a [secret]\n - *a\n", "an anchor or an alias"),
        ("subjects: secret\n", "must be a list of texts"),
        ("subjects: [{secret: 1}]\n", "each name must be a text"),
        ("secret\n", "must be a mapping"),
        ("subjects: [secret]]\n", "not valid YAML"),
        ("subjects: !!python/object/apply:os.system [secret]\n", "not valid YAML"),
        ('ids: ["secret\\0"]\n', "control characters"),
        ("#" * 100_001, "100001 bytes, more than 100000, so that it must be a table"),
        ('subjects: [secret]\nsettings: "a\\0b"\n', "letter a.yaml cannot be served"),
    ],
)
def test_a_bad_letter_holds_up_no_other_and_nothing_of_it_is_told(root, content, why) -> None:
    (root / "requests" / "inbox").mkdir()
    (root / "requests/inbox/a.yaml").write_text(content)
    letter(root, "subjects: [Ada]\n", "b.yaml")
    found = letters(root)
    assert [asked for _, asked in found.good] == [Asked(subjects=("Ada",))]
    (said,) = found.bad
    assert why in said
    assert "secret" not in said


def test_a_letter_that_is_a_link_is_refused(root: Path) -> None:
    (root / "requests" / "inbox").mkdir()
    (root / "requests/inbox/a.yaml").symlink_to(root / "params.yaml")
    assert letters(root).bad == ["the letter a.yaml cannot be served: it is a link"]


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("settings/a.yaml", "split.dataset: faces\n", ""),
        ("requests/inbox/a.yaml", "split.dataset: faces\n", "must be a file in settings/"),
        ("settings/Ada", "", "^settings must be a file in settings/$"),
        ("settings/a.yaml\0", "", "^settings must be a file in settings/$"),
        ("settings/../a.yaml", "split.dataset: faces\n", "must be a file in settings/"),
        ("settings/a.yaml", "verdict.distance: 99.0\n", "may not change verdict.distance"),
        ("settings/a.yaml", "split.forgotten_before: a.csv\n", "may not change split.forgotten"),
        ("settings/a.yaml", "split.dataset: 2020-01-01\n", "not JSON serializable"),
    ],
)
def test_settings_lie_in_their_folder_and_change_no_judgement(root, file, content, why) -> None:
    (root / "settings").mkdir()
    (root / "requests" / "inbox").mkdir()
    if content:
        (root / file).write_text(content)
    if why:
        with pytest.raises(params.ParameterError, match=why):
            settings_of(root, file)
    else:
        assert settings_of(root, file) == {"split.dataset": "faces"}


def test_the_page_says_what_the_simulation_found() -> None:
    page = " ".join((REPOSITORY / "docs/erasure.md").read_text().split())
    table = pd.read_csv(REPOSITORY / "docs/erasures.csv")
    taken, never = table["retrained"], table["TV unlearned"].round(2)
    for said in (
        f"{never[9]} from retraining after ten requests",
        f"{never[19]} after twenty, {never[49]} after fifty",
        f"it took {taken.sum()} retrainings in {len(table)} requests",
        f"{table['training s'].sum():.0f} s to retrain for each request",
        f"{table['unlearning s, bounded'].sum() + table['training s'][taken].sum():.0f} s with the",
    ):
        assert said in page
