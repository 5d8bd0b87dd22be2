"""The commands of ``python -m flows.erase``; its help says what each does."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError

from flows.erasing import life, telling
from flows.erasing.letters import settings_of
from flows.erasing.office import FOLDER, Books, open_office
from flows.erasing.pipeline_work import PipelineWork
from flows.erasing.work import Options
from flows.pipeline import JOBS
from flows.running.failures import EXPLAINED
from flows.running.server import serving
from tasks.erasing import ErasureError, certificate, keys, ledger
from tasks.erasing.matching import Asked
from tasks.files import artifacts, params
from tasks.starting import calling
from tasks.tracking import registry

Flow = Callable[..., dict[str, str]]


def main(flow: Flow, about: str, given: Sequence[str] | None) -> None:
    arguments = _arguments(about, given)
    arguments.flow = flow
    try:
        arguments.run(arguments)
    except EXPLAINED as error:
        sys.exit(f"erase: {error}")
    except ValidationError as error:
        said = (f"--{e['loc'][0]}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        sys.exit(f"erase: {'; '.join(said)}")
    except KeyboardInterrupt:
        sys.exit("stopped; the next run goes on from the last step that was recorded")


def _arguments(about: str, given: Sequence[str] | None) -> argparse.Namespace:
    parser = calling.parser("flows.erase", about)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, number: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(name)
        added.set_defaults(run=run)
        if number:
            added.add_argument(number, type=int)
        return added

    request, inbox = command("request", _request), command("inbox", _inbox)
    what = request.add_mutually_exclusive_group(required=True)
    what.add_argument("--subject", action="append", default=[])
    what.add_argument("--id", action="append", default=[])
    what.add_argument("--ids", type=Path, help="a CSV or parquet file with a column id")
    for one in (request, inbox):
        for name, field in Options.model_fields.items():
            kind: dict[str, Any] = {"type": field.annotation}
            if get_origin(field.annotation) is tuple:
                kind = {"nargs": "*"}
            elif field.annotation is bool:
                kind = {"action": argparse.BooleanOptionalAction}
            default = argparse.SUPPRESS
            one.add_argument(f"--{name}", default=default, help=field.description, **kind)
        one.add_argument("--jobs", type=int, default=JOBS, help="stages at the same time")
    command("status", _status)
    command("verify-ledger", _verify_ledger)
    scan = command("scan", _scan)
    scan.add_argument("number", type=int, nargs="?", default=0, help="of a request; else of all")
    command("purge", _purge, "number")
    near = command("near", _near, "number")
    command("withdraw", _withdraw, "number")
    rollback = command("rollback", _rollback)
    rollback.add_argument("version")
    for one in (request, near, scan, rollback):
        one.add_argument("--with", dest="settings", default="", help="file of parameters")
    verify = command("verify", _verify)
    verify.add_argument("file", type=Path)
    verify.add_argument("--key", type=Path, help="public key; else that of this clone")
    how = verify.add_mutually_exclusive_group()
    how.add_argument("--no-ledger", action="store_true", help="where only the file is at hand")
    how.add_argument("--rerun", action="store_true", help="make the model again, compare bits")
    return parser.parse_args(given)


def _request(arguments: argparse.Namespace) -> None:
    """Received here, so that no name is a parameter of a run, which Prefect would keep."""
    options, root, ids = _options(arguments), Path.cwd(), arguments.id
    if arguments.ids:
        if arguments.ids.suffix not in params.TABLES:  # of another file an error may show a part
            raise ErasureError(
                f"--ids must be a file that ends in {' or '.join(params.TABLES)}, got "
                f"{str(arguments.ids)!r}"
            )
        table = artifacts.read_given(arguments.ids, id="str")
        if "id" not in table:
            raise ErasureError(f"--ids: {arguments.ids} has no column id")
        ids = table["id"].tolist()
    changes = settings_of(root, arguments.settings)
    asked = Asked(subjects=tuple(arguments.subject), ids=tuple(ids), settings=changes)
    with open_office(root) as office:
        work = PipelineWork(office, arguments.jobs, print)
        number = life.receive(office, asked, options, work)
    _serve(arguments, what={"numbers": [number]})


def _inbox(arguments: argparse.Namespace) -> None:
    _serve(arguments, options=_options(arguments))


def _options(arguments: argparse.Namespace) -> Options:
    if arguments.jobs < 1:
        raise ErasureError(f"--jobs must be at least 1, got {arguments.jobs}")
    return Options(**{k: v for k, v in vars(arguments).items() if k in Options.model_fields})


def _serve(arguments: argparse.Namespace, **given: Any) -> None:
    with serving() as ready:
        ready()
        done = arguments.flow(**given, jobs=arguments.jobs)
    refused = []
    with open_office(Path.cwd()) as office:
        for name, step in done.items():
            number = int(name.split()[1])
            if step == "refused":
                refused.append(f"{name} is refused: {office.refusal(number)}")
            else:
                print(f"{name}: {office.answer(number)}")
    if refused:
        raise ErasureError("; ".join(refused))
    if not done:
        print("nothing to do: requests/inbox is empty, and no request is open")


def _status(arguments: argparse.Namespace) -> None:
    folder = Path.cwd() / FOLDER
    there = any((folder / n).exists() for n in ("keys", ledger.FILE, ledger.HEAD, "requests"))
    books = Books(Path.cwd()) if there else None
    if not books or not books.numbers():
        print("no request was received yet")
        return
    for number in books.numbers():
        steps = books.ledger.of(number)
        print(f"request {number} ({steps[0]['dataset']}, {steps[0]['kind']})")
        for step in steps:
            print(f"  {step['time']}  {step['step']:<10} {telling.said(step)}")
    for dataset in sorted({record["dataset"] for record in books.ledger.all("received")}):
        if served := books.production(dataset):
            which = f"version {served.version}, of request {served.request}"
            print(f"{dataset}: served is {which}; {books.drifted(dataset)}")


def _verify_ledger(arguments: argparse.Namespace) -> None:
    folder = Path.cwd() / FOLDER
    key = keys.read_public(folder / "keys" / keys.PUBLIC)
    ledger.require_whole(folder, key)
    print(f"the ledger holds together: {len(ledger.records(folder))} records")


def _scan(arguments: argparse.Namespace) -> None:
    with open_office(Path.cwd()) as office:
        if arguments.number:
            office.require(arguments.number)
        work, asked = PipelineWork(office, JOBS, print), _about(arguments.settings)
        places = work.scan(arguments.number, asked)
    for place in places:
        kept = f"; kept: {place.kept}" if place.kept else ""
        print(f"{place.where}\n    {place.holds}{kept}")
    print(f"{len(places)} places, of which {sum(not p.kept for p in places)} could be removed")


def _purge(arguments: argparse.Namespace) -> None:
    with open_office(Path.cwd()) as office:
        life.purge(office, arguments.number, PipelineWork(office, JOBS, print))
        print(f"request {arguments.number}: {office.answer(arguments.number)}")


def _near(arguments: argparse.Namespace) -> None:
    """The ledger has HMACs; which samples they are is told by the data and the key."""
    with open_office(Path.cwd()) as office:
        office.require(arguments.number)
        matched = office.ledger.of(arguments.number, "matched")
        if not matched:
            raise ErasureError(f"request {arguments.number} was not matched")
        if isinstance(telling.counted(matched[-1]), str):
            raise ErasureError(f"near-duplicates are not known: {telling.counted(matched[-1])}")
        ids = PipelineWork(office, JOBS, print).ids(_about(arguments.settings))
        known = {office.keys.pseudonym("sample", i): i for i in ids}
    for one in matched[-1]["near"]:
        near, of = (known.get(one[key], "(not in these data)") for key in ("id", "of"))
        print(f"{one['distance']:.3f}  {near}  is near to the forgotten {of}")
    print(f"{len(matched[-1]['near'])} near-duplicates; look at them, and request theirs as well")


def _withdraw(arguments: argparse.Namespace) -> None:
    with open_office(Path.cwd()) as office:
        life.withdraw(office, arguments.number)
    print(f"request {arguments.number}: refused: withdrawn")


def _rollback(arguments: argparse.Namespace) -> None:
    with open_office(Path.cwd()) as office:
        store = PipelineWork(office, JOBS, print).store(_about(arguments.settings))
        registry.require_servable(store, arguments.version)
        served = registry.production(store)
    said = f"version {served.version} is served" if served else "no version is served"
    print(f"version {arguments.version} is not superseded; {said}; nothing was changed")


def _about(settings: str) -> Asked:
    """A request about the data of that file of parameters, by which its workspace is found."""
    return Asked(ids=("-",), settings=settings_of(Path.cwd(), settings))


def _verify(arguments: argparse.Namespace) -> None:
    root = Path.cwd()
    key = keys.read_public(arguments.key or root / FOLDER / "keys" / keys.PUBLIC)
    said = certificate.opened(arguments.file, key)["predicate"]
    print(f"ok    signed by the key {keys.fingerprint(key)}")
    if arguments.no_ledger:
        print("note  not checked: its place in the ledger, and whether its model is served")
    else:
        for line in certificate.placed(arguments.file, said, key, root / FOLDER):
            print(f"ok    {line}")
        served = Books(root, key).production(said["data"]["dataset"])
        if served and served.sha256 == said["model"]["after"]:
            print(f"ok    {served.model} is the model of the certificate, and is served")
        elif served:
            print(f"note  since request {served.request} another model is served")
    if arguments.rerun:
        with open_office(root) as office:
            made = PipelineWork(office, JOBS, print).rerun(said["request"])
        if made != said["model"]["after"]:
            raise ErasureError(f"run again, the method made another model: SHA-256 {made}")
        print("ok    run again, the method made the same model to the last bit")
    else:
        print("note  not checked: what the method makes when it runs again (--rerun)")
