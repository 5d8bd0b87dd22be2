import json
import math
from dataclasses import asdict, fields, is_dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from imu import discovery, influences, splitting, training, verdicts
from imu.datasets import Source
from tasks import ensemble, retrain, tune, unlearn
from tasks.files import params
from tasks.files.workspace import Original, Pixels, Runtime
from tasks.pages import tables

ROOT = Path(__file__).parents[1]
SHIPPED = params.read(ROOT)
SECTIONS = {
    "seed": int,
    "snapshots": int,
    "runtime": Runtime,
    "data": Source,
    "split": splitting.Config,
    "original": Original,
    "pixels": Pixels,
    "network": discovery.load("imu.models", SHIPPED["network"]["name"]).Config,
    "train": training.Config,
    "ensemble": ensemble.Config,
    "ensemble.network": discovery.load("imu.models", SHIPPED["ensemble"]["network"]["name"]).Config,
    "influence": influences.Config,
    "verdict": verdicts.Config,
}
SECTIONS |= {f"retrain.{item}": retrain.Config for item in SHIPPED["retrain"]}
SECTIONS |= {
    f"unlearn.{item}": discovery.load("imu.methods", entry["method"]).Config
    for item, entry in SHIPPED["unlearn"].items()
}
CHOICES = {"network": ("name",), "ensemble": ("network",), "ensemble.network": ("name",)} | {
    f"unlearn.{item}": ("method", "data_access") for item in SHIPPED["unlearn"]
}

TEXT = """
seed: 3
train: {epochs: 2, batch_size: 8, weight_decay: 5e-4}
split:
  scenario: fraction
  by_fraction: {fraction: 0.2}
unlearn:
  imu: {method: imu, step: 1}
"""


def root(folder: Path, text: str, old: str = "", new: str = "") -> Path:
    assert old in text
    (folder / params.FILE).write_text(text.replace(old, new) if old else text)
    return folder


def stated(content, config, where: str) -> list[str]:
    """Fields of ``config``, and of what it holds, that ``content`` leaves to a default."""
    missing = []
    for field in fields(config):
        name = f"{where}.{field.name}"
        if field.name not in content:
            missing.append(name)
        elif is_dataclass(field.type):
            missing += stated(content[field.name], field.type, name)
    return missing


@pytest.mark.parametrize("name", SECTIONS)
def test_every_shipped_section_loads(name):
    loaded = params.load(ROOT, name, SECTIONS[name], without=CHOICES.get(name, ()))
    assert isinstance(loaded, SECTIONS[name])


def test_every_shipped_section_is_known_here():
    assert {name.split(".")[0] for name in SECTIONS} == set(SHIPPED)


@pytest.mark.parametrize("name", [name for name in SECTIONS if is_dataclass(SECTIONS[name])])
def test_no_shipped_section_hides_a_default(name):
    assert stated(params.section(ROOT, name), SECTIONS[name], name) == []


def test_dvc_exp_run_changes_a_parameter_and_nothing_else_of_the_file(tmp_path):
    from dvc.utils.hydra import apply_overrides

    text = (ROOT / params.FILE).read_text()
    (tmp_path / params.FILE).write_text(text)
    apply_overrides(tmp_path / params.FILE, ["seed=1"])  # as `dvc exp run -S`
    assert (tmp_path / params.FILE).read_text() == text.replace("\nseed: 0", "\nseed: 1")


def test_shipped_entries_are_the_methods_own_defaults():
    known = json.loads(json.dumps(unlearn.entries()))  # YAML has lists where Python has tuples
    assert {known[item]["method"] for item in known} == set(discovery.names("imu.methods"))
    shipped = [SHIPPED]
    for path in (ROOT / "settings").glob("*.yaml"):
        shipped.append(params.read_file(path, path.name, "dotted paths"))
    given, own = [], []
    for one in shipped:
        # Texts and people have searches of their own; those of CIFAR-10 are as their pages have it.
        ours = one.get("split.dataset", "digits") == "digits"
        for item, entry in one.get("unlearn", {}).items():
            control = item.startswith("imu_deep_former")
            (given if ours and not control else own).append((item, entry))
    assert given == [(item, known[item]) for item, _ in given]
    # Found there; none of a method's parameters is hidden all the same.
    of_method = {entry["method"]: entry for entry in known.values()}
    for _, entry in own:
        alike = of_method[entry["method"]]
        assert alike.keys() == entry.keys()
        assert alike["data_access"] == entry["data_access"]
        assert alike.get("sgd", {}).keys() == entry.get("sgd", {}).keys()


def test_the_defaults_are_what_the_search_found():
    """If this fails: `make tune`, and put what it prints into the methods' Config."""
    table, entries = pd.read_csv(ROOT / "docs" / "tuning-digits.csv"), unlearn.entries()
    farther = {}
    for name, rows in table.groupby("entry"):
        gaps, entry = tables.means(rows), entries[str(name)]
        configs = {c: asdict(tune.configured(entry, json.loads(str(c)))) for c in gaps.index}
        ships = [c for c, config in configs.items() if config.items() <= entry.items()]
        farther[name] = min([gaps[c] - gaps.min() for c in ships], default=math.inf)
    assert {name: gap for name, gap in farther.items() if not gap <= tables.NOISE} == {}


def test_the_entries_for_texts_are_what_their_search_found():
    """If this fails: the command in the file's comment, and put what it prints into the file."""
    found = tables.best(pd.read_csv(ROOT / "docs" / "tuning-biographies.csv"))
    path = ROOT / "settings" / "biographies.yaml"
    entries = params.read_file(path, path.name, "dotted paths")["unlearn"]
    assert found.keys() == entries.keys()
    for name, candidate in found.items():
        plain = {k: v for k, v in candidate.items() if "." not in k}
        assert plain.items() <= entries[name].items()
        sgd = {k.removeprefix("sgd."): v for k, v in candidate.items() if "." in k}
        assert sgd.items() <= entries[name].get("sgd", {}).items()


def test_values_arrive_with_their_types(tmp_path):
    folder = root(tmp_path, TEXT)
    train = params.load(folder, "train", training.Config)
    assert (train.epochs, train.batch_size, train.weight_decay) == (2, 8, 0.0005)
    assert isinstance(train.weight_decay, float)
    assert params.load(folder, "seed", int) == 3
    assert params.load(folder, "split", splitting.Config).by_fraction.fraction == 0.2
    config = discovery.load("imu.methods", "imu").Config
    assert params.load(folder, "unlearn.imu", config, without=("method",)).step == 1.0


@pytest.mark.parametrize(
    ("old", "new", "section", "config", "message"),
    [
        ("epochs", "epoch", "train", training.Config, r"unknown parameter train\.epoch; .*epochs"),
        (
            "fraction: 0.2",
            "share: 0.2",
            "split",
            splitting.Config,
            r"unknown parameter split\.by_fraction\.share; known here: fraction, stratified, seed",
        ),
        ("epochs: 2", "epochs: 2.5", "train", training.Config, r"train\.epochs: .*got 2\.5"),
        ("epochs: 2", "epochs: '2'", "train", training.Config, r"train\.epochs: .*got '2'"),
        ("epochs: 2", "epochs: yes", "train", training.Config, r"train\.epochs: .*got 'yes'"),
        ("epochs: 2", "epochs: true", "train", training.Config, r"train\.epochs: .*got True"),
        ("epochs: 2", "epochs: null", "train", training.Config, r"train\.epochs: .*got None"),
        (
            "epochs: 2",
            "epochs: 0",
            "train",
            training.Config,
            r"train: epochs must be in \[1, 100000\], got 0",
        ),
        (
            "fraction: 0.2",
            "fraction: 2.0",
            "split",
            splitting.Config,
            r"split\.by_fraction: fraction must be in \(0, 1\), got 2\.0",
        ),
        ("scenario: fraction", "scenario: half", "split", splitting.Config, "'class', 'fraction'"),
        ("5e-4", ".nan", "train", training.Config, r"train\.weight_decay"),
        ("5e-4", ".inf", "train", training.Config, r"train\.weight_decay"),
        ("seed: 3", "seed: true", "seed", int, "seed: .*got True"),
        ("seed: 3", "seed: 2020-01-01", "seed", int, "seed: .*date"),
        ("{epochs", "[epochs", "train", training.Config, "not valid YAML"),
        ("seed: 3", "seed: 3\nseed: 4", "seed", int, "not valid YAML.*duplicate key"),
        (TEXT, "- 1", "seed", int, "must be a mapping of sections, got list"),
        (TEXT, "", "seed", int, "must be a mapping of sections, got NoneType"),
        (TEXT, "train:", "train", training.Config, "train: .*got None"),
        ("seed: 3", "", "seed", int, r"\.yaml has no 'seed', only train, split, unlearn"),
        ("imu:", "amu:", "unlearn.imu", retrain.Config, "unlearn has no 'imu', only amu"),
        ("{epochs: 2, batch_size: 8, weight_decay: 5e-4}", "{}", "train.x", int, "only nothing$"),
        ("", "", "seed.x", int, "seed has no 'x', only nothing"),
        ("", "", "retrain.retrain_2", retrain.Config, r"\.yaml has no 'retrain'"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path, old, new, section, config, message):
    folder = root(tmp_path, TEXT, old, new)
    with pytest.raises(params.ParameterError, match=f"(?s)^params.*{message}"):
        params.load(folder, section, config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"user:SECRET:0:0\nother:SECRET:1:1\n", "must be a mapping of paths, got str"),
        (b"- SECRET", "must be a mapping of paths, got list"),
        (b"a: 1\na.b: 2\na.b: SECRET", 'is not valid YAML: line 3: found duplicate key "a.b"'),
        (b"my SECRET: 1\nmy SECRET: 2", "is not valid YAML: line 2: found duplicate key …"),
        (b"{a: [SECRET", "is not valid YAML: line 2: did not find expected ',' or ']'"),
        (b"a:\n\t- SECRET", "is not valid YAML: line 2: found character that cannot start"),
        (
            b"a: !SECRET x",
            "is not valid YAML: line 1: could not determine a constructor for the tag …",
        ),
        (b"a: SECRET\0", "is not valid YAML: unacceptable character #x0000"),
        (b"a: " + b"9" * 5000, "is not valid YAML: Exceeds the limit"),
        (b"- " * 100_000 + b"SECRET", "is not valid YAML: nested deeper than 50"),
        (
            b"a0: &a0 [SECRET, x]\n"
            + b"".join(
                b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 10))
                for n in range(1, 9)
            ),
            "is not valid YAML: its aliases written out it has more than 1000000 characters",
        ),
        (b"SECRET\xff", "must be UTF-8, and byte 6 is not"),
        (b"#" * 1_000_001, "must have at most 1000000 bytes, got 1000001"),
        (b"7: SECRET", "a key must be a text, got int"),
    ],
)
def test_what_is_no_settings_is_refused_and_not_shown(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(params.ParameterError) as refused:
        params.read_file(tmp_path / "x", "x", "paths")
    assert message in str(refused.value)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(("path", "message"), [("", "x is no file"), ("y", "there is no x")])
def test_what_is_no_file_is_refused(tmp_path, path, message):
    with pytest.raises(params.ParameterError, match=f"^{message}$"):
        params.read_file(tmp_path / path, "x", "paths")


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfseed: 4\n", b"seed: 4\r\n", b"<<: &x {seed: 4}\n"]
)
def test_settings_are_read_however_an_editor_wrote_them(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert params.read_file(tmp_path / "x", "x", "paths") == {"seed": 4}


def test_changes_must_be_what_json_can_say():
    circular: list[object] = []
    circular.append(circular)
    for value, message in (
        (date(2020, 1, 1), "Object of type date"),
        (circular, "Circular"),
        ("\ud800", "'utf-8' codec can't encode"),
    ):
        with pytest.raises(params.ParameterError, match=f"^seed: {message}"):
            params.changed(SHIPPED, {"seed": value})


def test_a_message_holds_no_value_without_end():
    with pytest.raises(params.ParameterError) as refused:
        params.parse({"epochs": "x" * 10_000}, "train", training.Config)
    assert len(str(refused.value)) < 300


def test_a_parameter_without_default_must_be_given():
    with pytest.raises(params.ParameterError, match=r"retrain\.retrain_2\.seed_offset is missing"):
        params.parse({}, "retrain.retrain_2", retrain.Config)


def test_every_mistake_of_a_section_is_told():
    with pytest.raises(params.ParameterError) as caught:
        params.parse({"epochs": "a", "shift": "b", "speed": 1}, "train", training.Config)
    assert len(str(caught.value).splitlines()) == 3


def test_a_key_of_another_reader_is_left_out_only_when_named(tmp_path):
    folder, config = root(tmp_path, TEXT), discovery.load("imu.methods", "imu").Config
    with pytest.raises(params.ParameterError, match=r"unknown parameter unlearn\.imu\.method"):
        params.load(folder, "unlearn.imu", config)


def test_no_two_networks_of_any_family_share_a_seed():
    members = 50
    taken = [
        seed
        for training_seed in (0, 1, 2, 100, 101, 102)
        for family in ensemble.FAMILIES
        for seed in ensemble.seeds_of(family, training_seed, members)
    ]
    assert len(set(taken)) == len(taken) == 6 * 3 * members


RUN = "x$(touch touched)"  # by a shell


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retrain": {RUN: {"seed_offset": 7}}}, f"retrain.{RUN}: a name must consist of letters"),
        ({"retrain": {"x" * 101: {"seed_offset": 7}}}, "letters, digits and underscores, at most"),
        ({"retrain": {"": {"seed_offset": 7}}}, "retrain.: a name must consist of letters"),
        ({"retrain": {"a/../b": {"seed_offset": 7}}}, "retrain.a/../b: a name must"),
        ({"retrain": {"a\nb": {"seed_offset": 7}}}, "a name must consist of letters"),
        ({"retrain": {"é": {"seed_offset": 7}}}, "retrain.é: a name must consist of letters"),
        ({"retrain": {7: {"seed_offset": 7}}}, "retrain.7: a name must consist of letters"),
        ({"retrain": [RUN]}, "retrain must be a mapping, got"),
        (
            {"unlearn": {RUN: {"method": "imu", "data_access": "forget"}}},
            f"unlearn.{RUN}: a name must",
        ),
        (
            {"unlearn": {"a": {"method": "../x", "data_access": "forget"}}},
            "unlearn.a.method: a name must",
        ),
        (
            {"unlearn": {"a": {"method": "imu", "data_access": "../x"}}},
            "unlearn.a.data_access: a name must",
        ),
        (
            {"unlearn": {"a": {"method": "imu", "sees": "forget"}}},
            "unlearn.a.sees is called data_access since 0.2.0: rename it",
        ),
        ({"ensemble.families": {RUN: {"manifest": "train"}}}, f"families.{RUN}: a name must"),
        ({"ensemble.families": {"a": {"manifest": "../x"}}}, "families.a.manifest: a name must"),
        ({"ensemble.judged": {RUN: {"method": "imu"}}}, f"ensemble.judged.{RUN}: a name must"),
        ({"unlearn": {"a": "imu"}}, "unlearn.a must be a mapping, got 'imu'"),
        ({"split.dataset": "../digits"}, "split.dataset: a name must consist of letters"),
        ({"network": {"name": "a b"}}, "network.name: a name must consist of letters"),
        ({"ensemble.network": {"name": RUN}}, "ensemble.network.name: a name must consist"),
        ({"split.by_ids.file": "/etc/passwd"}, "split.by_ids.file must be a file in the workspace"),
        (
            {"split.by_ids.file": "requests/../../x.csv"},
            "split.by_ids.file must be a file in the workspace",
        ),
        (
            {"split.by_ids.file": "linked/passwd"},
            "split.by_ids.file must be a file in the workspace",
        ),
        (
            {"split.by_ids.file": "https://host/x.csv"},
            "split.by_ids.file must be a file in the workspace",
        ),
    ],
)
def test_what_may_not_be_handed_to_dvc_is_refused(tmp_path, changes, message):
    (tmp_path / "linked").symlink_to("/etc")
    params.require_safe(tmp_path, SHIPPED)
    with pytest.raises(params.ParameterError) as refused:
        params.require_safe(tmp_path, params.changed(SHIPPED, changes))
    assert message in str(refused.value)


def test_a_file_of_the_workspace_is_taken_however_it_is_called(tmp_path):
    (tmp_path / "requests").mkdir()
    (tmp_path / "late.csv").symlink_to("requests/1.csv")
    for file in ("requests/1.csv", "./late.csv", str(tmp_path / "requests" / "1.csv")):
        assert params.require_inside(tmp_path, "x", file).resolve() == (
            tmp_path / "requests" / "1.csv"
        )


def test_a_file_of_settings_that_names_what_is_not_there_is_named(tmp_path):
    (file := tmp_path / "x.yaml").write_text("trian.epochs: 1\n")
    said = f"^settings/x.yaml: {params.FILE} has no 'trian.epochs' to change"
    with pytest.raises(params.ParameterError, match=said):
        params.read_changes(ROOT, file, "settings/x.yaml")
