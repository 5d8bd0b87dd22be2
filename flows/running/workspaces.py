"""All stages of one workspace as one run: what comes before them, between and after."""

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

from prefect import get_run_logger
from prefect.runtime import flow_run

from flows.running import last, pages
from flows.running.cells import Cell
from flows.running.children import ChildError, Children, warmed
from flows.running.failures import EXPLAINED
from flows.running.pools import Pools
from flows.running.server import run_link
from flows.running.stages import Running, run_stages
from flows.running.tracking import Tracking
from imu import discovery
from tasks.files import params
from tasks.files.workspace import Workspace
from tasks.graph import lock, stages
from tasks.pages import lineup
from tasks.tracking.tracker import Context, Page

TRACK = "track"  # the stage that logs where no flow does
OTHERWISE = ", other results"  # outcome of a stage that was made before, from the same inputs


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
            bring_data(root, children, log.info)
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
                    ahead = set(graph) if force else stale
                    _require_sound(root, folder, children, ahead, elsewhere=pools)
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
                stages.commit(folder, TRACK)
        except BaseException as error:
            children.end_all()
            known = isinstance(error, EXPLAINED)
            tracking.fail("FAILED" if known else "KILLED", str(error) or type(error).__name__)
            raise
        if not part and not context.below:  # what MLflow's registry follows
            last.remember(root, page) if folder == root else last.forget(root)
        pages.leave(folder, outcomes, page, whole=not part, wanted=wanted)
        return Ran(outcomes, page)
    finally:
        children.end_all()


def bring_data(root: Path, children: Children, line: Callable[[str], None]) -> None:
    """The data of the clone ``root`` for the workspace of ``children``, made where it lacks them.

    line: what is told of it; what is the same of both is told once.
    """
    told: set[str] = set()

    def once(text: str) -> None:
        if text not in told:
            told.add(text)
            line(text)

    Children(root).run(["data"], once)
    children.dvc(["checkout", "-q", "data.dvc"], line)
    children.run(["data", str(root)], once)


def _read_graph(folder: Path, children: Children) -> tuple[dict[str, stages.Stage], set[str]]:
    """The stages of ``folder``, and which of them are not up to date."""
    try:
        return stages.stages_and_changed(folder)
    except Exception:
        children.run(["check"], get_run_logger().info)  # names the parameter, as DVC does not
        raise


def _require_sound(
    root: Path, folder: Path, children: Children, stale: Collection[str], *, elsewhere: bool
) -> None:
    """Before anything is computed: parameters, data, and a rehearsal of what is the user's.

    Data that are not as they were made every stage stale.
    """
    log = get_run_logger()
    children.run(["check", "elsewhere"] if elsewhere else ["check"], log.info)
    if folder == root and "split" in stale:
        children.run(["data"], log.info)
    if "train" in stale and of_the_user(folder):
        children.run(["rehearse"], log.info)


def of_the_user(folder: Path) -> bool:
    """Whether network, weights or images are the user's, so that nobody has tried them here."""
    data = discovery.load("imu.datasets", params.section(folder, "split.dataset"))
    return (
        params.section(folder, "network.name") in ("custom", "causal_lm")
        or bool(params.section(folder, "original.checkpoint"))
        or hasattr(data, "OF_THE_USER")
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


def _say_otherwise(folder: Path, before: Mapping[str, lock.Locked]) -> list[str]:
    """Stages whose results are others than ``before``, from the same inputs; the log names them."""
    found = lock.not_reproduced(before, lock.stages_with(folder, ()))
    for name in found:
        get_run_logger().warning(
            f"{name} came out otherwise than dvc.lock had it, from the same inputs: it was made on "
            "another kind of processor, with other versions of packages, or cannot be reproduced"
        )
    return found


def run_tags() -> dict[str, str]:
    return {
        "prefect.flow_run_id": str(flow_run.id),
        "prefect.flow_run_name": str(flow_run.name),
        "prefect.flow_run_url": run_link(flow_run.id),
    }
