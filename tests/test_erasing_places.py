"""Where something of forgotten samples lies: DVC's cache and remotes, workspaces, MLflow."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from benchmarks.orchestration import free_port
from flows.erasing.office import Office
from tasks import data, split
from tasks.erasing import ErasureError, matching, near, residue
from tasks.files import artifacts, forgotten
from tasks.files.workspace import Workspace
from tasks.graph import tracing
from tasks.tracking import forgetting, registry
from tasks.tracking.record import Record
from tasks.tracking.store import Store, TrackingError
from tests.conftest import REPOSITORY

MARK = forgotten.mark("a", "1")
REST = "".join(f"b{i},2\n" for i in range(20))
LISTS, OTHERS = f"id,sha256\na,1\n{REST}", f"id,sha256\n{REST}"
SAME = "{}\n"  # what runs make that have nothing to do with each other


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


SHIPPED = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())["stages"]
STORE: Any = SimpleNamespace(workspace=None)


def md5(content: str) -> str:
    return hashlib.md5(content.encode()).hexdigest()


def lay(cache: Path, *contents: str) -> None:
    for content in contents:
        is_folder = content.startswith('[{"md5"')
        path = at(cache, md5(content) + ".dir" * is_folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def at(cache: Path, hash: str) -> Path:
    return cache / "files" / "md5" / hash[:2] / hash[2:]


def listed(files: dict[str, str]) -> list[dict[str, Any]]:
    """As DVC records files with these contents, and folders, whose content is in JSON."""
    return [
        {"path": path, "md5": md5(content) + ".dir" * content.startswith('[{"md5"'), "hash": "md5"}
        | ({"size": len(content)} if content == SAME else {})
        for path, content in files.items()
    ]


def folder(files: dict[str, str]) -> str:
    return json.dumps([{"md5": md5(c), "relpath": p} for p, c in sorted(files.items())])


def content(path: str, made: str) -> str:
    return f"{path} {made}".ljust(tracing.SMALL)


def run(workspace: Path, cache: Path, manifest: str, made: str) -> dict[str, Any]:
    """Stages of a run as the shipped graph has their outs and deps; ``made`` is in what they make.

    Written to the workspace and its ``dvc.lock``, and to the cache.
    """
    split = {"train.csv": manifest, "validation.csv": OTHERS, "test.csv": OTHERS, "a.json": SAME}
    written, stages = dict[str, str](), {}
    for name in ("split", "train", "evaluate", "report"):
        stage = SHIPPED[name].get("do", SHIPPED[name])
        deps = {d: written[d] for d in stage["deps"] if d in written}
        if "runs/split" in stage["deps"]:
            deps["runs/split"] = folder(split)
        outs = {}
        for path in (out.replace("${key}", "a") for out in stage["outs"]):
            files = {"model.safetensors": content(path, made), "failure.json": SAME}
            files = split if path == "runs/split" else files
            written |= {f"{path}/{name}": text for name, text in files.items()}
            outs[path] = folder(files)
        lay(cache, *outs.values())
        stages[name] = {"cmd": "x", "deps": listed(deps), "outs": listed(outs)}
    for path, text in written.items():
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text(text)
    lay(cache, *written.values())
    (workspace / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    return stages


def objects(folder: Path) -> set[str]:
    return {path.parent.name + path.name for path in folder.glob("files/md5/*/*")}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with a run that lists the sample, one that does not, and an older one in the cache.

    Its remote has all of it.
    """
    root = tmp_path / "clone"
    cache = root / ".dvc" / "cache"
    cache.mkdir(parents=True)
    (root / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n['remote \"near\"']\n    url = {tmp_path / 'remote'}\n"
    )
    run(root / ".cells/y", cache, OTHERS, "y")
    monkeypatch.setattr(forgetting, "remembering", lambda *_: [])
    monkeypatch.setattr(residue, "_data", lambda *_: iter(()))
    (root / "left").write_text("\n".join(objects(cache)))
    run(root / ".cells/x", cache, LISTS, "x")
    for i, stage in enumerate(run(tmp_path / "older", cache, LISTS, "older").values()):
        artifacts.write_json(cache / f"runs/aa/aa{i}/aa{i}", stage)
    shutil.copytree(cache / "files", tmp_path / "remote" / "files")
    return root


def test_the_scan_finds_all_of_it_and_the_purge_removes_it(clone: Path, tmp_path: Path) -> None:
    cache, left = clone / ".dvc/cache", set((clone / "left").read_text().split())
    (clone / "runs" / "split").mkdir(parents=True)
    (clone / "runs" / "split" / "test.csv").write_text(LISTS)  # by a stage that DVC did not run
    found = residue.scan(clone, STORE, {MARK}, [])
    gone = objects(cache) - left
    assert len(gone) == 14  # the manifest, and folders of either run: split, and three with a model
    assert {hash[-4:] for hash in gone} >= {".dir"}
    assert {place.where for place in found.places} == {
        ".cells/x",
        "runs/split/test.csv",
        *(str(at(cache, hash)) for hash in gone),
        *(f"DVC remote near: {hash}" for hash in gone),
    }
    assert residue.remove(clone, STORE, found, tmp_path / "plan.json") == []
    assert residue.scan(clone, STORE, {MARK}, []).places == []
    assert objects(cache) == objects(tmp_path / "remote") == left
    assert (clone / ".cells/y/runs/evaluate/unlearn/a/failure.json").is_file()


def test_what_lies_in_a_remote_alone_is_found_and_removed(clone: Path, tmp_path: Path) -> None:
    far, left = tmp_path / "remote", set((clone / "left").read_text().split())
    shutil.copytree(clone / ".dvc/cache/runs", far / "runs")
    for folder in (clone / ".dvc/cache", clone / ".cells/x/runs"):
        shutil.rmtree(folder)
    before = objects(far)
    found = residue.scan(clone, STORE, {MARK}, [])
    assert set(found.objects) == before - left
    assert residue.remove(clone, STORE, found, tmp_path / "plan.json") == []
    assert objects(far) == left


@pytest.mark.parametrize("place", ["remote", "cache"])
def test_small_files_are_left_to_others_who_share_the_place(
    clone: Path, tmp_path: Path, place: str
) -> None:
    lock, config = clone / ".cells/x/dvc.lock", clone / ".dvc/config"
    content = json.loads(lock.read_text())
    content["stages"]["train"]["outs"] += [{"path": "runs/train/b.json", "md5": md5("tiny")}]
    lock.write_text(json.dumps(content))
    if place == "cache":
        shutil.move(clone / ".dvc/cache", tmp_path / "cache")
        config.write_text(f"{config.read_text()}[cache]\n    dir = {tmp_path / 'cache'}\n")
    lay(tmp_path / place, "tiny")
    found, tiny = residue.scan(clone, STORE, {MARK}, []), at(tmp_path / place, md5("tiny"))
    (kept,) = (one for one in found.places if one.kept)
    assert kept.where == (f"DVC remote near: {md5('tiny')}" if place == "remote" else str(tiny))
    left = residue.remove(clone, STORE, found, tmp_path / "plan.json")
    assert left == ([kept] if place == "remote" else [])
    assert tiny.is_file()


def test_a_remote_that_is_no_folder_is_not_called_clean(clone: Path) -> None:
    file = clone / ".dvc/config"
    file.write_text(file.read_text() + "['remote \"far\"']\n    url = http://127.0.0.1:9/x\n")
    kept = {p.where: p.kept for p in residue.scan(clone, STORE, {MARK}, []).places if p.kept}
    assert [(where.partition(" (")[0], why) for where, why in kept.items()] == [
        ("DVC remote far: its run cache", "it cannot be read"),
        ("DVC remote far", "it did not answer"),
        ("DVC remote far: the storage", residue.STORAGE),
    ]


def test_small_files_are_not_followed(clone: Path) -> None:
    (clone / "dvc.lock").write_text(json.dumps({"stages": {"s": {"deps": listed({"a": SAME})}}}))
    (one,) = (one for one in tracing.made(clone, [clone]) if one.by == clone / "dvc.lock")
    assert (one.deps, one.small, one.torn) == ({}, {md5(SAME)}, False)


def test_a_folder_that_the_cache_lacks_is_known_from_the_workspace(clone: Path) -> None:
    shutil.rmtree(clone / ".dvc/cache")
    hashes = residue.scan(clone, STORE, {MARK}, []).objects
    assert {"runs/split", "runs/report/model.safetensors"} <= set(hashes.values())


@pytest.mark.parametrize("kill", [0, 10])
def test_a_purge_that_was_killed_goes_on(
    kill: int, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, left = clone / ".dvc/cache", set((clone / "left").read_text().split())
    plan, unlink, done = tmp_path / "plan.json", Path.unlink, list[Path]()

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(done) == kill:
            raise KeyboardInterrupt
        done.append(path)
        unlink(path, missing_ok)

    found = residue.scan(clone, STORE, {MARK}, [])
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(Path, "unlink", killed)
        residue.remove(clone, STORE, found, plan)
    assert (clone / ".cells/x/dvc.lock").is_file()  # what begins a scan goes last
    kept = (*tmp_path.glob("**/files/md5/*/*"), *clone.glob(".cells/x/runs/split/*.csv"))
    for file in kept:
        if file.read_text() == LISTS:
            file.unlink()  # without it a scan finds nothing
    again = residue.scan(clone, STORE, {MARK}, [])
    assert again.places == []
    assert objects(cache) > left
    resumed = residue.resume(plan, again)
    assert resumed.places == found.places
    assert residue.remove(clone, STORE, resumed, plan) == []
    assert objects(cache) == objects(tmp_path / "remote") == left
    assert not (clone / ".cells/x").exists()
    assert plan.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_removed_is_said(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", denied)
    found = residue.scan(clone, STORE, {MARK}, [])
    left = residue.remove(clone, STORE, found, tmp_path / "plan.json")
    assert [(p.where, p.kept) for p in left] == [(".cells/x", "PermissionError: Permission denied")]


def test_nothing_outside_a_workspace_is_removed(clone: Path, tmp_path: Path) -> None:
    lock = clone / ".cells/x/dvc.lock"
    content = json.loads(lock.read_text())
    content["stages"]["train"]["outs"] += listed({"../../../victim.txt": "v", "../y/dvc.lock": "v"})
    lock.write_text(json.dumps(content))
    (tmp_path / "victim.txt").write_text("v")
    (clone / ".cells/link").symlink_to(tmp_path / "older")
    found = residue.scan(clone, STORE, {MARK}, [])
    kept = {place.where: place.kept for place in found.places if place.kept}
    assert kept == {
        str(tmp_path / "victim.txt"): "it lies outside of its workspace",
        str(clone / ".cells/y/dvc.lock"): "it lies outside of its workspace",
        ".cells/link": "a link, which is not followed",
    }
    assert residue.remove(clone, STORE, found, tmp_path / "plan.json") == []
    assert (tmp_path / "victim.txt").is_file()
    assert (clone / ".cells/y/dvc.lock").is_file()
    assert (tmp_path / "older/runs/split/train.csv").is_file()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "stages:",
        "stages: {s: {outs: null}}",
        "stages: {s: null}",
        "stages: {s: {outs: [1]}}",
        "stages: {s: {outs: [{path: a, md5: ../../a}]}}",
    ],
)
def test_a_lock_that_cannot_be_read_is_named(content: str, clone: Path) -> None:
    (clone / ".cells/q").mkdir()
    (clone / ".cells/q/dvc.lock").write_text(content)
    places = residue.scan(clone, STORE, {MARK}, []).places
    assert [p.where for p in places if p.kept] == [".cells/q/dvc.lock"]
    assert ".cells/x" in {place.where for place in places}


def test_a_cell_that_was_asked_and_never_ran_is_found(clone: Path) -> None:
    for number in (1, 2):
        (clone / f".cells/z{number}/requests").mkdir(parents=True)
        (clone / f".cells/z{number}/requests/erasure-000{number}.csv").write_text("id\na\n")

    def cells(request: int) -> set[str]:
        places = residue.scan(clone, STORE, {MARK}, [], request).places
        return {place.where for place in places if place.where.startswith(".cells/z")}

    assert cells(1) == {".cells/z1"}
    assert cells(0) == {".cells/z1", ".cells/z2"}


def test_what_is_served_is_not_removed(clone: Path, tmp_path: Path) -> None:
    model, hash = tmp_path / "served", md5(content("runs/train", "x"))
    model.write_text(content("runs/train", "x"))

    def found(served: list[Path]) -> bool:
        return hash in residue.scan(clone, STORE, {MARK}, served).objects

    assert found([])
    assert not found([model])


def test_a_remote_that_is_away_is_said(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.data_cloud import DataCloud

    def away(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(DataCloud, "get_remote_odb", away)
    found = residue.scan(clone, STORE, {MARK}, [])
    assert found.places[-1].kept == "it did not answer"
    (left,) = residue.remove(clone, STORE, found, clone / "plan.json")
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


def test_near_duplicates_are_found_by_features(
    digits_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that differs in a pixel is; an exact copy, and what was forgotten before, are not."""
    workspace, found = digits_workspace, digits_workspace.dataset()
    images = found.images[:200].copy()
    images[5:9] = images[0]
    images[5:8, 0, 3, 3] ^= 1
    found = replace(found, images=images, labels=found.labels[:200], ids=found.ids[:200])
    monkeypatch.setattr(Workspace, "dataset", lambda _: found)
    model, about = workspace.new_model(found, 0)
    artifacts.write_tensors(workspace.model("train"), model.state_dict(), about)
    (workspace.root / "requests/forgotten.csv").write_text("id\ndigits-0007\n")
    file, path = workspace.root / "near.json", "runs/train/model.safetensors"
    artifacts.write_json(file, {"model": path, "ids": ["digits-0000"], "nearer": 0.5})
    near.asked(workspace, file)
    said = artifacts.read_json(file)
    assert [(one["id"], one["of"]) for one in said["near"]] == [
        ("digits-0005", "digits-0000"),
        ("digits-0006", "digits-0000"),
    ]
    assert 0 < said["near"][0]["distance"] < 0.5
    monkeypatch.setattr(near, "has_head", lambda _: False)
    artifacts.write_json(file, {"model": path, "ids": ["digits-0000"], "nearer": 0.5})
    near.asked(workspace, file)
    assert artifacts.read_json(file) == {"near": [], "why_not": near.WITHOUT_HEAD}


def test_the_nearest_is_that_of_a_loop() -> None:
    points = torch.randn(70, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    naive = torch.stack([(points - point).norm(dim=1) for point in points])
    distance, place = near.nearest_of(points, points[:9])
    assert np.allclose(distance, naive[:, :9].min(1).values, atol=1e-12)
    assert (place == naive[:, :9].argmin(1).numpy()).all()
    naive.fill_diagonal_(torch.inf)
    assert near.usual(points) == pytest.approx(np.median(naive.min(1).values), abs=1e-12)


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


@pytest.fixture(scope="module", params=["file", pytest.param("server", marks=pytest.mark.long)])
def store(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    root = tmp_path_factory.mktemp("store")
    (root / "params.yaml").write_text("split: {dataset: digits}\n")
    if request.param == "file":
        yield Store(Workspace(root), f"sqlite:///{root}/mlflow.db")
        return
    port = str(free_port())
    call = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port]
    call += ["--workers", "1", "--backend-store-uri", f"sqlite:///{root}/mlflow.db"]
    call += ["--artifacts-destination", str(root / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen(call, cwd=root, env=environment, start_new_session=True) as server:
        try:
            for _ in range(120):
                with suppress(OSError):
                    urlopen(f"http://127.0.0.1:{port}/health").close()
                    break
                sleep(0.5)
            yield Store(Workspace(root), f"http://127.0.0.1:{port}")
        finally:
            os.killpg(server.pid, signal.SIGTERM)


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
    registry.require_servable(store, first)
    store.client.set_registered_model_alias("digits", "original", first)
    second = registry.promote(store, 2, model, {"parent": first})
    served = registry.production(store)
    assert served is not None
    assert (str(served.version), served.tags["parent"]) == (second, first)
    registry.require_servable(store, second)
    with pytest.raises(TrackingError, match=r"one of those of digits \(1, 2\), got 'x'"):
        registry.require_servable(store, "x")
    aliases = store.client.get_registered_model("digits").aliases
    assert {name: str(of) for name, of in aliases.items()} == {"production": second}
    with pytest.raises(TrackingError, match="superseded: must not be served"):
        registry.require_servable(store, first)

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
    former = store.client.get_model_version("digits", first).run_id
    assert {one.run for one in found} == {runs["it"], runs["below it"], former}
    store.client.delete_run(runs["below it"])  # as on its page, which leaves all there is
    assert {one.run for one in forgetting.remembering(store, lists)} >= {runs["below it"]}
    assert all(forgetting._has_files(store, place) for place in found[0].places)
    why = {forgetting.ROWS} if store.uri.startswith("http") else set()
    for _ in range(2):  # again, as after a kill
        assert {said for _, said in forgetting.remove(store, found)} == why
        assert forgetting.remembering(store, lists) == []
    gone = {part for one in found for part in (one.run, *one.models)}
    files = [path for path in store.workspace.root.rglob("*") if path.is_file()]
    assert not any(gone & set(path.parts) for path in files)
    assert any(runs["not"] in path.parts for path in files)
    assert store.client.get_run(runs["not"])
    assert registry.production(store).version == served.version
