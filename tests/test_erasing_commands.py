"""Commands and the form of erasure, on pretended work."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import erase
from flows.erasing import commands, life
from flows.erasing.letters import INBOX
from flows.erasing.office import open_office
from flows.erasing.pipeline_work import PipelineWork
from flows.erasing.work import Options, Unlearned
from tasks.erasing import ErasureError, certificate, keys, ledger
from tasks.erasing.matching import Asked, Match
from tasks.files import artifacts, params
from tests.erasures import ADA, STEPS, Pretended, laid_out, letter, served, steps


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return laid_out(tmp_path)


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
