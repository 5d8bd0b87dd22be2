"""The command for a GPU, rehearsed without one: on the CPU, on the pretended one, in trouble."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic, sleep, time

import psutil
import pytest
import torch
from PIL import Image

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import images, lab
from benchmarks.gpu.checks import language
from benchmarks.gpu.page import PAGE, RESULTS, joined, page
from imu import discovery, training
from imu.datasets import Source, image_folder, tofu
from imu.models import causal_lm, resnet18
from tasks.files import params
from tests.conftest import REPOSITORY, run
from tests.test_causal_lm import CONFIG, written
from tests.test_texts import tiny_tofu

# What a bare machine lacks cannot be imported here either, nor by what is started from here.
BARE = """
import sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("prefect", "mlflow", "dvc", "pydantic", "ruamel", "tasks"):
            raise ModuleNotFoundError(f"a bare machine has no {name}")
sys.meta_path.insert(0, Lacking())
"""
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
# In one process, so that what a backward pass could not do away is told.
AWAY = """
import sys, tempfile
from pathlib import Path
from tests import pretend_gpu
pretend_gpu.register()
from benchmarks.gpu import __main__ as command, lab
with tempfile.TemporaryDirectory() as scratch:
    room = lab.Lab(device=pretend_gpu.DEVICE, scratch=Path(scratch), sizes=lab.TINY)
    for name, module in command.checks().items():
        for record in command.prepared(module, room):
            lab.append(Path(sys.argv[1]), {"check": name, **record})
        print(name, pretend_gpu.USED, pretend_gpu.LATER)
        assert pretend_gpu.USED and not pretend_gpu.LATER
"""


def failures(results: list[lab.Record]) -> list[lab.Record]:
    return [r for r in results if {"failed", "untried"} & r.keys() or r.get("ended") == "failed"]


@pytest.mark.slow
def test_all_checks_run_on_a_bare_machine(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BARE)
    arguments = ["--tiny", "--device", "cpu", "--minutes", "10", "--out", str(tmp_path / "out")]
    path = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    run(sys.executable, "-m", "benchmarks.gpu", *arguments, cwd=tmp_path, PYTHONPATH=path)
    results = lab.read(tmp_path / "out" / "results.jsonl")
    assert failures(results) == []
    ended = {record["check"]: record["ended"] for record in results if "ended" in record}
    assert ended == dict.fromkeys(["machine", "unpacking", *command.checks()], "done")
    found = {(record["check"], record.get("what")) for record in results}
    assert found >= {("methods", "judged"), ("methods", "relearned"), ("training", "steps")}
    judged = [r for r in results if (r["check"], r.get("what")) == ("methods", "judged")]
    assert {(r["scenario"], r["name"]) for r in judged} == {
        (scenario, name)
        for scenario in ("class", "fraction")
        for name in ("reference", *lab.TINY.entries)
    }
    # A run may be cut off anywhere: its page is written all the same.
    first = next(n for n, record in enumerate(results, 1) if record.get("what") == "begin")
    for kept in range(first, len(results) + 1):
        text = page(results[:kept])
    assert "A rehearsal: no GPU was in use" in text
    assert "run was cut off" not in text


@pytest.mark.long
def test_all_checks_run_on_the_pretended_gpu(tmp_path: Path) -> None:
    run(sys.executable, "-c", AWAY, str(tmp_path / "results.jsonl"), cwd=REPOSITORY)
    results = lab.read(tmp_path / "results.jsonl")
    assert [(record["check"], record["what"]) for record in failures(results)] == []
    parts = [record for record in results if record["check"] == "stages"]
    assert all(record["same"] for record in parts)
    farther = {record["what"] for record in parts if record["from_cpu"] > 0}
    # The one is float32 there; for attention the CPU has a kernel of its own; ensembles have
    # another layout on it.
    assert farther <= {"train: bfloat16, channels last", "network: vit", "ensemble"}


def test_the_recipe_is_that_of_the_settings() -> None:
    shipped = params.read(REPOSITORY)
    settings = params.read_file(REPOSITORY / "settings" / "cifar10.yaml", "", "")
    found = params.changed(shipped, settings)
    recipe = params.parse(found["train"], "train", training.Config)
    assert asdict(recipe) == asdict(lab.RECIPE)
    assert found["network"] == {"name": lab.Sizes().network, **asdict(resnet18.Config())}
    assert lab.Sizes().config == {}
    split = found["split"]
    assert (split["validation"], split["by_class"]["classes"]) == (lab.VALIDATION, [lab.FORGOTTEN])
    assert split["test"] == "published"
    assert split["by_fraction"]["fraction"] == lab.SHARE_FORGOTTEN


def test_the_page_is_made_from_the_results_beside_it() -> None:
    assert page(lab.read(RESULTS)) == PAGE.read_text(encoding="utf-8")


@FORKS
def test_an_archive_of_photographs_is_unpacked(tmp_path: Path) -> None:
    """As ``image_folder`` makes a data set of the same images."""
    colours = {"train/cat/1": 10, "train/dog/2": 60, "train/dog/3": 90, "test/cat/4": 200}
    for name, value in {**colours, "test/dog/5": 250}.items():
        path = tmp_path / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (value, value // 2, 255 - value)).save(path)
    with tarfile.open(tmp_path / "some.tar.xz", "w:xz") as file:
        file.add(tmp_path / "images", arcname=".")
    assert images.unpack(tmp_path / "some.tar.xz", tmp_path)["images"] == 5
    found = images.load(tmp_path)
    image_folder.write(tmp_path / "right", Source(path=str(tmp_path / "images")))
    right = image_folder.load(tmp_path / "right")
    assert (found.mean, found.std, found.classes) == (right.mean, right.std, ("cat", "dog"))
    ours, others = found.ids.argsort(), right.ids.argsort()
    for name in ("ids", "images", "labels", "published_test"):
        assert (getattr(found, name)[ours] == getattr(right, name)[others]).all()


def started(out: Path, work: Callable[[], Iterable[lab.Record]]) -> command.Started:
    return command.start("check", out, work)


@FORKS
def test_a_check_that_fails_tells_why_and_keeps_what_it_found(tmp_path: Path) -> None:
    def fails() -> Iterable[lab.Record]:
        yield {"what": "first"}
        raise ValueError("this is why")

    ended = started(tmp_path, fails).ended(time() + 60)
    assert (ended["ended"], ended["code"]) == ("failed", 1)
    assert ended["log"][-1] == "ValueError: this is why"
    assert lab.read(tmp_path / "results.jsonl") == [{"check": "check", "what": "first"}]


@FORKS
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_check_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr(command, "GRACE", 0.0)

    def hangs() -> Iterable[lab.Record]:
        if stubborn:
            signal.signal(signal.SIGABRT, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "60"])
        yield {"pid": child.pid}
        sleep(60)

    begin = monotonic()
    process = started(tmp_path, hangs)
    while not (tmp_path / "results.jsonl").exists():
        sleep(0.01)
    ended = process.ended(time() + 0.1)
    assert monotonic() - begin < 10
    assert ended["ended"] == "killed"
    assert stubborn or any("in hangs" in line for line in ended["log"])  # where it was
    child = lab.read(tmp_path / "results.jsonl")[0]["pid"]
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert monotonic() - begin < 10
        sleep(0.01)


@FORKS
def test_a_check_that_crashes_is_told_from_one_that_ends(tmp_path: Path) -> None:
    def crashes() -> Iterable[lab.Record]:
        os.kill(os.getpid(), signal.SIGSEGV)
        return []

    ended = started(tmp_path, crashes).ended(time() + 60)
    assert (ended["ended"], ended["code"]) == ("failed", -signal.SIGSEGV)
    assert "Segmentation fault" in ended["log"][0]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    lab.append(tmp_path / "results.jsonl", {"name": "whole", "value": 1.5})
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write(json.dumps({"name": "cut"})[:-3])
    assert lab.read(tmp_path / "results.jsonl") == [{"name": "whole", "value": 1.5}]


def test_language_has_the_methods_of_the_settings() -> None:
    settings = params.read_file(REPOSITORY / "settings" / "biographies.yaml", "", "")
    found = {}
    for name, entry in settings["unlearn"].items():
        kind = discovery.load("imu.methods", entry["method"]).Config
        given = {key: of for key, of in entry.items() if key not in ("method", "data_access")}
        found[name] = (entry["method"], asdict(params.parse(given, name, kind)))
    for name in ("imu_published", "rmu"):  # there layers are named, here found by structure
        found[name][1]["layers"] = ()
    ours = {
        name: (entry.method, asdict(language.configured(name)))
        for name, entry in language.ENTRIES.items()
    }
    assert ours == found


def test_weights_and_questions_come_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    folder = written()
    source = Path(tiny_tofu(tmp_path / "source").path)
    with tarfile.open(tmp_path / "whole", "w:gz") as archive:
        archive.add(folder, arcname="smollm2")
        archive.add(source, arcname="tofu")
    content, parts = (tmp_path / "whole").read_bytes(), tmp_path / "parts"
    parts.mkdir()
    for number, at in enumerate(range(0, len(content), 5000)):
        (parts / f"part-{number:03d}").write_bytes(content[at : at + 5000])
    room = lab.Lab(device=lab.CPU, scratch=tmp_path / "scratch", sizes=lab.TINY, language=(parts,))
    sizes = replace(language.Sizes(), context=60)
    cell = language.Cell.of(room, sizes)
    assert len(list(parts.iterdir())) > 2
    assert cell.data.prompts.tolist() == tofu.read(source).prompts.tolist()
    assert {cell.data.attributes["forget10"][row] for row in cell.rows["forget"]} == {"yes"}
    assert {cell.data.attributes["forget10"][row] for row in cell.rows["retain"]} == {"no"}
    ours, theirs = cell.begun(), causal_lm.pretrained(CONFIG, 100)
    rows = cell.samples("forget", 2).inputs
    assert torch.equal(ours.eval()(rows), theirs.eval()(rows))


def test_a_later_run_replaces_the_checks_that_it_made_and_no_others() -> None:
    about = {"device": "A", "processor": "B", "packages": {}, "tiny": False}
    began = {"check": "machine", "what": "begin", **about}
    first = [began, {"check": "stages", "what": 1}, {"check": "language", "what": 1}]
    later = [began, {"check": "language", "what": 2}, {"check": "language", "ended": "done"}]
    assert joined([first, later]) == [*first[:2], *later[1:]]
    with pytest.raises(ValueError, match="device: one run has 'A', another 'C'"):
        joined([first, [{**began, "device": "C"}]])
