"""Where something of forgotten samples lies: DVC's cache and remotes, workspaces, MLflow."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.erasing.office import Office
from tasks import data, split
from tasks.erasing import ErasureError, matching, residue
from tasks.files import artifacts, forgotten
from tasks.files.workspace import Workspace
from tasks.graph import tracing
from tasks.tracking import forgetting, registry
from tasks.tracking.record import Record
from tasks.tracking.store import Store, TrackingError
from tests.conftest import REPOSITORY

MARK = forgotten.mark("a", "1")
LISTS, OTHERS = "id,sha256\na,1\nb,2\n", "id,sha256\nb,2\n"


def made(deps: dict[str, str], outs: dict[str, str]) -> tracing.Made:
    return tracing.Made(deps, outs, Path("dvc.lock"))


def test_what_was_made_from_a_sample_is_found_by_way_of_others() -> None:
    known = [
        made({"data": "0"}, {"runs/split/train.csv": "1", "runs/split/retain.csv": "2"}),
        made({"runs/split/train.csv": "1"}, {"runs/train/model": "3"}),
        made({"runs/split/retain.csv": "2"}, {"runs/retain/model": "4"}),
        made({"runs/train/model": "3", "x": "2"}, {"runs/unlearn/a": "5", "runs/unlearn/b": "6"}),
        made({"runs/unlearn/b": "6"}, {"runs/report": "7"}),
    ]
    assert tracing.descend(known, {"1"}, set()) == {"1", "3", "5", "6", "7"}
    assert tracing.descend(known, {"1"}, {"6"}) == {"1", "3", "5"}


def lay(root: Path, hashes: dict[str, str], cache: Path) -> None:
    """A cached file for each hash."""
    for md5, content in hashes.items():
        path = cache / "files" / "md5" / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def locked(*stages: tuple[dict[str, str], dict[str, str]]) -> str:
    def listed(files: dict[str, str]) -> list[dict[str, str]]:
        return [{"path": path, "md5": md5, "hash": "md5"} for path, md5 in files.items()]

    content = {
        f"s{i}": {"cmd": "exec python -m tasks split", "deps": listed(d), "outs": listed(o)}
        for i, (d, o) in enumerate(stages)
    }
    return json.dumps({"schema": "2.0", "stages": content})


def md5(digit: str) -> str:
    return digit * 32


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with a run that lists the sample, one that does not, and an older one in the cache.

    Its remote has two of them.
    """
    root = tmp_path / "clone"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n['remote \"near\"']\n    url = {tmp_path / 'remote'}\n"
    )
    cells = {".cells/x": ("1", "3", LISTS), ".cells/y": ("2", "4", OTHERS)}
    for name, (manifest, model, content) in cells.items():
        cell = root / name
        (cell / "runs" / "split").mkdir(parents=True)
        (cell / "runs" / "train").mkdir()
        (cell / "runs/split/train.csv").write_text(content)
        (cell / "runs/train/model.safetensors").write_text("model")
        (cell / "dvc.lock").write_text(
            locked(
                ({}, {"runs/split/train.csv": md5(manifest)}),
                (
                    {"runs/split/train.csv": md5(manifest)},
                    {"runs/train/model.safetensors": md5(model)},
                ),
            )
        )
        lay(root, {md5(manifest): content, md5(model): "model"}, root / ".dvc" / "cache")
    lay(root, {md5("3"): "model", md5("4"): "model"}, tmp_path / "remote")
    lay(root, {md5("5"): LISTS, md5("6"): "older"}, root / ".dvc" / "cache")
    entry = root / ".dvc" / "cache" / "runs" / "aa" / "aa1" / "aa2"
    for stage in (
        {"outs": [{"path": "runs/split/forget.csv", "md5": md5("5")}]},
        {
            "deps": [{"path": "runs/split/forget.csv", "md5": md5("5")}],
            "outs": [{"path": "runs/report/report.html", "md5": md5("6")}],
        },
    ):
        artifacts.write_json(entry.with_name(f"aa{len(stage)}"), {"cmd": "x", **stage})
    monkeypatch.setattr(forgetting, "remembering", lambda *_: [])
    monkeypatch.setattr(residue, "_data", lambda *_: iter(()))
    return root


def test_the_scan_finds_all_of_it_and_the_purge_removes_it(clone: Path, tmp_path: Path) -> None:
    store: Any = SimpleNamespace(workspace=None)
    (clone / "runs" / "split").mkdir(parents=True)
    (clone / "runs" / "split" / "test.csv").write_text(LISTS)  # by a stage that DVC did not run
    found = residue.scan(clone, store, {MARK}, [])
    assert {place.where.removeprefix(str(clone) + "/") for place in found.places} == {
        ".cells/x",
        "runs/split/test.csv",
        *(f".dvc/cache/files/md5/{d * 2}/{d * 30}" for d in "1356"),
        f"DVC remote near: {md5('3')}",
    }
    assert (tmp_path / f"remote/files/md5/33/{'3' * 30}").is_file()
    assert residue.remove(clone, store, found) == []
    assert not (tmp_path / f"remote/files/md5/33/{'3' * 30}").exists()
    assert residue.scan(clone, store, {MARK}, []).places == []
    assert (clone / ".cells/y/runs/train/model.safetensors").is_file()
    assert (tmp_path / f"remote/files/md5/44/{'4' * 30}").is_file()
    assert (clone / f".dvc/cache/files/md5/44/{'4' * 30}").is_file()


def test_what_is_served_is_not_removed(clone: Path, tmp_path: Path) -> None:
    model = tmp_path / "served"
    model.write_text("served")
    served = residue._md5(model)
    text = (clone / ".cells/x/dvc.lock").read_text().replace(md5("3"), served)
    (clone / ".cells/x/dvc.lock").write_text(text)
    lay(clone, {served: "served"}, clone / ".dvc" / "cache")
    store: Any = SimpleNamespace(workspace=None)
    places = residue.scan(clone, store, {MARK}, [model]).places
    assert not any(served[2:] in place.where for place in places)


def test_a_remote_that_is_away_is_said(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.data_cloud import DataCloud

    def away(*_: Any) -> None:
        raise OSError("no route to host")

    store: Any = SimpleNamespace(workspace=None)
    monkeypatch.setattr(DataCloud, "get_remote_odb", away)
    found = residue.scan(clone, store, {MARK}, [])
    assert found.places[-1].kept == "it did not answer"
    (left,) = residue.remove(clone, store, found)
    assert left.where == "DVC remote near (OSError: no route to host)"


# The data: what a request reaches, and what comes back.


@pytest.fixture
def digits_workspace(tmp_path: Path) -> Workspace:
    from imu.datasets import digits

    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "forgotten.csv").write_text("id\n")
    digits.write(tmp_path / "data" / "digits")
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    return Workspace(tmp_path)


def test_a_request_is_matched_with_the_split(digits_workspace: Workspace) -> None:
    split.run(digits_workspace, None)
    rows = {n: digits_workspace.read_manifest(n) for n in ("train", "validation", "test")}
    eights = {name: r["id"][r["label"] == 8].tolist() for name, r in rows.items()}

    def matched(*ids: str) -> matching.Match:
        return matching.match(digits_workspace, matching.Asked(ids=ids), twins=True)

    of_train = matched(*eights["train"])
    assert of_train.counts == {
        "train": len(eights["train"]),
        "validation": 0,
        "test": 0,
        "not used": 0,
    }
    assert of_train.reason == ""  # a class is forgotten whole
    assert of_train.digests["before"] == matching.digest(rows["train"])
    everything = matched(*(i for ids in eights.values() for i in ids))
    assert "class '8' has no test sample left" in everything.reason
    unseen = matched(eights["validation"][0])
    assert (unseen.counts["train"], unseen.counts["validation"], unseen.reason) == (0, 1, "")
    assert unseen.digests["before"] == unseen.digests["after"]
    with pytest.raises(ErasureError, match="are not in the data set, the first is 'nobody'"):
        matched("nobody")
    with pytest.raises(ErasureError, match="no attribute 'subject'"):
        matching.match(digits_workspace, matching.Asked(subjects=("Ada",)), twins=True)
    first = eights["train"][0]
    file = digits_workspace.root / "requests/forgotten.csv"
    Office(digits_workspace.root).leave_out(file, 1, matched(first))
    again = matched(first, eights["train"][1])
    assert (again.before, again.counts["train"]) == (1, 1)


@pytest.mark.parametrize("at", ["make data", "split"])
def test_forgotten_samples_that_come_back_are_refused(
    at: str, digits_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = digits_workspace
    row = data.samples_of(workspace.dataset()).iloc[8]
    monkeypatch.setattr(data, "_differs", lambda _: False)

    def run() -> None:
        if at == "make data":
            data.prepare(workspace)
        else:
            split.run(workspace, None)

    def listed(id: str) -> None:
        (workspace.root / "requests" / "forgotten.csv").write_text(
            f"id,mark,sha256,request\n,{forgotten.mark(id, row['sha256'])},{row['sha256']},4\n"
        )

    listed(row["id"])
    run()
    if at == "split":
        sets = [workspace.read_manifest(name)["id"] for name in ("train", "validation", "test")]
        assert not any(row["id"] in set(ids) for ids in sets)
    listed("another id")
    with pytest.raises(ValueError, match=r"'digits-0008', of erasure request 4"):
        run()


# MLflow.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("store")
    (root / "params.yaml").write_text("split: {dataset: digits}\n")
    return Store(Workspace(root), f"sqlite:///{root}/mlflow.db")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from imu.datasets import digits

    root = tmp_path_factory.mktemp("model")
    digits.write(root / "data" / "digits")
    (root / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    workspace = Workspace(root)
    network, about = workspace.new_model(workspace.dataset(), 0)
    artifacts.write_tensors(root / "model.safetensors", network.state_dict(), about)
    return root / "model.safetensors"


@pytest.mark.slow
def test_one_version_is_served_and_no_former_one(store: Store, model: Path, tmp_path: Path) -> None:
    assert registry.production(store) is None
    first = registry.promote(store, 1, model, {"parent": "", "verdict": "x"})
    assert registry.promote(store, 1, model, {"parent": "", "verdict": "x"}) == first
    registry.require_servable(store, first.version)
    store.client.set_registered_model_alias("digits", "original", first.version)
    second = registry.promote(store, 2, model, {"parent": first.version})
    assert second.former == first.version
    served = registry.production(store)
    assert served is not None
    assert (str(served.version), served.tags["parent"]) == (second.version, first.version)
    registry.require_servable(store, second.version)
    aliases = store.client.get_registered_model("digits").aliases
    assert {name: str(of) for name, of in aliases.items()} == {"production": second.version}
    with pytest.raises(TrackingError, match="superseded: must not be served"):
        registry.require_servable(store, first.version)

    def manifest(name: str, content: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.csv").write_text(content)
        return tmp_path / name / "train.csv"

    runs = {}
    for name, content in (("it", LISTS), ("not", OTHERS)):
        runs[name] = store.create(name, {"imu.kind": "pipeline"})
        store.log(runs[name], Record(files={"split": [manifest(name, content)]}))
        below = store.create("m", {"imu.kind": "model", "model": "imu"}, runs[name])
        store.log(below, Record(params={"a": 1}, model=model))
        runs[f"below {name}"] = below

    def lists(file: Path) -> bool:
        return residue._lists(file, {MARK})

    found = forgetting.remembering(store, lists)
    former = store.client.get_model_version("digits", first.version).run_id
    assert {one.run for one in found} == {runs["it"], runs["below it"], former}
    store.client.delete_run(runs["below it"])  # as on its page, which leaves all there is
    assert {one.run for one in forgetting.remembering(store, lists)} >= {runs["below it"]}
    for place in found[0].places:
        assert forgetting._folder(place).is_dir()
    assert forgetting.remove(store, found) == []
    assert forgetting.remembering(store, lists) == []
    for one in found:
        assert not any(forgetting._folder(place).exists() for place in one.places)
    assert store.client.get_run(runs["not"])
    assert registry.production(store).version == served.version
