"""The runs that can be asked for, as Prefect flows: the whole pipeline, or a part of it.

A task runs ``dvc repro --single-item STAGE`` in a child process. DVC decides whether a stage must
run, and records it in ``dvc.lock``; Prefect decides when and where. So ``dvc repro`` and these
flows are one path. Independent stages run side by side.

    python -m flows.pipeline [--with FILE] [--jobs N] [--force]
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, NamedTuple

from prefect import flow, get_run_logger
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run
from pydantic import Field

from flows.running import pages
from flows.running.cells import Cell, clean_commit, prepare
from flows.running.children import ChildError, Children, lead, warm
from flows.running.failures import EXPLAINED
from flows.running.holding import only_run
from flows.running.pools import Pools
from flows.running.requests import Method, Request
from flows.running.server import serving
from flows.running.stages import Running, run_stages
from flows.running.tracking import Tracking
from imu.verdicts import Outcome
from tasks import report
from tasks.files import params
from tasks.files.workspace import Workspace, baselines
from tasks.graph import lock, stages
from tasks.pages import lineup
from tasks.starting.warm import LINK
from tasks.tracking.store import address
from tasks.tracking.tracker import Context, Page

JOBS = os.cpu_count() or 1
WANTED: Outcome = "indistinguishable"
TRACK = "track"  # the stage that logs where no flow does
OTHERWISE = ", other results"  # outcome of a stage that was made before, from the same inputs
Jobs = Annotated[int, Field(ge=1)]
AS_IT_IS = Request()
METHOD = Method("imu_deep")


def run_name() -> str:
    """Such as "digits · class 8 · seed 0"; the flow's own name comes first where it is a part.

    A run that cannot be named begins all the same, so that it can say why and fail: Prefect calls
    a run without a name crashed, and its page does not say why.
    """
    given = flow_run.parameters
    try:
        changes = given["request"].changes()
        said = params.title(params.changed(params.read(Path.cwd()), changes))
    except params.ParameterError:
        said = "not possible"
    return f"{given['method']} · {said}" if "method" in given else said


def reference_run_name() -> str:
    return f"retrained · {run_name()}"


@flow(name="pipeline", flow_run_name=run_name, validate_parameters=True)
def pipeline(
    request: Request = AS_IT_IS,
    jobs: Jobs = JOBS,
    force: bool = False,
    pools: bool = False,
    wanted: Outcome = WANTED,
) -> dict[str, str]:
    """Split, train, compute influences, unlearn, retrain, evaluate and report.

    Args:
        request: what to forget; all that is empty is as in params.yaml.
        jobs: stages that run here at the same time.
        force: compute every stage again, even if nothing changed.
        pools: hand stages to the work pools that they ask for, while these have a worker.
        wanted: the verdict that methods are to have; another one is told to automations.

    Returns what became of each stage. Where the request changes nothing it runs in the current
    folder, else in a workspace of its own below it.
    """
    return _asked(request.changes(), jobs=jobs, force=force, pools=pools, wanted=wanted)


@flow(name="unlearn", flow_run_name=run_name, validate_parameters=True)
def unlearn(
    request: Request = AS_IT_IS,
    method: Method = METHOD,
    parameters: dict[str, Any] = {},  # noqa: B006
    jobs: Jobs = JOBS,
    pools: bool = False,
    wanted: Outcome = WANTED,
) -> dict[str, str]:
    """One method on one forget set, judged beside retraining, doing nothing and the mask.

    The rest of the pipeline runs as far as it must: what an earlier run computed is restored.

    Args:
        request: what to forget; all that is empty is as in params.yaml.
        parameters: of the method, such as {"step": 0.1}; the others are as in params.yaml.
        jobs: stages that run here at the same time.
        pools: hand stages to the work pools that they ask for, while these have a worker.
        wanted: the verdict that methods are to have; another one is told to automations.

    It fails where the method leaves the model as it was.
    """
    entries = entries_of(Path.cwd(), method, parameters)
    (asked,) = [name for name, entry in entries.items() if entry["method"] == method]
    changes = request.changes() | {"unlearn": entries}
    return _asked(changes, jobs=jobs, force=False, pools=pools, wanted=wanted, changed=asked)


@flow(name="retrain-reference", flow_run_name=reference_run_name, validate_parameters=True)
def retrain_reference(
    request: Request = AS_IT_IS, jobs: Jobs = JOBS, force: bool = False, pools: bool = False
) -> dict[str, str]:
    """The reference and what is retrained with other seeds, with their evaluations.

    Args:
        request: what to forget; all that is empty is as in params.yaml.
        jobs: stages that run here at the same time.
        force: compute every stage again, even if nothing changed.
        pools: hand stages to the work pools that they ask for, while these have a worker.
    """
    return _asked(
        request.changes(),
        jobs=jobs,
        force=force,
        pools=pools,
        part="evaluate_retrain@",
    )


def _asked(
    changes: dict[str, Any],
    *,
    jobs: int,
    force: bool,
    pools: bool,
    wanted: str = "",
    part: str = "",
    changed: str = "",
) -> dict[str, str]:
    """Run what a flow was asked for, and say where the results are.

    changed: a model. Raises UnchangedError when its method left it as it was.
    """
    root = Path.cwd()
    cell = Cell(
        name=str(flow_run.name), changes=changes, commit=clean_commit(root) if pools else ""
    )
    folder = cell.folder(root) if changes else root
    with only_run(folder):
        if changes:
            prepare(root, cell)
        ran = run_workspace(
            root,
            folder,
            cell,
            Context(store=address(root), tags=run_tags()),
            jobs=jobs,
            force=force,
            pools=pools,
            wanted=wanted,
            part=part,
        )
    if not part:
        print(f"\n{report.shown(Workspace(folder), ran.page.times)}")
        print(f"\nreport   {folder / 'runs' / 'report' / 'report.html'}")
    link = pages.mlflow_link(ran.page, ran.page.comparison)
    print(f"MLflow   make mlflow, then {link}", flush=True)
    if changed:
        pages.changed(folder, changed)
    return ran.outcomes


class Ran(NamedTuple):
    """What became of each stage, and where the run is shown."""

    outcomes: dict[str, str]
    page: Page


def run_workspace(
    root: Path,
    folder: Path,
    cell: Cell,
    context: Context,
    *,
    jobs: int,
    force: bool = False,
    pools: bool = False,
    wanted: str = "",
    part: str | tuple[str, ...] = "",
) -> Ran:
    """Run the stages of ``folder``, a workspace of the clone ``root``, as one run in MLflow.

    wanted: the verdict that methods are to have; "" for any. part: how the names of the stages
    begin that are to run; "" for all.
    """
    log, children, workspace = get_run_logger(), Children(folder), Workspace(folder)
    try:
        for said in stages.mend(folder):
            log.warning(said)
        if folder != root:
            Children(root).run(["data"], log.info)
            children.dvc(["checkout", "-q", "data.dvc"], log.info)
            children.run(["data", str(root)], log.info)
        parameters = params.read(folder)
        graph, stale = _read_graph(folder, children)
        elsewhere = Pools(cell, children, graph) if pools else None
        targets = [name for name in graph if part and name.startswith(part)]
        graph = {name: at for name, at in stages.wanted(graph, targets).items() if name != TRACK}
        tracking = Tracking(workspace, context)
        try:
            before = lock.locked_stages(folder)
            running = Running(workspace, graph, stale, children, tracking, elsewhere, force)
            computes = force or bool(stale & graph.keys())
            with warmed(root, folder) if computes else nullcontext():
                if computes:
                    _require_sound(root, folder, children, stale)
                    lineup.prune(workspace)
                try:
                    outcomes: dict[str, str] = {**run_stages(running, jobs)}
                except BaseException:
                    with suppress(lock.LockError):  # what went wrong first is to be told
                        _say_otherwise(folder, before)
                    raise
                others = _say_otherwise(folder, before)
            left = _require_unchanged(folder, parameters, outcomes)
            outcomes |= {name: outcomes[name] + OTHERWISE for name in others}
            page = tracking.finish({*graph})
            if TRACK in left and not part:  # all that the last stage would do is done
                children.dvc(["commit", "--force", "-q", TRACK], log.info)
        except BaseException as error:
            children.end_all()
            known = isinstance(error, EXPLAINED)
            tracking.fail("FAILED" if known else "KILLED", str(error) or type(error).__name__)
            raise
        pages.leave(folder, outcomes, page, whole=not part, wanted=wanted)
        return Ran(outcomes, page)
    finally:
        children.end_all()


def _read_graph(folder: Path, children: Children) -> tuple[dict[str, stages.Stage], set[str]]:
    """The stages of ``folder``, and which of them are not up to date."""
    try:
        return stages.stages(folder), stages.changed_stages(folder)
    except Exception:
        children.run(["check"], get_run_logger().info)  # names the parameter, as DVC does not
        raise


def _require_sound(root: Path, folder: Path, children: Children, stale: Collection[str]) -> None:
    """Before anything is computed: parameters, data, and a rehearsal of what is the user's."""
    log = get_run_logger()
    children.run(["check"], log.info)
    if folder == root:
        children.run(["data"], log.info)
    if "train" in stale and of_the_user(folder):
        children.run(["rehearse"], log.info)


def of_the_user(folder: Path) -> bool:
    """Whether network, weights or images are the user's, so that nobody has tried them here."""
    return (
        params.section(folder, "network.name") == "custom"
        or bool(params.section(folder, "original.checkpoint"))
        or params.section(folder, "split.dataset")
        in ("image_folder", "image_table", "qa_table", "documents")
    )


def _require_unchanged(
    folder: Path, parameters: dict[str, Any], outcomes: Collection[str]
) -> set[str]:
    """The other stages that are not up to date.

    Raises ChildError where the run's parameters or other inputs changed while it went on.
    """
    if params.read(folder) != parameters:
        raise ChildError(f"{params.FILE} changed during the run: run it again")
    left = stages.changed_stages(folder)
    if changed := left & set(outcomes):
        raise ChildError(
            f"not up to date after the run: {', '.join(sorted(changed))}; an input changed "
            "meanwhile, run it again"
        )
    return left


def _say_otherwise(folder: Path, before: dict[str, lock.Locked]) -> list[str]:
    """Stages whose results are others than ``before``, from the same inputs; the log names them."""
    found = lock.not_reproduced(before, lock.stages_with(folder, ()))
    for name in found:
        get_run_logger().warning(
            f"{name} came out otherwise than dvc.lock had it, from the same inputs: it was made on "
            "another kind of processor, with other versions of packages, or cannot be reproduced"
        )
    return found


def entries_of(root: Path, method: Method, parameters: dict[str, Any]) -> dict[str, Any]:
    """The section ``unlearn`` with one method beside the baselines.

    Raises ParameterError for parameters that the method does not have.
    """
    known = params.section(root, "unlearn")
    name, entry = entry_of(known, method, parameters)
    nothing = {"nothing": {"method": "nothing", "data_access": "forget"}}
    return nothing | baselines(known) | {name: entry}


def entry_of(
    known: dict[str, Any], method: Method, parameters: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Name and content of a method's entry in ``known``, a section ``unlearn``, else its default.

    Of several entries of the method the one that bears its name, else the first. Raises
    ParameterError for parameters that the method does not have.
    """
    found = {name: entry for name, entry in known.items() if entry["method"] == method}
    if not found:
        from tasks.unlearn import entries

        found = {name: entry for name, entry in entries().items() if entry["method"] == method}
    name = method.value if method in found else next(iter(found))
    entry = found[name]
    if unknown := sorted(parameters.keys() - (entry.keys() - {"method", "data_access"})):
        raise params.ParameterError(
            f"parameters: {method} has no {unknown[0]!r}, only "
            f"{', '.join(entry.keys() - {'method', 'data_access'}) or 'nothing to set'}"
        )
    return name, entry | parameters


@contextmanager
def warmed(root: Path, folder: Path | None = None) -> Iterator[None]:
    """Stages of ``folder`` (none: of ``root``) start warm, by the process of ``root`` if any.

    Cells share it.
    """
    with ExitStack() as stack:
        if not (root / LINK).exists():
            stack.enter_context(warm(root))
        if folder not in (None, root):
            lead(folder, (root / LINK).resolve())
            stack.callback((folder / LINK).unlink, missing_ok=True)
        yield


def run_tags() -> dict[str, str]:
    url = str(flow_run.ui_url)  # begins with "None" where the server ends with the run
    return {
        "prefect.flow_run_id": str(flow_run.id),
        "prefect.flow_run_name": str(flow_run.name),
        **({"prefect.flow_run_url": url} if url.startswith("http") else {}),
    }


def _is_up_to_date(root: Path) -> bool:
    """Whether there is nothing to compute. What cannot be told now, the run tells in its words."""
    try:
        return not stages.changed_stages(root) - {TRACK}
    except Exception:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS, help="stages at the same time")
    parser.add_argument(
        "--with",
        type=Path,
        dest="settings",
        help="a YAML file of dotted path: value, what differs from params.yaml; it runs in a "
        "workspace of its own",
    )
    parser.add_argument("--force", action="store_true", help="compute every stage again")
    arguments = parser.parse_args()
    begin, root, file = monotonic(), Path.cwd(), arguments.settings
    # The server, the libraries of stages, and those of this process are started side by side.
    try:
        asked = Request(settings=params.read_file(file, str(file), "paths")) if file else AS_IT_IS
        with only_run(root), serving() as ready, ExitStack() as libraries:
            if file or arguments.force or not _is_up_to_date(root):
                libraries.enter_context(warm(root))
            ready()
            outcomes = pipeline(asked, jobs=arguments.jobs, force=arguments.force)
    except (*EXPLAINED, ParameterTypeError) as error:
        sys.exit(f"pipeline failed: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the next run goes on with what is done")
    counts = Counter(outcomes.values())
    print(f"done     in {monotonic() - begin:.0f} s: {dict(counts)}")


if __name__ == "__main__":
    main()
