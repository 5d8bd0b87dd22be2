"""The stages of a workspace in the order of its graph: each a task of Prefect, run by DVC."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Completed, State

from flows.running.children import ChildError, Children
from flows.running.pools import Pools
from flows.running.tracking import Tracking
from tasks.files import progress
from tasks.files.workspace import Workspace
from tasks.graph import lock
from tasks.graph.__main__ import ABSENT
from tasks.graph.stages import Stage
from tasks.starting.ending import FAILED, KILLED

LOOKS = 3
RARELY = 60.0  # seconds between two lines of a stage on how far it is, such as "step 51: ..."
Outcome = Literal["computed", "restored", "unchanged"]


@dataclass(frozen=True)
class Running:
    """What the stages of one run share."""

    workspace: Workspace
    graph: dict[str, Stage]
    stale: set[str]
    children: Children
    tracking: Tracking
    pools: Pools | None
    force: bool


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def stage(name: str, run: Running, *, pool: str = "") -> Outcome | State[Outcome]:
    """Bring one stage up to date; the name of its state says so where it was not computed.

    pool: whose worker is to compute it; "" for this process. What a worker computed counts as
    computed, though it is restored from the remote here.
    """
    log = get_run_logger()
    this, elsewhere = run.graph[name], False
    if run.pools is not None and this.pool and not pool:
        log.info(f"the pool {this.pool} has no worker: it runs here")
    if run.pools is not None and pool and (run.force or _absent(name, run)):
        elsewhere = run.pools.run(name, pool, force=run.force, say=log.info)
        # While another worker writes the remote's list of results, an entry may be cut short.
        if elsewhere and all(_absent(name, run) for _ in range(LOOKS)):
            raise ChildError(
                f"a worker of the pool {pool} made {name}, but the DVC remote of this clone has "
                "no such result: do both clones have the same remote, data and commit?"
            )
    before = progress.when_ended(run.workspace, this.producer)
    _repro(name, run, forced=run.force and not elsewhere)
    if not elsewhere and progress.when_ended(run.workspace, this.producer) == before:
        return Completed(name="Restored", data="restored")
    run.tracking.ended(this)
    return "computed"


def _repro(name: str, run: Running, *, forced: bool) -> None:
    """Have DVC run the stage or restore it; once more where a signal ended it."""
    log, this, since = get_run_logger(), run.graph[name], time.time()
    told, failing = time.monotonic(), False

    def say(line: str) -> None:
        nonlocal told, failing
        run.tracking.grew(this, since)
        if line.startswith("step "):
            if time.monotonic() - told < RARELY:
                return
            told = time.monotonic()
        failing = failing or (FAILED in line and line.startswith(this.stage))
        if not failing:  # the rest is its reason, which is told where it is caught
            log.info(line)

    call = ["stage-again" if forced else "stage", name]
    try:
        run.children.run(call, say, module="tasks.graph")
    except ChildError as error:
        if KILLED not in str(error) or run.children.closed:
            raise
        log.warning(f"{error}; it is run again, once")
        failing = False
        run.children.run(call, say, module="tasks.graph")


def _absent(name: str, run: Running) -> bool:
    """Whether neither this clone nor the remote has the results; those of the remote come here."""
    # In a process of its own: DVC remembers what a remote did not have.
    status = run.children.run(
        ["restore", name], lambda _: None, module="tasks.graph", allowed=(0, ABSENT)
    )
    return status == ABSENT


def run_stages(run: Running, jobs: int) -> dict[str, Outcome]:
    """Submit each stage when those before it are done, the longest chain of work first.

    jobs: how many run here at the same time; those that a pool takes are not among them. A stage
    that is up to date, as is all that it needs, is no task. After a failure no stage is started,
    but those that run may finish: their work is not lost.
    """
    graph, root = run.graph, run.workspace.root
    weight = weights(graph)
    changed = set(graph) if run.force else reached(graph, run.stale)
    futures: dict[str, PrefectFuture[Any]] = {}
    here: set[str] = set()
    outcomes: dict[str, Outcome] = {name: "unchanged" for name in graph if name not in changed}
    failures: dict[str, Exception] = {}
    if outcomes:
        get_run_logger().info(f"unchanged: {', '.join(outcomes)}")
        lock.keep(root, outcomes)
    while len(outcomes) < len(graph):
        begun = futures.keys() | outcomes.keys()
        ready = [n for n in graph if n not in begun and graph[n].needs <= outcomes.keys()]
        for name in sorted(ready, key=lambda name: weight[name], reverse=True):
            if failures:
                break
            pool = run.pools.of(name) if run.pools else ""
            if not pool:
                if len(here - (outcomes | failures).keys()) >= jobs:
                    continue
                here.add(name)
            futures[name] = stage.submit(
                name,
                run,
                pool=pool,
                return_state=False,
                wait_for=[futures[needed] for needed in graph[name].needs & changed],
            )
        running = {f: name for name, f in futures.items() if name not in outcomes | failures}
        if not running:
            break
        done = next(as_completed(list(running)))
        try:
            outcomes[running[done]] = done.result()
            lock.keep(root, outcomes)
            run.tracking.require()
        except Exception as error:
            failures[running[done]] = error
    if failures:
        raise ChildError("\n".join(f"{name}: {error}" for name, error in failures.items()))
    return outcomes


def reached(graph: dict[str, Stage], stale: Collection[str]) -> set[str]:
    """Stages of ``graph`` that are ``stale``, or need one that is reached."""
    found: set[str] = set()
    for name, at in graph.items():
        if name in stale or at.needs & found:
            found.add(name)
    return found


def weights(graph: dict[str, Stage]) -> dict[str, tuple[int, int]]:
    """Length of the longest chain that waits for a stage, then how many stages wait for it."""
    chain: dict[str, int] = {}
    waiting: dict[str, set[str]] = {name: set() for name in graph}
    for name in reversed(list(graph)):
        later = [other for other in graph if name in graph[other].needs]
        chain[name] = 1 + max((chain[other] for other in later), default=0)
        waiting[name] = set(later).union(*(waiting[other] for other in later))
    return {name: (chain[name], len(waiting[name])) for name in graph}
