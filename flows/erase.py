"""Erasure requests, from the letter to the certificate (tasks/erasing, docs/erasure.md).

python -m flows.erase request --subject NAME … | --id ID … | --ids FILE
python -m flows.erase inbox             every letter in requests/inbox, and what was left open
python -m flows.erase status            every request, its last step, and what is served
python -m flows.erase verify FILE       a certificate; --rerun: make the model again
python -m flows.erase verify-ledger
python -m flows.erase scan              where something of forgotten samples lies
python -m flows.erase purge NUMBER      remove that of a request served with --no-purge
python -m flows.erase withdraw NUMBER   a request that was not decided yet is refused
python -m flows.erase rollback VERSION  refused for what remembers
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field

from flows.erasing import life, pipeline_work
from flows.erasing.letters import letters, settings_of, write
from flows.erasing.office import FOLDER, Books, Office, open_office
from flows.pipeline import JOBS, Jobs
from flows.running.failures import EXPLAINED
from flows.running.server import serving
from tasks.erasing import ErasureError, certificate, keys, ledger
from tasks.erasing.matching import Asked
from tasks.files import artifacts, params
from tasks.tracking import registry


class Inbox(BaseModel):
    """The letters in requests/inbox, and requests that were left open."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Subjects(BaseModel):
    """All samples of these people."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    subjects: list[str] = Field(min_length=1, description="as the data name them")


class Samples(BaseModel):
    """Samples by their ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ids: list[str] = Field(min_length=1, description="as the data name them")


What = Inbox | Subjects | Samples
ALL_LETTERS = Inbox()


def run_name() -> str:
    """It names nobody."""
    return f"erasure · {type(flow_run.parameters['what']).__name__.lower()}"


@flow(name="erase", flow_run_name=run_name, validate_parameters=True)
def erase(
    what: What = ALL_LETTERS,
    settings: str = "",
    methods: list[str] = ["imu_deep"],  # noqa: B006
    retain: bool = False,
    accepted: list[life.Accepted] = ["indistinguishable"],  # noqa: B006
    drift: float = 0.1,
    twins: bool = True,
    purge: bool = True,
    backups: list[str] = [],  # noqa: B006
    jobs: Jobs = JOBS,
) -> dict[str, str]:
    """Forget what people ask to have forgotten, judge it, serve it, purge, and certify it.

    Args:
        what: letters that lie in requests/inbox, or a request.
        settings: file of what differs from params.yaml, such as settings/biographies.yaml.
        methods: entries of `unlearn`, or methods, tried in this order; then retraining.
        retain: methods that are given the retain set may be tried.
        accepted: verdicts that pass.
        drift: largest distance to retraining that passes (TV; of texts dP_retain).
        twins: exact copies under other ids are forgotten too.
        purge: remove what shows or remembers the samples.
        backups: places that the certificate names, and that are not touched.
        jobs: stages that run at the same time.

    A request that comes again is answered with what was done the first time; two at once queue.
    Returns what became of each request.
    """
    log, root = get_run_logger(), Path.cwd()
    options = life.Options(
        methods=tuple(methods),
        retain=retain,
        accepted=tuple(accepted),
        drift=drift,
        twins=twins,
        purge=purge,
        backups=tuple(backups),
    )
    with open_office(root) as office:
        work = pipeline_work.PipelineWork(office, jobs, log.info)
        numbers, bad = _received(office, what, settings, options, work)
        done = {}
        for number in sorted({*numbers, *office.open_requests()}):
            try:
                step = life.serve(office, number, work, log.info)
            except EXPLAINED as error:  # it stays open, and holds up no other
                bad.append(f"request {number}: {error}")
                continue
            finally:
                _shown(office, number)
            done[f"request {number}"] = step
            log.info(f"request {number}: {_answer(office, number)}")
    if bad:
        raise ErasureError("; ".join(bad))
    return done


def _received(
    office: Office, what: What, settings: str, options: life.Options, work: life.Work
) -> tuple[list[int], list[str]]:
    """Numbers of the requests, and what is wrong with letters that cannot be read."""
    root, bad = office.root, []
    given: list[tuple[Path | None, Asked]] = []
    if isinstance(what, Inbox):
        found = letters(root)
        given, bad = [*found.good], found.bad
    else:
        changes = settings_of(root, settings)
        names = what.subjects if isinstance(what, Subjects) else what.ids
        kind = "subjects" if isinstance(what, Subjects) else "ids"
        given = [(None, Asked(**{kind: tuple(names)}, settings=changes))]
    numbers = []
    for letter, asked in given:
        try:
            content = params.changed(params.read(root), asked.settings)
            params.require_name("split.dataset", content["split"]["dataset"])
            for method in options.order:
                work.skipped(method, asked, options.retain)
        except params.ParameterError as error:
            bad.append(f"the letter {letter.name} stays: {error}" if letter else str(error))
            continue
        numbers.append(life.receive(office, content["split"]["dataset"], asked, options, work))
        if letter:
            letter.unlink()  # its content lies with the request
    return numbers, bad


def _shown(office: Office, number: int) -> None:
    """The steps of a request on the run's page."""
    steps = office.ledger.of(number)
    create_table_artifact(
        [{"step": s["step"], "time": s["time"], "what": life.said(s)} for s in steps],
        key=f"request-{number}",
        description=f"Erasure request {number}",
    )


def _answer(office: Office, number: int) -> str:
    if office.step(number) == "refused":  # why: names people, and Prefect keeps what is logged
        return f"refused; see {office.place(number, 'refused.json').relative_to(office.root)}"
    page = office.place(number, "certificate.html")
    return f"certified, {page}"


def main(given: Sequence[str] | None = None) -> None:
    arguments = _arguments(given)
    try:
        arguments.run(arguments)
    except EXPLAINED as error:
        sys.exit(f"erase: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the next run goes on from the last step that was recorded")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m flows.erase",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(name)
        added.set_defaults(run=run)
        return added

    request, inbox = command("request", _request), command("inbox", _request)
    what = request.add_mutually_exclusive_group(required=True)
    what.add_argument("--subject", action="append", default=[])
    what.add_argument("--id", action="append", default=[])
    what.add_argument("--ids", type=Path, help="a CSV or parquet file with a column id")
    request.add_argument("--with", dest="settings", default="", help="file of parameters")
    for one in (request, inbox):
        one.add_argument("--methods", nargs="*", default=["imu_deep"], help="in this order")
        one.add_argument("--retain", action="store_true", help="the retain set may be used")
        one.add_argument("--accepted", nargs="*", default=["indistinguishable"], help="verdicts")
        one.add_argument("--drift", type=float, default=0.1, help="largest distance to retraining")
        one.add_argument("--keep-twins", action="store_true", help="exact copies stay")
        one.add_argument("--no-purge", action="store_true", help="nothing is removed yet")
        one.add_argument("--backup", action="append", default=[], help="named, and not touched")
        one.add_argument("--jobs", type=int, default=JOBS, help="stages at the same time")
    command("status", _status)
    command("verify-ledger", _verify_ledger)
    scan = command("scan", _scan)
    scan.add_argument("number", type=int, nargs="?", default=0, help="of a request; else of all")
    purge = command("purge", _purge)
    purge.add_argument("number", type=int)
    withdraw = command("withdraw", _withdraw)
    withdraw.add_argument("number", type=int)
    rollback = command("rollback", _rollback)
    rollback.add_argument("version")
    for one in (scan, rollback):
        one.add_argument("--with", dest="settings", default="", help="file of parameters")
    verify = command("verify", _verify)
    verify.add_argument("file", type=Path)
    verify.add_argument("--key", type=Path, help="public key; else that of this clone")
    verify.add_argument("--rerun", action="store_true", help="make the model again, compare bits")
    return parser.parse_args(given)


def _request(arguments: argparse.Namespace) -> None:
    root = Path.cwd()
    life.Options(accepted=tuple(arguments.accepted), drift=arguments.drift)  # before a letter lies
    if arguments.jobs < 1:
        raise ErasureError(f"--jobs must be at least 1, got {arguments.jobs}")
    if "id" in arguments:
        ids = arguments.id
        if arguments.ids:
            ids = artifacts.read_given(arguments.ids, id="str")["id"].tolist()
        settings_of(root, arguments.settings)  # before the letter lies there for good
        # As a letter it stands in no parameter of a run, which Prefect would keep.
        write(root, arguments.subject, ids, arguments.settings)
    with serving() as ready:
        ready()
        done = erase(
            methods=arguments.methods,
            retain=arguments.retain,
            accepted=arguments.accepted,
            drift=arguments.drift,
            twins=not arguments.keep_twins,
            purge=not arguments.no_purge,
            backups=arguments.backup,
            jobs=arguments.jobs,
        )
    with open_office(Path.cwd()) as office:
        for name in done:
            print(f"{name}: {_answer(office, int(name.split()[1]))}")
    if not done:
        print("nothing to do: requests/inbox is empty, and no request is open")


def _status(arguments: argparse.Namespace) -> None:
    folder = Path.cwd() / FOLDER
    if not any((folder / name).exists() for name in ("keys", ledger.FILE, ledger.HEAD, "requests")):
        print("no request was received yet")
        return
    books = Books(Path.cwd())
    for number in books.numbers():
        steps = books.ledger.of(number)
        print(f"request {number} ({steps[0]['dataset']}, {steps[0]['kind']})")
        for step in steps:
            print(f"  {step['time']}  {step['step']:<10} {life.said(step)}")
    for dataset in sorted({record["dataset"] for record in books.ledger.all("received")}):
        if served := books.production(dataset):
            print(f"{dataset}: served is version {served.version}, of request {served.request}")


def _verify_ledger(arguments: argparse.Namespace) -> None:
    folder = Path.cwd() / FOLDER
    key = keys.read_public(folder / "keys" / keys.PUBLIC)
    if problems := ledger.verify(folder, key):
        raise ErasureError("the ledger does not hold together: " + "; ".join(problems))
    print(f"the ledger holds together: {len(ledger.records(folder))} records")


def _scan(arguments: argparse.Namespace) -> None:
    with open_office(Path.cwd()) as office:
        work, asked = pipeline_work.PipelineWork(office, JOBS, print), _about(arguments.settings)
        places = work.scan(arguments.number, asked)
    for place in places:
        kept = f"; kept: {place.kept}" if place.kept else ""
        print(f"{place.where}\n    {place.holds}{kept}")
    print(f"{len(places)} places, of which {sum(not p.kept for p in places)} could be removed")


def _purge(arguments: argparse.Namespace) -> None:
    with open_office(Path.cwd()) as office:
        life.purge(office, arguments.number, pipeline_work.PipelineWork(office, JOBS, print))
        print(f"request {arguments.number}: {_answer(office, arguments.number)}")


def _withdraw(arguments: argparse.Namespace) -> None:
    with open_office(Path.cwd()) as office:
        life.withdraw(office, arguments.number)
    print(f"request {arguments.number}: refused: withdrawn")


def _rollback(arguments: argparse.Namespace) -> None:
    with open_office(Path.cwd()) as office:
        work = pipeline_work.PipelineWork(office, JOBS, print)
        store = work.store(_about(arguments.settings))
        registry.require_servable(store, arguments.version)
        served = registry.production(store)
    said = f"version {served.version} is served" if served else "no version is served"
    print(f"version {arguments.version} is not superseded; {said}; nothing was changed")


def _about(settings: str) -> Asked:
    """A request about the data of that file of parameters, by which its workspace is found."""
    return Asked(ids=("-",), settings=settings_of(Path.cwd(), settings))


def _verify(arguments: argparse.Namespace) -> None:
    folder = Path.cwd() / FOLDER
    key = keys.read_public(arguments.key or folder / "keys" / keys.PUBLIC)
    for line in certificate.checked(arguments.file, key, folder):
        print(f"ok    {line}")
    said = certificate.opened(arguments.file, key)["predicate"]
    if not (folder / ledger.FILE).is_file():
        return
    served = Books(Path.cwd(), key).production(said["data"]["dataset"])
    if served and served.sha256 == said["model"]["after"]:
        print(f"ok    {served.model} is the model of the certificate, and is served")
    elif served:
        print(f"note  since request {served.request} another model is served")
    if arguments.rerun:
        with open_office(Path.cwd()) as office:
            number, work = said["request"], pipeline_work.PipelineWork(office, JOBS, print)
            made = work.rerun(number)
        if made != said["model"]["after"]:
            raise ErasureError(f"run again, the method made another model: SHA-256 {made}")
        print("ok    run again, the method made the same model to the last bit")


if __name__ == "__main__":
    main()
