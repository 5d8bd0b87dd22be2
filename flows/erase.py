"""Erasure requests, from the letter to the certificate (tasks/erasing, docs/erasure.md).

python -m flows.erase request --subject NAME … | --id ID … | --ids FILE
python -m flows.erase inbox             every letter in requests/inbox, and what was left open
python -m flows.erase status            every request, its last step, and what is served
python -m flows.erase verify FILE       a certificate; --rerun: make the model again
python -m flows.erase verify-ledger
python -m flows.erase scan              where something of forgotten samples lies
python -m flows.erase purge NUMBER      remove that of a request served with --no-purge
python -m flows.erase near NUMBER       what is much like forgotten samples, and stays
python -m flows.erase withdraw NUMBER   a request that was not decided yet is refused
python -m flows.erase rollback VERSION  refused for what remembers
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field

from flows.erasing import commands, life, pipeline_work, telling
from flows.erasing.letters import letters, settings_of
from flows.erasing.office import Office, open_office
from flows.erasing.work import Options, Work
from flows.pipeline import JOBS, Jobs
from flows.running.failures import EXPLAINED
from flows.running.requests import told_apart
from tasks.erasing import ErasureError
from tasks.erasing.matching import Asked
from tasks.files import params

SETTINGS = "file of what differs from params.yaml, such as settings/biographies.yaml"
Settings = Annotated[str, Field(description=SETTINGS)]


class Inbox(BaseModel):
    """The letters in requests/inbox."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Subjects(BaseModel):
    """All samples of these people."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    subjects: list[str] = Field(min_length=1, description="as the data name them")
    settings: Settings = ""


class Samples(BaseModel):
    """Samples by their ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ids: list[str] = Field(min_length=1, description="as the data name them")
    settings: Settings = ""


class Received(BaseModel):
    """Requests that were received before, by number."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    numbers: list[int] = Field(min_length=1, description="as the ledger has them")


What = Annotated[
    Inbox | Subjects | Samples | Received, told_apart(Inbox, Subjects, Samples, Received)
]
ALL_LETTERS, AS_USUAL = Inbox(), Options()


def run_name() -> str:
    """It names nobody."""
    return f"erasure · {type(flow_run.parameters['what']).__name__.lower()}"


@flow(name="erase", flow_run_name=run_name, validate_parameters=True)
def erase(
    what: What = ALL_LETTERS, options: Options = AS_USUAL, jobs: Jobs = JOBS
) -> dict[str, str]:
    """Forget what people ask to have forgotten, judge it, serve it, purge, and certify it.

    Args:
        what: letters that lie in requests/inbox, or a request; those left open are served too.
        options: of what is received now; a request that was received before keeps its own.
        jobs: stages that run at the same time.

    A request that comes again is answered with what was done the first time; two at once queue.
    Returns what became of each request.
    """
    log = get_run_logger()
    with open_office(Path.cwd()) as office:
        work = pipeline_work.PipelineWork(office, jobs, log.info)
        numbers, bad = _received(office, what, options, work)
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
            log.info(f"request {number}: {office.answer(number)}")
    if bad:
        raise ErasureError("; ".join(bad))
    return done


def _received(
    office: Office, what: What, options: Options, work: Work
) -> tuple[list[int], list[str]]:
    """Numbers of the requests, and what is wrong with letters that cannot be read."""
    match what:
        case Received(numbers=numbers):
            for number in numbers:
                office.require(number)
            return numbers, []
        case Inbox():
            return _opened(office, options, work)
        case Subjects(subjects=names, settings=file):
            asked = Asked(subjects=tuple(names), settings=settings_of(office.root, file))
        case Samples(ids=names, settings=file):
            asked = Asked(ids=tuple(names), settings=settings_of(office.root, file))
    return [life.receive(office, asked, options, work)], []


def _opened(office: Office, options: Options, work: Work) -> tuple[list[int], list[str]]:
    """The same of the letters in the inbox."""
    found, numbers = letters(office.root), []
    bad = [*found.bad]
    for letter, asked in found.good:
        try:
            numbers.append(life.receive(office, asked, options, work))
        except params.ParameterError as error:
            bad.append(f"the letter {letter.name} stays: {error}")
            continue
        letter.unlink()  # its content lies with the request
    return numbers, bad


def _shown(office: Office, number: int) -> None:
    """The steps of a request on the run's page."""
    steps = office.ledger.of(number)
    create_table_artifact(
        [{"step": s["step"], "time": s["time"], "what": telling.said(s)} for s in steps],
        key=f"request-{number}",
        description=f"Erasure request {number}",
    )


def main(given: Sequence[str] | None = None) -> None:
    commands.main(erase, __doc__, given)


if __name__ == "__main__":
    main()
