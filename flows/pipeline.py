"""The runs that can be asked for, as Prefect flows: the whole pipeline, or a part of it.

A task runs ``dvc repro --single-item STAGE`` in a child process. DVC decides whether a stage must
run, and records it in ``dvc.lock``; Prefect decides when and where. So ``dvc repro`` and these
flows are one path. Independent stages run side by side.

    python -m flows.pipeline [--with FILE] [--jobs N] [--force]
"""

import os
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, cast

from prefect import flow, get_client
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run
from prefect.states import Completed, State
from pydantic import Field

from flows.running import last, pages
from flows.running.cells import Cell, clean_commit, prepare
from flows.running.children import warm
from flows.running.entries import entries_of
from flows.running.failures import EXPLAINED
from flows.running.holding import only_run
from flows.running.requests import Method, Request
from flows.running.server import serving
from flows.running.workspaces import TRACK, run_tags, run_workspace
from imu.verdicts import Outcome
from tasks import report
from tasks.files import params
from tasks.files.workspace import Workspace
from tasks.graph import stages
from tasks.starting import calling
from tasks.tracking.store import address
from tasks.tracking.tracker import Context, Page

JOBS = os.cpu_count() or 1
WANTED: Outcome = "indistinguishable"
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
    _show(folder, ran.page, whole=not part)
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=ran.page.name)
    if changed:
        pages.changed(folder, changed)
    message = pages.answer(ran.page) or None
    ended: State[dict[str, str]] = Completed(message=message, data=ran.outcomes)
    return cast("dict[str, str]", ended)  # who calls the flow gets the data


def _show(folder: Path, page: Page, *, whole: bool) -> None:
    """Print where the results are, and the table where the report was made: ``whole``."""
    if whole:
        print(f"\n{report.shown(Workspace(folder))}")
        print(f"\nreport   {folder / 'runs' / 'report' / 'report.html'}")
    link = pages.mlflow_link(page, page.comparison)
    print(f"MLflow   make mlflow, then {link}")
    print(f"Prefect  make prefect, then {page.prefect}", flush=True)


def _stale(root: Path) -> set[str] | None:
    """Stages that are not up to date. None: what cannot be told now, the run tells in its words."""
    try:
        return stages.changed_stages(root)
    except Exception:
        return None


def main() -> None:
    parser = calling.parser("flows.pipeline", __doc__)
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
        changes = params.read_changes(root, file, str(file)) if file else {}
        with only_run(root), serving() as ready, ExitStack() as libraries:
            page = None if file or arguments.force else last.run(root)
            stale = _stale(root) if page else None
            if page and stale == set():
                _show(root, page, whole=True)
                print(f"done     in {monotonic() - begin:.0f} s: nothing has changed")
                return
            if stale is None or stale - {TRACK}:
                libraries.enter_context(warm(root))
            ready()
            outcomes = pipeline(
                Request(settings=changes), jobs=arguments.jobs, force=arguments.force
            )
    except (*EXPLAINED, ParameterTypeError) as error:
        sys.exit(f"pipeline failed{calling.with_file(file)}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the next run goes on with what is done")
    counts = Counter(outcomes.values())
    print(f"done     in {monotonic() - begin:.0f} s: {dict(counts)}")


if __name__ == "__main__":
    main()
