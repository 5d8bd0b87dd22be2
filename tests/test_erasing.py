"""The steps of an erasure request, from its receipt to the certificate."""

import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from flows import erase
from flows.erasing import life
from flows.erasing.office import open_office
from flows.erasing.pipeline_work import PipelineWork
from flows.erasing.work import Options, Unlearned
from flows.running.children import ChildError, Children
from tasks.erasing import ErasureError, certificate, keys, ledger, residue
from tasks.erasing.matching import Asked
from tasks.erasing.residue import Place
from tasks.files import artifacts, forgotten
from tasks.files.workspace import Workspace
from tasks.tracking import registry
from tasks.tracking.store import TrackingError
from tests.erasures import ADA, STEPS, Pretended, checked, laid_out, served, steps


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return laid_out(tmp_path)


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
