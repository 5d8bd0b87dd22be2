import unicodedata
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from imu.splitting import (
    ClassRequest,
    Config,
    FractionRequest,
    GroupRequest,
    IdsRequest,
    SubjectRequest,
    select,
    split,
)

CLASSES = ("ant", "bee", "cat")
CONFIG = Config(validation=0.2, test=0.2)
COUNTS = {0: 40, 1: 60, 2: 100}


def samples() -> pd.DataFrame:
    labels = [label for label, n in COUNTS.items() for _ in range(n)]
    # The ids run backwards, so that they cannot be taken for rows.
    ids = [f"s{999 - i}" for i in range(len(labels))]
    return pd.DataFrame({"id": ids, "index": range(len(labels)), "label": labels})


def by_class(*names: str) -> Config:
    return replace(CONFIG, scenario="class", by_class=ClassRequest(classes=names))


def by_fraction(fraction: float, **more) -> Config:
    request = FractionRequest(fraction=fraction, **more)
    return replace(CONFIG, scenario="fraction", by_fraction=request)


BY_IDS = replace(CONFIG, scenario="ids", by_ids=IdsRequest(file="ask.csv"))


def chosen(config: Config, ids=None):
    requested = None if ids is None else pd.DataFrame({"id": list(ids)})
    return select(split(samples(), config), config, CLASSES, requested)


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
    return select(split(samples(), config), config, CLASSES, None, ATTRIBUTES)


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


@pytest.mark.parametrize("names", [("bee",), ("cat", "ant"), ("bee", "bee")])
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
        (ids_of("validation")[:4], "forget set is empty: none .* was trained on"),
        (ids_of("train", 0) + ids_of("test", 0), "class 'ant' has no test sample left"),
        (["s999", None, "zz"], r"ask\.csv"),
    ],
)
def test_an_erasure_request_that_cannot_be_met_is_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        chosen(BY_IDS, ids)


def test_a_request_without_ids_is_refused():
    with pytest.raises(ValueError, match=r"ask\.csv has no column 'id', only \['name'\]"):
        select(split(samples(), BY_IDS), BY_IDS, CLASSES, pd.DataFrame({"name": ["s1"]}))


def test_numbers_are_ids_as_well():
    rows = samples().assign(id=[str(i) for i in range(200)])
    sets = split(rows, BY_IDS)
    asked = [int(i) for i in sets["train"]["id"][:3]]
    assert len(select(sets, BY_IDS, CLASSES, pd.DataFrame({"id": asked}))[0]["forget"]) == 3


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
    assert select(split(samples(), config), config, CLASSES, None, kinds)[1] == (0, 1)


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
        sets = split(samples(), replace(config, used=used), test, validation)
        for name, part in (("test", test), ("validation", validation)):
            assert part[sets[name]["index"]].all()
            assert len(sets[name]) == part.sum() * used
        assert len(sets["train"]) == 100 * used
        assert not (test | validation)[sets["train"]["index"]].any()


def test_published_validation_samples_are_not_trained_on_by_mistake():
    test, validation = (np.arange(200) % 4 == k for k in (0, 1))
    config = replace(CONFIG, test="published")
    with pytest.raises(ValueError, match=r"has 50 samples set apart for validation .* got 'train'"):
        split(samples(), config, test, validation)
    with pytest.raises(ValueError, match="digits has no samples set apart for validation beside"):
        split(samples(), replace(config, validation_from="published"), test)
    with pytest.raises(ValueError, match="'published' only where test is 'published', got 0"):
        replace(CONFIG, validation_from="published")
    split(samples(), CONFIG, test, validation)  # by shares, whatever the parts


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
    forget = select(sets, config, CLASSES, None, {"subject": subjects})[0]["forget"]
    assert forget["index"].tolist() == chosen
    config = by_class(asked)
    assert select(sets, config, ("ant", kept, "cat"))[1] == (1,)
    rows.loc[chosen[1], "id"] = kept
    sets = split(rows, CONFIG)
    forget = select(sets, BY_IDS, CLASSES, pd.DataFrame({"id": [asked]}))[0]["forget"]
    assert forget["index"].tolist() == chosen[1:2]


def test_an_id_that_is_there_is_meant_as_it_stands():
    """In data from before names were brought into one form."""
    rows = samples()
    first, second = split(rows, CONFIG)["train"]["index"][:2]
    rows.loc[first, "id"], rows.loc[second, "id"] = "a", "a "
    sets = split(rows, CONFIG)
    for row, name in ((first, "a"), (second, "a ")):
        forget = select(sets, BY_IDS, CLASSES, pd.DataFrame({"id": [name]}))[0]["forget"]
        assert forget["index"].tolist() == [row]
    twice = pd.DataFrame({"id": ["s990", " s990"]})
    with pytest.raises(ValueError, match=r"ask\.csv names 's990' more than once"):
        select(sets, BY_IDS, CLASSES, twice)


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
    with pytest.raises(ValueError, match=r"class 0 has 2 samples: .* at least 3 of every class"):
        split(rows, CONFIG)
