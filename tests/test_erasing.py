"""Erasure requests: ledger, keys, matching, the steps of a request, the certificate."""

import json
import os
import shutil
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from flows import erase
from flows.erasing import commands, life
from flows.erasing.letters import INBOX, letters, settings_of
from flows.erasing.office import Office, open_office
from flows.erasing.pipeline_work import PipelineWork
from flows.erasing.work import Options, Unlearned
from flows.running.children import ChildError, Children
from tasks.erasing import ErasureError, certificate, keys, ledger, matching, residue
from tasks.erasing.matching import Asked, Match
from tasks.erasing.residue import Place
from tasks.files import artifacts, forgotten, params
from tasks.files.workspace import Workspace
from tasks.pages import findings
from tasks.tracking import registry
from tasks.tracking.store import TrackingError
from tests.conftest import REPOSITORY

STEPS = ("received", "matched", "unlearned", "judged", "accepted", "deployed", "purged")


class Pretended:
    """Work that takes no time. outcomes: verdicts by method. ends: where the process is killed."""

    def __init__(self, root: Path, **outcomes: str):
        self.root, self.outcomes, self.ends, self.away = root, outcomes, "", False
        self.done: list[str] = []
        self.served: dict[int, Path] = {}
        self.forgot: list[tuple[str, ...]] = []
        self.samples = pd.DataFrame(
            {"id": ["a", "b"], "sha256": ["1" * 64, "2" * 64], "set": ["train", "test"], "of": ""}
        )
        self.reason, self.drift, self.idle = "", 0.01, "not forgotten"
        self.words = findings.WORDS["indistinguishable"]
        self.stays, self.left = [Place("data", "them", "it stays")], list[Place]()

    def _did(self, what: str) -> None:
        self.done.append(what)
        if what == self.ends:
            self.ends = ""
            raise KeyboardInterrupt

    def match(self, asked: Asked, *, twins: bool) -> Match:
        if "nobody" in asked.names:
            raise ErasureError("unknown subject 'nobody'")
        samples = self.samples.iloc[:0] if asked.names in self.forgot else self.samples
        found = Match(samples, samples.iloc[:0], 0, self.reason, {"before": "x", "after": "y"})
        self._did("match")
        return found

    def near(self, *_: Any) -> list[dict[str, Any]]:
        return [{"id": "c", "of": "a", "distance": 0.2}]

    def ids(self, asked: Asked) -> list[str]:
        return ["a", "b", "c"]

    def skipped(self, method: str, asked: Asked, retain: bool) -> str:
        return "it may not" if method == "salun" and not retain else ""

    def unlearn(self, number: int, asked: Asked, match: Match, method: str) -> Unlearned:
        model = self.root / f"{method}.safetensors"
        model.write_text(f"{method} {number}")
        self._did("unlearn")
        return Unlearned(
            model=model,
            access="forget",
            parameters={"seed": 0},
            before="0" * 64,
            file=".cells/x/runs/unlearn/imu_deep/model.safetensors",
            outcome=self.outcomes.get(method, "retrained"),
            words=self.words,
            decided=[],
            idle=self.idle,
            metrics={"TV": self.drift},
            thresholds={"distance": 0.04},
            evidence={},
        )

    def promote(self, number: int, asked: Asked, model: Path, tags: dict[str, str]) -> str:
        if self.away:
            raise TrackingError("MLflow is away")
        self.served = {number: model}
        self.forgot.append(asked.names)
        self._did("promote")
        return str(number)

    def scan(self, number: int, asked: Asked) -> list[Place]:
        self._did("scan")
        return [*self.stays, Place("runs", "their images")]

    def purge(self, number: int, asked: Asked) -> tuple[list[Place], list[Place]]:
        self._did("purge")
        return [*self.stays, Place("runs", "their images")], [*self.stays, *self.left]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "forgotten.csv").write_text("id\n")
    (tmp_path / "params.yaml").write_text(
        "split: {dataset: digits, forgotten_before: requests/forgotten.csv}\n"
        "verdict: {distance: 0.04}\n"
    )
    return tmp_path


def served(root: Path, work: Pretended, asked: Asked, **options: Any) -> int:
    with open_office(root) as at:
        number = life.receive(at, asked, Options(**options), work)
        life.serve(at, number, work, lambda _: None)
    return number


def steps(root: Path, number: int = 1) -> list[str]:
    return [r["step"] for r in ledger.records(root / "erasure") if r["request"] == number]


def letter(root: Path, content: str, name: str = "a.yaml") -> Path:
    (root / INBOX).mkdir(exist_ok=True)
    (root / INBOX / name).write_text(content)
    return root / INBOX / name


def checked(path: Path, key: Any, folder: Path | None = None) -> list[str]:
    said = certificate.opened(path, key)["predicate"]
    return certificate.placed(path, said, key, folder or path.parents[2])


ADA = Asked(subjects=("Ada Merton",))


def test_a_request_passes_through_every_step_and_is_certified(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    served(root, work, ADA)
    assert steps(root) == [*STEPS, "certified"]
    key = keys.read_public(root / "erasure" / "keys" / "public.pem")
    folder = root / "erasure" / "requests" / "0001"
    assert checked(folder / "certificate.json", key)
    content = certificate.opened(folder / "certificate.json", key)
    model = certificate.digest(root / "erasure" / "models" / "0001.safetensors")
    assert content["subject"][0]["digest"]["sha256"] == model
    assert content["predicate"]["model"]["before"] == "0" * 64
    assert content["predicate"]["removed"] == ["runs"]
    assert content["predicate"]["remains"][0]["kept"] == "it stays"
    assert "Erasure request 1" in (folder / "certificate.html").read_text()
    assert {path.name for path in folder.iterdir()} == {"certificate.json", "certificate.html"}


def test_nothing_that_is_kept_names_anybody(root: Path) -> None:
    served(root, Pretended(root, imu_deep="indistinguishable"), ADA)
    for path in root.rglob("*"):
        if path.is_file():
            assert b"Ada" not in path.read_bytes(), path
            assert (
                path.name == "params.yaml"
                or not {"a", "b", "c"}
                & set(path.read_text(errors="replace").replace('"', " ").split())
                or path.suffix == ".html"
            )


@pytest.mark.parametrize(
    ("outcomes", "options", "method"),
    [
        ({"imu_deep": "indistinguishable"}, {}, "imu_deep"),
        ({"imu_deep": "masked only"}, {}, "retrain"),
        ({"imu_deep": "masked only"}, {"accepted": ("masked only",)}, "imu_deep"),
        ({"imu_deep": "indistinguishable"}, {"drift": 0.001}, "retrain"),
        ({"salun": "indistinguishable"}, {"methods": ("salun",)}, "retrain"),
        ({"salun": "indistinguishable"}, {"methods": ("salun",), "retain": True}, "salun"),
        ({}, {"methods": ()}, "retrain"),
        (
            {"imu_deep": "not forgotten", "scrub": "indistinguishable"},
            {"methods": ("imu_deep", "scrub")},
            "scrub",
        ),
    ],
)
def test_what_does_not_pass_goes_on_to_the_next_method(root, outcomes, options, method) -> None:
    work = Pretended(root, **outcomes)
    number = served(root, work, ADA, **options)
    assert [r["method"] for r in ledger.records(root / "erasure") if r["step"] == "accepted"] == [
        method
    ]
    assert work.served[number].read_text() == f"{method} 1"


def test_tests_that_doing_nothing_passes_are_no_evidence(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    work.idle = "indistinguishable"
    number = served(root, work, ADA)
    assert work.served[number].read_text() == "retrain 1"


def test_a_verdict_that_a_mask_gets_too_is_no_evidence(root: Path) -> None:
    work = Pretended(root, imu_deep="no evidence")
    number = served(root, work, ADA)
    assert work.served[number].read_text() == "retrain 1"


@pytest.mark.parametrize("fails", [False, True])
def test_a_search_that_fails_holds_up_no_erasure(root: Path, monkeypatch, fails: bool) -> None:
    def child(children: Children, given: list[str], *_: Any) -> None:
        asked = artifacts.read_json(Path(given[1]))
        assert (given[0], asked["ids"], asked["nearer"]) == ("near", ["a", "b"], 0.5)
        if fails:
            raise ChildError("it names 'a'")
        artifacts.write_json(Path(given[1]), {"near": [{"id": "c"}], "why_not": ""})

    monkeypatch.setattr(Children, "run", child)
    monkeypatch.setattr(PipelineWork, "_ran", lambda *_, **__: nullcontext(Workspace(root)))
    monkeypatch.setattr(PipelineWork, "skipped", lambda *_: "")
    with open_office(root) as now:
        match = Pretended(root).match(ADA, twins=True)
        found = PipelineWork(now, 1, print).near(1, ADA, match, Options())
    failed = "the search for them failed; the log of the run says why"
    assert found == (failed if fails else [{"id": "c"}])
    assert not list((root / "requests").glob("erasure-*"))


def test_drift_is_watched_until_a_retraining(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(root)
    work = Pretended(root, imu_deep="indistinguishable")
    for name, drift in (("a", 0.02), ("b", 0.07)):
        work.drift = drift
        served(root, work, Asked(ids=(name,)))
    erase.main(["status"])
    assert "2 requests since it was trained, 0.07 from retraining" in capsys.readouterr().out
    work.drift = 0.11
    served(root, work, Asked(ids=("c",)))
    erase.main(["status"])
    said = capsys.readouterr().out
    assert "it lies 0.11 from retraining, more than 0.1" in said
    assert "of request 3; retrained by the last request" in said


def test_near_duplicates_are_counted_and_named_to_the_operator_alone(
    root, flow, monkeypatch, capsys
) -> None:
    served(root, flow.work, ADA)
    path, key = root / "erasure/requests/0001/certificate.json", root / "erasure/keys/public.pem"
    said = certificate.opened(path, keys.read_public(key))["predicate"]
    assert said["matched"]["near"] == 1
    assert "<td>1 that stay" in path.with_suffix(".html").read_text()
    erase.main(["near", "1"])
    assert "0.200  c  is near to the forgotten a" in capsys.readouterr().out
    erase.main(["status"])
    assert "near-duplicates: 1 (python -m flows.erase near 1)" in capsys.readouterr().out
    monkeypatch.setattr(flow.work, "near", lambda *_: "no head")
    served(root, flow.work, Asked(ids=("a",)))
    erase.main(["status"])
    assert "near-duplicates: no head\n" in capsys.readouterr().out


def test_what_could_not_be_removed_is_not_called_removed(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    work.left = [Place("runs", "their images")]
    served(root, work, ADA, backups=("/srv/backup",))
    (purged,) = (r for r in ledger.records(root / "erasure") if r["step"] == "purged")
    assert purged["removed"] == []
    assert [(place["where"], place["kept"]) for place in purged["remains"]] == [
        ("data", "it stays"),
        ("runs", "it could not be removed from here"),
        ("/srv/backup", "a backup, not touched"),
    ]


def test_a_request_can_be_purged_later_and_is_certified_anew(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    served(root, work, ADA, purge=False)
    path, key = root / "erasure/requests/0001/certificate.json", root / "erasure/keys/public.pem"
    first = path.read_bytes()
    assert path.with_name("asked.json").is_file()
    with open_office(root) as now:
        life.purge(now, 1, work)
        with pytest.raises(ErasureError, match="without a purge"):
            life.purge(now, 1, work)
    assert steps(root)[-2:] == ["purged", "certified"]
    assert not path.with_name("asked.json").exists()
    said = checked(path, keys.read_public(key))
    assert "later" not in said[-1]
    path.write_bytes(first)
    assert "later" in checked(path, keys.read_public(key))[-1]


def test_a_purge_leaves_the_model_of_an_open_request(root: Path, monkeypatch) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    for name in ("Ada", "Bob"):
        served(root, work, Asked(subjects=(name,)), purge=False)
    work.ends = "promote"
    with pytest.raises(KeyboardInterrupt):
        served(root, work, Asked(subjects=("Cy",)))
    monkeypatch.setattr(residue, "scan", lambda *_: residue.Residue([], [], {}, []))
    monkeypatch.setattr(residue, "remove", lambda *_: [])
    monkeypatch.setattr(PipelineWork, "store", lambda *_: None)
    with open_office(root) as now:
        life.purge(now, 1, PipelineWork(now, 1, print))
    names = sorted(path.name for path in (root / "erasure/models").iterdir())
    assert names == ["0002.safetensors", "0003.safetensors"]


class Log(list[str]):
    info = warning = list.append


@pytest.fixture
def flow(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the flow with pretended work; ``log``: what it told Prefect."""
    work, log = Pretended(root, imu_deep="indistinguishable"), Log()
    monkeypatch.chdir(root)
    monkeypatch.setattr(erase, "get_run_logger", lambda: log)
    monkeypatch.setattr(erase, "create_table_artifact", lambda *_, **__: None)
    monkeypatch.setattr(erase.pipeline_work, "PipelineWork", lambda *_: work)
    monkeypatch.setattr(commands, "PipelineWork", lambda *_: work)
    monkeypatch.setattr(commands, "serving", lambda: nullcontext(lambda: None))

    def run(what: Any = erase.ALL_LETTERS, **options: Any) -> Any:
        return erase.erase.fn(what, **options)

    def command(*given: str) -> list[dict[str, Any]]:
        """How it starts the flow."""
        runs: list[dict[str, Any]] = []
        commands.main(lambda **given: runs.append(given) or {}, "", given)
        return runs

    return SimpleNamespace(run=run, command=command, work=work, log=log)


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (["--id", "a", "--id", "b"], Asked(ids=("a", "b"))),
        (["--subject", "Ada"], Asked(subjects=("Ada",))),
        (["--ids", "requests/some.csv"], Asked(ids=("a", "c"))),
    ],
)
def test_options_are_those_of_their_request_alone(root, flow, command, asked) -> None:
    (root / "requests" / "some.csv").write_text("id\na\nc\n")
    other = letter(root, "subjects: [Bo]\n")
    (run,) = flow.command("request", *command, "--methods", "scrub", "--no-purge")
    assert (run["what"], other.is_file()) == ({"numbers": [1]}, True)
    with open_office(root) as now:
        assert now.asked(1) == asked
    flow.run(erase.Received(numbers=[1]))
    flow.run()
    said = [r["options"] for r in ledger.records(root / "erasure") if r["step"] == "received"]
    assert [(o["methods"], o["purge"]) for o in said] == [(["scrub"], False), (["imu_deep"], True)]
    assert not other.exists()


def test_letters_are_served_with_the_options_of_the_command(root, flow) -> None:
    (run,) = flow.command("inbox", "--no-purge", "--drift", "0.2", "--jobs", "1")
    assert run == {"options": Options(purge=False, drift=0.2), "jobs": 1}


def test_what_names_people_is_never_readable_by_others(root: Path, monkeypatch) -> None:
    modes, replace = set[int](), Path.replace

    def seen(path: Path, target: Path) -> Path:
        if target.name == "asked.json":
            modes.add(path.stat().st_mode & 0o777)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", seen)
    with open_office(root) as now:
        life.receive(now, ADA, Options(), Pretended(root))
    assert modes == {0o600}


@pytest.mark.parametrize("what", [erase.Subjects(subjects=["Ada"]), erase.Samples(ids=["a"])])
def test_a_request_can_be_typed_into_the_form(root, flow, what) -> None:
    assert flow.run(what, options=Options(purge=False)) == {"request 1": "certified"}
    with open_office(root) as now:
        assert now.asked(1).names == tuple(getattr(what, "subjects", []) or what.ids)


def test_a_request_that_is_not_there_is_named(root, flow) -> None:
    with pytest.raises(ErasureError, match="there is no request 7"):
        flow.run(erase.Received(numbers=[7]))


@pytest.mark.parametrize("command", ["near", "purge", "scan", "withdraw"])
def test_a_command_about_a_request_that_is_not_there_says_so(root, flow, command) -> None:
    with pytest.raises(SystemExit, match="erase: there is no request 7; there are: none yet"):
        erase.main([command, "7"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("some.csv", r"--ids: .*some.csv has no column id$"),
        ("passwd", r"--ids must be a file that ends in \.csv or \.parquet, got '.*passwd'$"),
        ("no.csv", r".*no\.csv is missing$"),
    ],
)
def test_a_table_without_ids_is_refused(root, flow, name, said) -> None:
    if name != "no.csv":
        (root / name).write_text("name\nSECRET\n")
    with pytest.raises(SystemExit, match=f"erase: {said}"):
        flow.command("request", "--ids", str(root / name))


def test_a_method_that_is_not_there_is_refused_with_those_that_are(root) -> None:
    with (root / "params.yaml").open("a") as file:
        file.write("unlearn: {mine: {method: imu}}\n")
    said = "methods must be entries of `unlearn` or methods: mine, amun, .*retrain; got 'foo'"
    with open_office(root) as office, pytest.raises(params.ParameterError, match=said):
        PipelineWork(office, 1, print).skipped("foo", ADA, False)


def test_a_request_that_cannot_be_served_holds_up_no_other(root, flow, monkeypatch) -> None:
    def unlearn(number: int, asked: Asked, *given: Any) -> Unlearned:
        if "Eve" in asked.names:
            raise artifacts.ArtifactError("a file is missing")
        return Pretended.unlearn(flow.work, number, asked, *given)

    monkeypatch.setattr(flow.work, "unlearn", unlearn)
    for at, name in enumerate(("Eve", "Ada")):
        os.utime(letter(root, f"subjects: [{name}]\n", f"{name}.yaml"), (at, at))
    with pytest.raises(ErasureError, match="request 1: a file is missing"):
        flow.run()
    assert (steps(root, 1), steps(root, 2)) == (["received", "matched"], [*STEPS, "certified"])
    for number in (1, 2):
        artifacts.write_text(root / f".cells/c{number}/requests/erasure-000{number}.csv", "id\na\n")
    erase.main(["withdraw", "1"])
    assert steps(root, 1)[-1] == "refused"
    assert [path.name for path in (root / ".cells").iterdir()] == ["c2"]  # 1 listed its samples
    with pytest.raises(SystemExit, match="not one that is open"):
        erase.main(["withdraw", "2"])
    assert flow.run() == {}


def test_of_a_refused_request_prefect_hears_no_name(root, flow, monkeypatch) -> None:
    def match(*_: Any, **__: Any) -> Match:
        raise ErasureError("unknown subject 'Zoe', choose from Bob Other, Eve Third")

    monkeypatch.setattr(flow.work, "match", match)
    letter(root, "subjects: [Zoe]\n")
    assert flow.run() == {"request 1": "refused"}
    assert flow.log[-1] == "request 1: refused; see erasure/requests/0001/refused.json"
    (path,) = (root / "erasure/requests/0001").iterdir()
    assert path.name == "refused.json"
    assert "'Zoe'" in path.read_text()
    assert "Bob" not in path.read_text()


def test_a_command_that_is_refused_fails_and_says_why(root, flow, capsys) -> None:
    def run(what: dict[str, Any], jobs: int) -> Any:
        return flow.run(erase.Received(**what))

    with pytest.raises(SystemExit) as ended:
        commands.main(run, "", ["request", "--subject", "nobody"])
    assert str(ended.value.code) == (
        "erase: request 1 is refused: it names what the data do not have: unknown subject 'nobody'"
    )
    commands.main(run, "", ["request", "--subject", "Ada"])
    assert "request 2: certified, " in capsys.readouterr().out


def test_a_data_set_that_is_no_name_is_found_before_a_request_is_received(root, flow) -> None:
    (root / "settings").mkdir()
    (root / "settings/a.yaml").write_text("split.dataset: [x]\n")
    letter(root, "{subjects: [Ada], settings: settings/a.yaml}\n")
    with pytest.raises(ErasureError, match=r"split\.dataset"):
        flow.run()
    assert steps(root) == []


def test_a_method_that_is_not_there_is_found_before_a_request_is_received(root, flow) -> None:
    def skipped(method: str, *_: Any) -> str:
        if method == "imu_deeep":
            raise params.ParameterError("there is no method 'imu_deeep'")
        return ""

    flow.work.skipped = skipped
    left = letter(root, "subjects: [Ada]\n")
    with pytest.raises(ErasureError, match="imu_deeep"):
        flow.run(options=Options(methods=("imu_deeep",)))
    with pytest.raises(SystemExit, match="imu_deeep"):
        erase.main(["request", "--id", "a", "--methods", "imu_deeep"])
    assert list((root / INBOX).iterdir()) == [left]
    assert steps(root) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--accepted", "nonsense"],
        ["--accepted", "indistinguishable", "not forgotten"],
        ["--accepted", "utility lost"],
        ["--drift", "-1"],
        ["--drift", "inf"],
        ["--drift", "nan"],
        ["--jobs", "0"],
    ],
)
def test_options_are_checked_before_a_request_is_received(root, flow, options) -> None:
    with pytest.raises(SystemExit, match=f"{options[0]}.*{options[-1]}"):
        erase.main(["request", "--id", "a", *options])
    assert not (root / "erasure").exists()


@pytest.mark.parametrize("at", ["match", "unlearn", "promote", "purge"])
def test_a_kill_within_a_step_is_gone_on_from(root: Path, at: str) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    work.ends = at
    with pytest.raises(KeyboardInterrupt):
        served(root, work, ADA)
    assert steps(root)[-1] != "certified"
    with open_office(root) as now:
        assert now.open_requests() == [1]
        life.serve(now, 1, work, lambda _: None)
    assert steps(root) == [*STEPS, "certified"]


@pytest.mark.parametrize("after", range(1, len(STEPS) + 1))
def test_a_kill_between_record_and_signed_end_is_gone_on_from(
    root: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, write = Pretended(root, imu_deep="indistinguishable"), artifacts.write_json

    def killed(path: Path, content: Any, **mode: int) -> None:
        if path.name == ledger.HEAD and content["records"] == after + 1:
            raise KeyboardInterrupt
        write(path, content, **mode)

    monkeypatch.setattr(artifacts, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        served(root, work, ADA)
    monkeypatch.undo()
    assert steps(root) == [*STEPS[:after]]
    served(root, work, ADA)
    assert steps(root) == [*STEPS, "certified"]


def test_the_same_request_is_answered_with_what_was_done_first(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    assert served(root, work, Asked(ids=("b", "a"))) == 1
    done = list(work.done)
    assert served(root, work, Asked(ids=("a", "b"))) == 1
    assert work.done == [*done, "match"]
    assert served(root, work, Asked(ids=("a",))) == 2


def test_who_comes_again_with_new_data_or_other_settings_is_a_new_request(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    served(root, work, ADA)
    with open_office(root) as now:
        other = Asked(subjects=ADA.subjects, settings={"data.path": "own/other.csv"})
        assert now.pseudonym("digits", other) != now.pseudonym("digits", ADA)
        assert life.receive(now, ADA, Options(), work) == 1
        work.forgot.clear()
        assert life.receive(now, ADA, Options(), work) == 2
        life.serve(now, 2, work, lambda _: None)
        assert life.receive(now, ADA, Options(), work) == 2


def test_a_request_begins_again_with_other_options_until_a_model_is_accepted(root: Path) -> None:
    work = Pretended(root, imu_deep="not forgotten", scrub="indistinguishable")
    work.ends = "unlearn"
    with pytest.raises(KeyboardInterrupt):
        served(root, work, ADA, methods=("imu_deep", "imu_deep", "x"))
    assert served(root, work, ADA, methods=("scrub",)) == 1
    assert steps(root) == ["received", "matched", *STEPS, "certified"]
    assert work.served[1].read_text() == "scrub 1"
    assert served(root, work, ADA) == 1
    assert steps(root)[-1] == "certified"


def test_two_at_once_queue(root: Path) -> None:
    inside, most = [0], [0]

    class Slow(Pretended):
        def unlearn(self, *given: Any) -> Unlearned:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            threading.Event().wait(0.05)
            inside[0] -= 1
            return super().unlearn(*given)

    threads = [
        threading.Thread(
            target=served, args=(root, Slow(root, imu_deep="indistinguishable"), Asked(ids=(i,)))
        )
        for i in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    for number in (1, 2):
        assert steps(root, number) == [*STEPS, "certified"]


def test_nothing_is_deployed_while_the_registry_is_away(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    work.away = True
    with pytest.raises(TrackingError):
        served(root, work, ADA)
    assert steps(root)[-1] == "accepted"
    assert not work.served
    work.away = False
    served(root, work, ADA)
    assert steps(root)[-1] == "certified"


def test_an_unknown_subject_is_refused_without_its_name(root: Path) -> None:
    work = Pretended(root)
    served(root, work, Asked(subjects=("nobody",)))
    assert steps(root) == ["received", "refused"]
    assert b"nobody" not in (root / "erasure" / "ledger.jsonl").read_bytes()
    assert work.done == []
    assert served(root, work, Asked(subjects=("nobody",))) == 2  # the data may be others by now


def test_where_nothing_could_be_judged_the_model_is_retrained(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    work.reason = "class '8' has no test sample left"
    number = served(root, work, ADA)
    assert steps(root)[-1] == "certified"
    assert work.done.count("unlearn") == 1
    assert work.served[number].read_text() == "retrain 1"


def test_what_no_model_was_trained_on_is_left_out_and_certified(root: Path) -> None:
    work = Pretended(root)
    work.samples = work.samples.assign(set="validation")
    served(root, work, ADA)
    assert "unlearned" not in steps(root)
    assert steps(root)[-1] == "certified"
    assert "unlearn" not in work.done
    table = pd.read_csv(root / "requests/forgotten.csv", keep_default_na=False)
    assert list(table["mark"]) == [
        forgotten.mark(i, s) for i, s in zip("ab", ("1" * 64, "2" * 64), strict=True)
    ]


def test_the_model_that_is_served_is_the_one_that_was_judged(root: Path) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    work.away = True
    with pytest.raises(TrackingError):
        served(root, work, ADA)
    (root / "erasure" / "models" / "0001.safetensors").write_text("another")
    work.away = False
    with pytest.raises(ErasureError, match="not the model that was judged"):
        served(root, work, ADA)


@pytest.mark.parametrize("at", ["match", "promote"])
def test_what_is_forgotten_is_what_was_matched(root: Path, at: str) -> None:
    work = Pretended(root, imu_deep="indistinguishable")
    if at == "match":  # killed after it was recorded
        work.unlearn = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    work.ends = "promote"
    with pytest.raises(KeyboardInterrupt):
        served(root, work, ADA)
    path, before = root / "erasure/requests/0001/matched.json", list(work.done)
    content = artifacts.read_json(path)
    content["samples"][0]["sha256"] = "5" * 64
    artifacts.write_json(path, content)
    with pytest.raises(ErasureError, match="not what the ledger says"):
        served(root, work, ADA)
    assert work.done == before


def test_the_model_in_production_is_checked_before_it_forgets_more(root: Path) -> None:
    served(root, Pretended(root, imu_deep="indistinguishable"), ADA)
    (root / "erasure" / "models" / "0001.safetensors").write_text("another")
    with open_office(root) as now, pytest.raises(ErasureError, match="not the model that request"):
        now.production("digits")


def test_a_version_is_known_by_its_request_and_its_model(tmp_path: Path) -> None:
    made: list[dict[str, str]] = []
    model = tmp_path / "model.safetensors"
    model.write_text("new")
    sha256 = certificate.digest(model)

    def create(name: str, *, tags: dict[str, str], **_: Any) -> Any:
        made.append(tags)
        return SimpleNamespace(version="9")

    def found(*versions: dict[str, str]) -> str:
        client = SimpleNamespace(
            search_model_versions=lambda _: [
                SimpleNamespace(version=i, run_id=f"r{i}", tags=tags)
                for i, tags in enumerate(versions, 1)
            ],
            delete_run=lambda run: made.append({"deleted": run}),
            search_logged_models=lambda *_, **__: [
                SimpleNamespace(artifact_location="at", model_id="m")
            ],
            create_model_version=create,
        )
        begun = [SimpleNamespace(info=SimpleNamespace(run_id=run)) for run in ("r1", "half")]
        store: Any = SimpleNamespace(
            client=client, experiment="1", search=lambda _: begun, create=lambda *_: "run"
        )
        store.log = store.tag = store.end = lambda *_: None
        return registry._version(store, "digits", 1, model, {"sha256": sha256})

    assert found({"request": "1", "sha256": sha256}) == "1"
    assert made == []
    former = {"request": "1", "sha256": "0" * 64}
    assert found(former) == "9"
    assert made == [{"deleted": "half"}, {"request": "1", "sha256": sha256}]
    assert found({**made[-1], registry.SERVED: registry.SUPERSEDED}) == "9"


# Ledger and keys.


@pytest.fixture
def book(root: Path) -> Path:
    served(root, Pretended(root, imu_deep="indistinguishable"), ADA)
    return root / "erasure"


def rewritten(book: Path, change: Any) -> list[str]:
    path = book / ledger.FILE
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")
    return ledger.verify(book, keys.read_public(book / "keys" / "public.pem"))


def test_a_whole_ledger_is_found_whole(book: Path) -> None:
    assert rewritten(book, lambda lines: lines) == []


def test_a_changed_record_is_named(book: Path) -> None:
    def change(lines: list[str]) -> list[str]:
        return [line.replace('"passed":true', '"passed":false') for line in lines]

    assert rewritten(book, change) == ["record 5 was changed"]


def test_a_record_that_was_replaced_with_its_hash_is_named(book: Path) -> None:
    def change(lines: list[str]) -> list[str]:
        record = json.loads(lines[4]) | {"passed": False}
        lines[4] = json.dumps(record | {"hash": ledger.hashed(record)})
        return lines

    assert rewritten(book, change) == [
        "record 5 is not signed by this key",
        "record 6 does not follow from the one before, which was replaced",
    ]


def test_a_record_that_nobody_signed_is_neither_accepted_nor_signed(book: Path, root: Path) -> None:
    def forge(lines: list[str]) -> list[str]:
        last = json.loads(lines[-1])
        record = last | {"n": 10, "step": "deployed", "before": last["hash"]}
        return [*lines, json.dumps(record | {"hash": ledger.hashed(record)})]

    assert rewritten(book, forge) == ["record 10 is not signed by this key"]
    with pytest.raises(ErasureError, match="not signed"), open_office(root):
        pass
    assert artifacts.read_json(book / ledger.HEAD)["records"] == 9


def test_a_gap_is_named(book: Path) -> None:
    problems = rewritten(book, lambda lines: lines[:3] + lines[5:])
    assert problems[0] == "records 4 to 5 are missing before record 6"


def test_a_cut_is_named(book: Path) -> None:
    assert rewritten(book, lambda lines: lines[:-1]) == [
        "records after 8 were cut off: head.json signs 9"
    ]


def test_an_older_ledger_with_its_own_end_is_found_by_the_certificate(
    book: Path, root: Path
) -> None:
    path, key = book / "requests/0001/certificate.json", keys.read_public(book / "keys/public.pem")
    kept = ledger.records(book)
    (book / ledger.FILE).write_bytes(b"".join(ledger.canonical(r) + b"\n" for r in kept[:7]))
    (book / ledger.HEAD).unlink()
    end = {"records": 7, "hash": kept[6]["hash"]}
    sign = keys.read(book / "keys").sign(ledger.canonical(end)).hex()
    artifacts.write_json(book / ledger.HEAD, {**end, "signature": sign})
    assert ledger.verify(book, key) == []
    with pytest.raises(ErasureError, match="another record 8"):
        checked(path, key)


def test_a_line_that_a_full_disk_cut_short_is_dropped(book: Path, root: Path) -> None:
    with (book / ledger.FILE).open("a") as file:
        file.write('{"n":10,"requ')
    with open_office(root) as now:
        assert len(now.ledger.records) == 9
    assert ledger.verify(book, keys.read_public(book / "keys" / "public.pem")) == []


def test_a_signed_record_is_not_dropped(book: Path, root: Path) -> None:
    path = book / ledger.FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with open_office(root) as now:
        assert len(now.ledger.records) == 9
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-9])
    with pytest.raises(ErasureError, match="line 9"), open_office(root):
        pass
    assert path.read_bytes() == whole[:-9]


@pytest.mark.parametrize("line", [b'{"n":"x"}', b"[" * 99_999, b"\xff"])
def test_a_line_that_is_no_record_is_named(book: Path, line: bytes) -> None:
    with (book / ledger.FILE).open("ab") as file:
        file.write(line + b"\n")
    (said,) = ledger.verify(book, keys.read_public(book / "keys" / "public.pem"))
    assert "line 10" in said


@pytest.mark.parametrize("content", ["", "[]", '{"records":1,"hash":"x","signature":"zz"}'])
def test_a_damaged_end_is_named(book: Path, content: str) -> None:
    (book / ledger.HEAD).write_text(content)
    (said,) = ledger.verify(book, keys.read_public(book / "keys" / "public.pem"))
    assert "head.json is damaged" in said


def test_a_ledger_that_was_removed_is_missed(book: Path, root: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(root)
    first = (book / ledger.FILE).read_bytes().splitlines(keepends=True)[0]
    (book / ledger.HEAD).unlink()
    (book / ledger.FILE).write_bytes(first)
    with pytest.raises(SystemExit, match=r"head\.json is missing"):
        erase.main(["verify-ledger"])
    (book / ledger.FILE).unlink()
    for command in ("verify-ledger", "status"):
        with pytest.raises(SystemExit, match="there is no ledger"):
            erase.main([command])
    with pytest.raises(ErasureError, match="is missing"):
        Office(root)
    shutil.rmtree(book / "requests")
    with pytest.raises(ErasureError, match="is missing"):
        Office(root)


def test_a_status_creates_nothing(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(root)
    erase.main(["status"])
    assert not (root / "erasure").exists()


def test_a_kill_between_keys_and_ledger_is_gone_on_from(root: Path) -> None:
    keys.create(root / "erasure" / "keys")
    Office(root)
    assert not (root / "erasure" / "keys" / keys.UNUSED).exists()


def test_an_auditor_needs_the_public_key_alone(book: Path, root: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(root)
    for name in (keys.NAMES, keys.SIGNING):
        (book / "keys" / name).unlink()
    before = sorted(root.rglob("*"))
    erase.main(["verify", "erasure/requests/0001/certificate.json"])
    erase.main(["verify-ledger"])
    erase.main(["status"])
    assert "is the model of the certificate, and is served" in capsys.readouterr().out
    assert sorted(root.rglob("*")) == before


def test_a_full_disk_leaves_no_half_record(book: Path, root: Path, monkeypatch) -> None:
    with open_office(root) as now:
        size = (book / ledger.FILE).stat().st_size

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(ledger.os, "fsync", full)
        with pytest.raises(artifacts.ArtifactError, match="No space left"):
            now.ledger.append(2, "received")
        assert (book / ledger.FILE).stat().st_size == size


def test_another_key_is_refused(book: Path, root: Path, tmp_path: Path) -> None:
    keys.create(tmp_path / "others")
    (tmp_path / "others" / keys.NAMES).replace(book / "keys" / keys.NAMES)
    with pytest.raises(ErasureError, match="another key"), open_office(root):
        pass


def test_a_lost_key_is_explained_and_not_replaced(book: Path, root: Path) -> None:
    (book / "keys" / keys.NAMES).unlink()
    with pytest.raises(ErasureError, match=r"names\.key is missing: .*bring it back"):
        Office(root)
    assert not (book / "keys" / keys.NAMES).exists()


def test_keys_that_a_kill_left_half_are_made_anew(root: Path) -> None:
    (root / "erasure" / ".keys").mkdir(parents=True)
    (root / "erasure" / ".keys" / keys.NAMES).write_bytes(b"half")
    assert len(Office(root).keys.names) == 32


def test_keys_are_for_their_owner_alone(book: Path, root: Path) -> None:
    for name in (keys.NAMES, keys.SIGNING):
        assert (book / "keys" / name).stat().st_mode & 0o777 == 0o600
    (book / "keys" / keys.SIGNING).chmod(0o644)
    with pytest.raises(ErasureError, match="chmod 600"):
        Office(root)


# Certificates.


def test_a_forged_certificate_is_refused(book: Path, tmp_path: Path) -> None:
    path, key = book / "requests/0001/certificate.json", keys.read_public(book / "keys/public.pem")
    content = certificate.opened(path, key)
    content["predicate"]["verdict"] = "forgotten for good"
    forged = tmp_path / "forged.json"
    artifacts.write_json(forged, certificate.sealed(content, keys.create(tmp_path / "others")))
    with pytest.raises(ErasureError, match="forged, or was signed by another key"):
        certificate.opened(forged, key)
    artifacts.write_json(forged, certificate.sealed(content, keys.read(book / "keys")))
    with pytest.raises(ErasureError, match="another certificate for request 1"):
        checked(forged, key, book)
    forged.write_text("{}")
    with pytest.raises(ErasureError, match="is no certificate"):
        certificate.opened(forged, key)


def test_without_a_ledger_a_certificate_does_not_pass_as_if_all_were_checked(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "auditor").mkdir()
    monkeypatch.chdir(tmp_path / "auditor")
    call = ["verify", str(book / "requests/0001/certificate.json")]
    call += ["--key", str(book / "keys/public.pem")]
    with pytest.raises(SystemExit, match=r"there is no ledger .*cannot be checked"):
        erase.main(call)
    erase.main([*call, "--no-ledger"])
    assert "not checked: its place in the ledger" in capsys.readouterr().out
    assert not list((tmp_path / "auditor").iterdir())


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
        ("#" * 1_000_001, "1000001 bytes"),
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
        ("settings/../a.yaml", "split.dataset: faces\n", "must be a file in settings/"),
        ("settings/a.yaml", "verdict.distance: 99.0\n", "may not change verdict.distance"),
        ("settings/a.yaml", "split.forgotten_before: a.csv\n", "may not change split.forgotten"),
        ("settings/a.yaml", "split.dataset: 2020-01-01\n", "not JSON serializable"),
    ],
)
def test_settings_lie_in_their_folder_and_change_no_judgement(root, file, content, why) -> None:
    (root / "settings").mkdir()
    (root / "requests" / "inbox").mkdir()
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
