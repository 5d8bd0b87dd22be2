import unicodedata
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from imu.metrics import linear_probe
from imu.selecting import Selection
from imu.selecting import select as selection
from imu.splitting import (
    ClassRequest,
    Config,
    FractionRequest,
    GroupRequest,
    IdsRequest,
    SubjectRequest,
)
from imu.splitting import split as split_of_classes

CLASSES = ("ant", "bee", "cat")
CONFIG = Config(validation=0.2, test=0.2)
COUNTS = {0: 40, 1: 60, 2: 100}


def samples() -> pd.DataFrame:
    labels = [label for label, n in COUNTS.items() for _ in range(n)]
    # The ids run backwards, so that they cannot be taken for rows.
    ids = [f"s{999 - i}" for i in range(len(labels))]
    return pd.DataFrame(
        {"id": ids, "index": range(len(labels)), "label": labels, "sha256": [f"h{i}" for i in ids]}
    )


def split(rows: pd.DataFrame, config: Config, published=None) -> dict[str, pd.DataFrame]:
    return split_of_classes(rows, config, CLASSES, published)


def select(
    rows: pd.DataFrame, config: Config, requested=None, attributes=None, before=None
) -> Selection:
    tables = [None if t is None else pd.DataFrame({"id": list(t)}) for t in (requested, before)]
    return selection(rows, split(rows, config), config, CLASSES, tables[0], attributes, tables[1])


def by_class(*names: str) -> Config:
    return replace(CONFIG, scenario="class", by_class=ClassRequest(classes=names))


def by_fraction(fraction: float, **more) -> Config:
    request = FractionRequest(fraction=fraction, **more)
    return replace(CONFIG, scenario="fraction", by_fraction=request)


BY_IDS = replace(CONFIG, scenario="ids", by_ids=IdsRequest(file="ask.csv"))


def chosen(config: Config, ids=None):
    return select(samples(), config, ids)[:2]


# By row: ants are red, bees red or blue, cats blue; each of 20 people has ten samples.
COLOURS = np.array(["red"] * 60 + ["blue"] * 140)
PEOPLE = np.array([f"p{row % 20}" for row in range(200)])
ATTRIBUTES = {"colour": COLOURS, "subject": PEOPLE}


def by_group(*values: str, attribute: str = "colour") -> Config:
    request = GroupRequest(attribute=attribute, values=values)
    return replace(CONFIG, scenario="group", by_group=request)


def by_subject(*subjects: str) -> Config:
    return replace(CONFIG, scenario="subject", by_subject=SubjectRequest(subjects=subjects))


def with_attributes(config: Config):
    return select(samples(), config, attributes=ATTRIBUTES)[:2]


def ids_of(name: str, label: int | None = None) -> list[str]:
    rows = split(samples(), CONFIG)[name]
    return rows["id"][rows["label"] == label if label is not None else slice(None)].tolist()


def test_shares_are_those_of_all_samples():
    sizes = {name: len(rows) for name, rows in split(samples(), CONFIG).items()}
    assert sizes == {"train": 120, "validation": 40, "test": 40}


def test_every_class_is_divided_in_the_same_shares():
    for name, share in {"train": 0.6, "validation": 0.2, "test": 0.2}.items():
        found = split(samples(), CONFIG)[name]["label"].value_counts().to_dict()
        assert found == {label: share * n for label, n in COUNTS.items()}


def test_sets_are_disjoint_complete_and_sorted():
    sets = split(samples(), CONFIG)
    together = pd.concat(list(sets.values())).sort_values("index", ignore_index=True)
    pd.testing.assert_frame_equal(together, samples())
    assert all(rows["index"].is_monotonic_increasing for rows in sets.values())


def test_a_seed_fixes_the_split():
    first, again, other = (split(samples(), replace(CONFIG, seed=s)) for s in (0, 0, 1))
    for name in first:
        assert first[name].equals(again[name])
        assert not first[name].equals(other[name])


def test_the_split_does_not_depend_on_what_is_forgotten():
    plain = split(samples(), CONFIG)
    for config in (by_class("bee"), by_fraction(0.3)):
        found = chosen(config)[0]
        assert all(found[name].equals(plain[name]) for name in plain)


@pytest.mark.parametrize("names", [("bee",), ("cat", "ant")])
def test_a_class_is_forgotten_whole(names):
    sets, whole = chosen(by_class(*names))
    labels = tuple(sorted({CLASSES.index(name) for name in names}))
    assert whole == labels
    assert set(sets["forget"]["label"]) == set(labels)
    assert set(sets["retain"]["label"]) == {0, 1, 2} - set(labels)


@pytest.mark.parametrize(
    ("config", "ids"),
    [(by_class("bee"), None), (by_fraction(0.3), None), (BY_IDS, ids_of("train")[::7])],
)
def test_forget_and_retain_divide_the_training_set(config, ids):
    sets, _ = chosen(config, ids)
    together = pd.concat([sets["forget"], sets["retain"]]).sort_values("index", ignore_index=True)
    pd.testing.assert_frame_equal(together, sets["train"])
    assert list(sets) == ["train", "forget", "retain", "validation", "test"]


def test_a_stratified_fraction_takes_the_same_share_of_every_class():
    sets, whole = chosen(by_fraction(0.25))
    assert sets["forget"]["label"].value_counts().to_dict() == {0: 6, 1: 9, 2: 15}
    assert whole == ()


def test_an_unstratified_fraction_takes_its_share_of_the_whole():
    drawn = [chosen(by_fraction(0.25, stratified=False, seed=s))[0]["forget"] for s in range(5)]
    assert [len(rows) for rows in drawn] == [30] * 5
    assert len({tuple(rows["label"].value_counts().sort_index()) for rows in drawn}) > 1


@pytest.mark.parametrize("stratified", [True, False])
def test_a_seed_fixes_the_fraction(stratified):
    first, again, other = (
        chosen(by_fraction(0.2, stratified=stratified, seed=s))[0]["forget"] for s in (0, 0, 1)
    )
    assert first.equals(again)
    assert not first.equals(other)


def test_an_erasure_request_reaches_validation_and_test_too():
    asked = [*ids_of("train")[:5], *ids_of("validation")[:3], *ids_of("test")[:2]]
    sets, whole = chosen(BY_IDS, asked)
    assert {name: len(rows) for name, rows in sets.items()} == {
        "train": 120,
        "forget": 5,
        "retain": 115,
        "validation": 37,
        "test": 38,
    }
    assert sets["forget"]["id"].tolist() == asked[:5]
    for name in ("retain", "validation", "test"):
        assert not set(sets[name]["id"]) & set(asked)
    assert whole == ()


def test_a_request_for_all_training_samples_of_a_class_is_class_wise():
    assert chosen(BY_IDS, ids_of("train", 1))[1] == (1,)
    assert chosen(BY_IDS, ids_of("train", 1)[1:])[1] == ()
    assert chosen(BY_IDS, ids_of("train", 1) + ids_of("train", 2)[:1])[1] == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (by_class("bee", "dog"), "unknown class 'dog', choose from ant, bee, cat"),
        (by_class(), "by_class.classes is empty: name at least one class"),
        (by_class(*CLASSES), "forget set is the whole training set"),
        (by_fraction(1e-6), "forget set is empty"),
        (by_fraction(0.9999), "forget set is the whole training set"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        chosen(config)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["s999", "zz", "zx"], r"ask\.csv: 2 of 3 ids are not in the data set, the first is 'zx'"),
        (["s999", "s998", "s999"], r"ask\.csv names 's999' more than once"),
        ([], r"ask\.csv names no id: the request is empty"),
        (ids_of("train"), "forget set is the whole training set"),
        (ids_of("validation")[:4], "empty: none .* was trained on; .* elsewhere: 4 validation"),
        (ids_of("train")[:5] + ids_of("validation"), "no validation sample left of a class that"),
        (ids_of("train", 0) + ids_of("test", 0), "class 'ant' has no test sample left"),
        (["s999", None, "zz"], r"ask\.csv"),
    ],
)
def test_an_erasure_request_that_cannot_be_met_is_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        chosen(BY_IDS, ids)


def test_a_request_without_ids_is_refused():
    wrong, sets = pd.DataFrame({"name": ["s1"]}), split(samples(), BY_IDS)
    with pytest.raises(ValueError, match=r"ask\.csv has no column 'id', only \['name'\]"):
        selection(samples(), sets, BY_IDS, CLASSES, wrong)


def test_numbers_are_ids_as_well():
    rows = samples().assign(id=[str(i) for i in range(200)])
    sets = split(rows, BY_IDS)
    asked = [int(i) for i in sets["train"]["id"][:3]]
    assert len(select(rows, BY_IDS, asked).sets["forget"]) == 3


@pytest.mark.parametrize("field", ["validation", "test"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
def test_shares_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be in \(0, 1\).*, got {value}"):
        replace(CONFIG, **{field: value})


def test_a_group_is_forgotten_where_it_was_trained_on():
    sets, whole = with_attributes(by_group("red"))
    assert set(COLOURS[sets["forget"]["index"]]) == {"red"}
    assert set(COLOURS[sets["retain"]["index"]]) == {"blue"}
    assert set(COLOURS[sets["test"]["index"]]) == {"red", "blue"}  # to be judged on
    assert whole == ()  # some bees are retained
    with pytest.raises(ValueError, match="whole training set"):
        with_attributes(by_group("red", "blue"))


def test_a_group_that_covers_classes_is_class_wise():
    kinds = {"kind": np.array(["insect"] * 100 + ["mammal"] * 100)}
    config = by_group("insect", attribute="kind")
    assert select(samples(), config, attributes=kinds).forget_classes == (0, 1)


def test_all_samples_of_a_subject_are_erased():
    sets, whole = with_attributes(by_subject("p3", "p7"))
    theirs = set(samples()["id"][np.isin(PEOPLE, ["p3", "p7"])])
    before = split(samples(), CONFIG)
    assert set(sets["forget"]["id"]) == theirs & set(before["train"]["id"])
    for name in ("validation", "test"):
        assert set(sets[name]["id"]) == set(before[name]["id"]) - theirs
    assert len(sets["test"]) < len(before["test"])
    assert whole == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (by_group("green"), "by_group.values: unknown colour 'green', choose from blue, red"),
        (by_group(), "by_group.values is empty"),
        (by_group("red", attribute="size"), "no attribute 'size'; it has: colour, subject"),
        (by_subject("p99"), r"by_subject.subjects: unknown subject 'p99', choose from p0, p1, p10"),
        (by_subject(), "by_subject.subjects is empty"),
    ],
)
def test_groups_and_subjects_that_do_not_exist_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        with_attributes(config)


def test_data_without_attributes_say_so():
    with pytest.raises(ValueError, match="no attribute 'subject'; it has: none"):
        chosen(by_subject("p1"))


def test_the_published_test_samples_are_the_test_set():
    published = np.arange(200) % 4 == 0
    config = replace(CONFIG, test="published")
    sets = split(samples(), config, published)
    assert sets["test"]["index"].tolist() == np.flatnonzero(published).tolist()
    assert len(sets["validation"]) == 40  # a share of all samples, as ever
    assert len(sets["train"]) == 110


def test_a_published_test_set_must_exist_and_leave_samples_to_validate():
    config = replace(CONFIG, test="published")
    with pytest.raises(ValueError, match="digits has no samples set apart for testing"):
        split(samples(), config)
    with pytest.raises(ValueError, match=r"asks for 0\.2 of 200 samples, but there are 20"):
        split(samples(), config, np.arange(200) % 10 != 0)


def test_validation_samples_can_be_taken_from_the_published_test_samples():
    published = np.arange(200) % 2 == 0
    config = replace(CONFIG, test="published", validation_from="test")
    sets = split(samples(), config, published)
    assert sets["train"]["index"].tolist() == np.flatnonzero(~published).tolist()
    assert len(sets["validation"]) == 40
    unseen = pd.concat([sets["validation"], sets["test"]])["index"]
    assert sorted(unseen) == np.flatnonzero(published).tolist()
    with pytest.raises(ValueError, match="'test' only where test is 'published', got 0"):
        replace(CONFIG, validation_from="test")


def test_published_validation_samples_are_the_validation_set():
    test, validation = (np.arange(200) % 4 == k for k in (0, 1))
    config = replace(CONFIG, test="published", validation_from="published")
    for used in (1.0, 0.5):
        sets = split_of_classes(samples(), replace(config, used=used), CLASSES, test, validation)
        for name, part in (("test", test), ("validation", validation)):
            assert part[sets[name]["index"]].all()
            assert len(sets[name]) == part.sum() * used
        assert len(sets["train"]) == 100 * used
        assert not (test | validation)[sets["train"]["index"]].any()


def test_published_validation_samples_are_not_trained_on_by_mistake():
    test, validation = (np.arange(200) % 4 == k for k in (0, 1))
    config = replace(CONFIG, test="published")
    with pytest.raises(ValueError, match=r"has 50 samples set apart for validation .* got 'train'"):
        split_of_classes(samples(), config, CLASSES, test, validation)
    with pytest.raises(ValueError, match="digits has no samples set apart for validation beside"):
        split_of_classes(samples(), replace(config, validation_from="published"), CLASSES, test)
    with pytest.raises(ValueError, match="'published' only where test is 'published', got 0"):
        replace(CONFIG, validation_from="published")
    split_of_classes(samples(), CONFIG, CLASSES, test, validation)  # by shares, whatever the parts


NFC, NFD = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("asked", [NFC, NFD, f" {NFD}\t"])
@pytest.mark.parametrize("kept", [NFC, NFD])
def test_a_request_finds_what_reads_the_same(asked, kept):
    assert NFC != NFD
    rows = samples()
    sets = split(rows, CONFIG)
    chosen = sets["train"]["index"].tolist()[:3]
    subjects = np.array([kept if row in chosen else "x" for row in range(200)])
    config = by_subject(asked)
    forget = select(rows, config, attributes={"subject": subjects}).sets["forget"]
    assert forget["index"].tolist() == chosen
    config = by_class(asked)
    assert selection(rows, sets, config, ("ant", kept, "cat")).forget_classes == (1,)
    rows.loc[chosen[1], "id"] = kept
    forget = select(rows, BY_IDS, [asked]).sets["forget"]
    assert forget["index"].tolist() == chosen[1:2]


def test_an_id_that_is_there_is_meant_as_it_stands():
    """In data from before names were brought into one form."""
    rows = samples()
    first, second = split(rows, CONFIG)["train"]["index"][:2]
    rows.loc[first, "id"], rows.loc[second, "id"] = "a", "a "
    for row, name in ((first, "a"), (second, "a ")):
        forget = select(rows, BY_IDS, [name]).sets["forget"]
        assert forget["index"].tolist() == [row]
    with pytest.raises(ValueError, match=r"ask\.csv names 's990' more than once"):
        select(rows, BY_IDS, ["s990", " s990"])


def test_a_share_of_the_samples_can_be_used():
    published = np.arange(200) % 4 == 0
    sets = split(samples(), replace(CONFIG, used=0.5, test="published"), published)
    together = pd.concat(list(sets.values()))
    assert together["label"].value_counts().to_dict() == {0: 20, 1: 30, 2: 50}
    assert len(sets["test"]) == 25
    assert published[sets["test"]["index"]].all()
    again = split(samples(), replace(CONFIG, used=0.5, test="published"), published)
    other = split(samples(), replace(CONFIG, used=0.5, test="published", seed=1), published)
    assert again["test"].equals(sets["test"])
    assert not other["test"].equals(sets["test"])


@pytest.mark.parametrize("used", [0.0, 1.1, -0.5])
def test_used_shares_out_of_range_are_refused(used):
    with pytest.raises(ValueError, match=rf"used must be in \(0, 1\], got {used}"):
        replace(CONFIG, used=used)


def test_shares_must_leave_training_samples():
    with pytest.raises(ValueError, match=r"validation \+ test must be < 1, got 0.5 \+ 0.5"):
        Config(validation=0.5, test=0.5)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(ValueError, match=rf"fraction must be in \(0, 1\), got {fraction}"):
        FractionRequest(fraction=fraction)


def test_a_class_too_small_to_split_is_refused():
    rows = pd.concat([samples().query("label != 0"), samples().query("label == 0")[:2]])
    with pytest.raises(
        ValueError, match=r"class 'ant' has 2 samples: .* at least 3 of every class"
    ):
        split(rows, CONFIG)


def where(*counts: int) -> dict[str, int]:
    return dict(zip(("train", "validation", "test", "not used"), counts, strict=True))


def test_an_erasure_request_says_where_its_samples_lie():
    asked = [*ids_of("train")[:5], *ids_of("validation")[:3], *ids_of("test")[:2]]
    assert select(samples(), BY_IDS, asked).requested == where(5, 3, 2, 0)
    assert select(samples(), by_class("bee")).requested == {}
    theirs = select(samples(), by_subject("p3", "p7"), attributes=ATTRIBUTES)
    assert sum(theirs.requested.values()) == 20
    assert theirs.requested["train"] == len(theirs.sets["forget"])


def test_what_is_not_used_is_in_the_data_set_all_the_same():
    config = replace(BY_IDS, used=0.5)
    sets = split(samples(), config)
    used = set(pd.concat(list(sets.values()))["id"])
    unused = [i for i in samples()["id"] if i not in used][:3]
    asked = [*sets["train"]["id"][:2], *unused]
    found = select(samples(), config, asked)
    assert found.requested == where(2, 0, 0, 3)
    assert found.sets["forget"]["id"].tolist() == asked[:2]
    with pytest.raises(ValueError, match=r"none .* was trained on; .* elsewhere: 3 not used"):
        select(samples(), config, unused)
    with pytest.raises(ValueError, match="1 of 2 ids are not in the data set, the first is 'zz'"):
        select(samples(), config, [asked[0], "zz"])
    everybody = np.where(samples()["id"].isin(unused), "p3", "p0")
    subject = replace(by_subject("p3"), used=0.5)
    with pytest.raises(ValueError, match="elsewhere: 3 not used"):
        select(samples(), subject, attributes={"subject": everybody})


# What was forgotten before


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        (by_class("bee"), None),
        (by_fraction(0.3), None),
        (BY_IDS, ids_of("train")[7:9]),
        (by_group("red"), None),
        (by_subject("p3"), None),
    ],
)
def test_what_was_forgotten_before_is_in_no_set(config, asked):
    former = [*ids_of("train")[:5], *ids_of("validation")[:3], *ids_of("test")[:2]]
    before = split(samples(), config)
    found = select(samples(), config, asked, ATTRIBUTES, before=[*former, former[0]])
    for name, rows in found.sets.items():
        assert not set(rows["id"]) & set(former), name
    assert found.left_out == {"train": 5, "validation": 3, "test": 2}
    # All others stay where they were: no model is judged on what it was trained on.
    assert set(found.sets["train"]["id"]) == set(before["train"]["id"]) - set(former)
    for name in ("validation", "test"):
        assert set(found.sets[name]["id"]) <= set(before[name]["id"])


def test_a_class_that_was_forgotten_whole_is_left_out_of_all_sets():
    found = select(samples(), by_class("bee"), before=ids_of("train", 0))
    assert {label for rows in found.sets.values() for label in rows["label"]} == {1, 2}
    assert found.forget_classes == (1,)
    assert found.left_out == {"train": 24, "validation": 8, "test": 8}


def test_what_was_forgotten_before_cannot_be_asked_for_again():
    former = ids_of("train")[:3]
    with pytest.raises(ValueError, match=rf"ask\.csv: 1 of 2 ids were .* first is '{former[0]}'"):
        select(samples(), BY_IDS, [former[0], ids_of("train")[5]], before=former)
    with pytest.raises(ValueError, match="the forget set is empty"):
        select(samples(), by_class("bee"), before=ids_of("train", 1))
    with pytest.raises(ValueError, match=r"forgotten\.csv: 1 of 4 ids are not in the data set"):
        select(samples(), by_class("bee"), before=[*former, "zz"])
    assert select(samples(), by_class("bee"), before=[]).left_out == dict.fromkeys(
        ("train", "validation", "test"), 0
    )


# Twins


def with_twins(of: str, *others: str) -> pd.DataFrame:
    """The samples, where ``others`` have the pixels of ``of``."""
    rows = samples()
    return rows.assign(sha256=rows["sha256"].mask(rows["id"].isin([of, *others]), "same"))


TWINS = [ids_of("train", 1)[0], ids_of("train", 2)[0], ids_of("validation")[0], ids_of("test")[0]]


def pairs(found: Selection) -> list[tuple[str, str, str, bool]]:
    return [tuple(row) for row in found.twins[["id", "set", "of", "before"]].values]


def test_copies_of_what_is_forgotten_are_named_and_stay():
    found = select(with_twins(*TWINS), BY_IDS, TWINS[:1])
    sets = ("train", "validation", "test")
    assert pairs(found) == [(i, s, TWINS[0], False) for i, s in zip(TWINS[1:], sets, strict=True)]
    assert found.sets["forget"]["id"].tolist() == TWINS[:1]
    for name, twin in zip(("retain", "validation", "test"), TWINS[1:], strict=True):
        assert twin in set(found.sets[name]["id"])
    assert select(samples(), BY_IDS, TWINS[:1]).twins.empty


def test_copies_of_what_is_forgotten_are_forgotten_too():
    config = replace(BY_IDS, forget_twins=True)
    found = select(with_twins(*TWINS), config, TWINS[:1])
    assert set(found.sets["forget"]["id"]) == set(TWINS[:2])
    for name in ("retain", "validation", "test"):
        assert not set(found.sets[name]["id"]) & set(TWINS)
    assert len(found.twins) == 3
    assert found.requested == where(1, 0, 0, 0)


def test_a_copy_in_training_of_what_is_erased_from_validation_is_found():
    config = replace(BY_IDS, forget_twins=True)
    other = ids_of("train")[20]
    found = select(with_twins(*TWINS), config, [TWINS[2], other])
    assert set(found.sets["forget"]["id"]) == {*TWINS[:2], other}


def test_two_that_are_both_forgotten_are_no_twins():
    assert select(with_twins(*TWINS[:2]), BY_IDS, TWINS[:2]).twins.empty


@pytest.mark.parametrize("config", [by_class("bee"), by_fraction(0.9, stratified=False)])
def test_copies_are_found_whatever_is_forgotten(config):
    found = select(with_twins(*TWINS), config)
    forgotten = set(found.sets["forget"]["id"]) & set(TWINS)
    assert forgotten
    assert set(found.twins["id"]) == set(TWINS) - forgotten
    both = select(with_twins(*TWINS), replace(config, forget_twins=True))
    assert set(both.sets["forget"]["id"]) & set(TWINS) == set(TWINS[:2])


def test_copies_of_what_was_forgotten_before_come_back_or_not():
    rows, other = with_twins(*TWINS), ids_of("train")[20]
    found = select(rows, BY_IDS, [other], before=TWINS[:1])
    assert [row[::3] for row in pairs(found)] == [(i, True) for i in TWINS[1:]]
    assert found.left_out == {"train": 1, "validation": 0, "test": 0}
    both = select(rows, replace(BY_IDS, forget_twins=True), [other], before=TWINS[:1])
    assert not set(pd.concat(list(both.sets.values()))["id"]) & set(TWINS)
    assert both.left_out == {"train": 2, "validation": 1, "test": 1}
    # One of them is asked for now: it is forgotten, and no copy that stays.
    now = select(rows, BY_IDS, [TWINS[1]], before=TWINS[:1])
    assert TWINS[1] not in set(now.twins["id"])


# Many classes, few samples


def many(each: int = 6, classes: int = 100) -> tuple[pd.DataFrame, tuple[str, ...]]:
    n = each * classes
    rows = {"id": [f"i{k}" for k in range(n)], "index": range(n), "label": np.arange(n) // each}
    return pd.DataFrame(rows), tuple(f"c{k}" for k in range(classes))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (
            {"validation": 0.2, "test": 0.15},
            r"split\.test is 0\.15: 90 of 600 samples cannot hold one of each of 100 classes; it "
            r"must be at least 0\.1667",
        ),
        ({"validation": 0.15, "test": 0.2}, r"split\.validation is 0\.15: 90 .* least 0\.1667"),
        ({"validation": 0.05, "test": 0.9}, r"split\.test is 0\.9: the 60 .* most 0\.8333"),
        ({"validation": 0.5, "test": 0.4}, r"split\.validation is 0\.5: the 60 .* most 0\.4333"),
        ({"used": 0.05}, "class 'c0' has 0 samples at split.used 0.05: .* at least 3"),
        ({"used": 0.2}, "class 'c0' has 1 samples at split.used 0.2: .* at least 3"),
    ],
)
def test_shares_that_come_to_no_sample_of_a_class_are_refused(shares, message):
    rows, classes = many()
    with pytest.raises(ValueError, match=message):
        split_of_classes(rows, replace(CONFIG, **shares), classes)


@pytest.mark.parametrize("shares", [(0.1667, 0.1667), (0.1667, 0.6), (0.4333, 0.4)])
def test_the_limits_that_are_named_are_met(shares):
    rows, classes = many()
    sets = split_of_classes(rows, Config(validation=shares[0], test=shares[1]), classes)
    assert all(rows["label"].nunique() == 100 for rows in sets.values())


def test_a_class_too_small_for_the_second_division_is_named():
    rows = pd.concat([samples().query("label != 0"), samples().query("label == 0")[:3]])
    with pytest.raises(ValueError, match=r"split\.validation is 0\.2: class 'ant' has 1 sample"):
        split(rows, replace(CONFIG, test=0.7))


@pytest.mark.parametrize(
    ("stratified", "message"),
    [
        (True, r"of the 60 samples of the largest class .* above 0\.0084, or .*stratified false"),
        (False, r"of the 120 samples of the training set it comes to none; .* above 0\.0042$"),
    ],
)
def test_a_fraction_that_comes_to_no_sample_is_refused(stratified, message):
    with pytest.raises(ValueError, match=r"by_fraction\.fraction is 0\.001: .*" + message):
        chosen(by_fraction(0.001, stratified=stratified))


def test_the_few_are_as_many_as_a_probe_of_few_learns_from_at_most():
    from tasks import split as stage

    assert max(linear_probe.FEW) == stage.FEW
