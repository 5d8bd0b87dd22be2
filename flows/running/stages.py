"""The stages of a workspace in the order of its graph: each a task of Prefect, run by DVC."""

from collections.abc import Collection

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed

from flows.running.children import ChildError, Children
from flows.running.pools import Pools
from tasks.graph import lineage

LOOKS = 3
DVC_HINTS = (
    "To track the changes",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config",
    "Use `dvc push`",
    "Updating lock file",
)


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def stage(
    name: str,
    children: Children,
    *,
    changed: bool,
    force: bool,
    pools: Pools | None = None,
    pool: str = "",
) -> str:
    """Bring one stage up to date; returns "computed", "restored" (from cache) or "unchanged".

    pool: whose worker is to compute it; "" for this process. What a worker computed counts as
    computed, though it is restored from the remote here.
    """
    log = get_run_logger()
    if not (changed or force):
        log.info("unchanged")
        return "unchanged"

    def say(line: str) -> None:
        if line and not line.startswith(DVC_HINTS):
            log.info(line)

    elsewhere = False
    if pools is not None and pools.asked(name) and not pool:
        log.info(f"the pool {pools.asked(name)} has no worker: it runs here")
    if pools is not None and pool and (force or _absent(name, children)):
        elsewhere = pools.run(name, pool, force=force, say=say)
    # While another worker writes the remote's list of results, an entry may be cut short.
    if elsewhere and all(_absent(name, children) for _ in range(LOOKS)):
        raise ChildError(
            f"a worker of the pool {pool} made {name}, but the DVC remote of this clone has no "
            "such result: do both clones have the same remote, data and commit?"
        )
    forced = ["--force"] if force and not elsewhere else []
    call = ["dvc", "--wait-for-lock", "repro", "--single-item", *forced, name]
    lines = children.run(call, say)
    if elsewhere:
        return "computed"
    if any("skipping run, checking out outputs" in line for line in lines):
        return "restored"
    return "unchanged" if any("didn't change, skipping" in line for line in lines) else "computed"


def _absent(name: str, children: Children) -> bool:
    """Whether neither this clone nor the remote has the results; those of the remote come here."""
    return children.run(["restore", name], lambda _: None)[-1] == "absent"


def run_stages(
    children: Children,
    jobs: int,
    *,
    force: bool = False,
    targets: Collection[str] = (),
    pools: Pools | None = None,
) -> dict[str, str]:
    """Submit each stage when those before it are done, the longest chain of work first.

    jobs: how many run here at the same time; those that a pool takes are not among them.
    targets: stages that are wanted, with all before them; none: every stage. After a failure no
    stage is started, but those that run may finish: their work is not lost.
    """
    graph = lineage.wanted(lineage.stage_graph(children.root), targets)
    stale = lineage.changed_stages(children.root)
    weight = weights(graph)
    futures: dict[str, PrefectFuture[str]] = {}
    here: set[str] = set()
    outcomes: dict[str, str] = {}
    failures: dict[str, Exception] = {}
    while len(outcomes) < len(graph):
        ready = [name for name in graph if name not in futures and graph[name] <= outcomes.keys()]
        for name in sorted(ready, key=lambda name: weight[name], reverse=True):
            if failures:
                break
            changed = name in stale or any(outcomes[n] != "unchanged" for n in graph[name])
            pool = pools.of(name) if pools and (changed or force) else ""
            if not pool:
                if len(here - (outcomes | failures).keys()) >= jobs:
                    continue
                here.add(name)
            futures[name] = stage.submit(
                name,
                children,
                changed=changed,
                force=force,
                pools=pools,
                pool=pool,
                return_state=False,
                wait_for=[futures[needed] for needed in graph[name]],
            )
        running = {f: name for name, f in futures.items() if name not in outcomes | failures}
        if not running:
            break
        done = next(as_completed(list(running)))
        try:
            outcomes[running[done]] = done.result()
        except Exception as error:
            failures[running[done]] = error
    if failures:
        raise ChildError("\n".join(f"{name}: {error}" for name, error in failures.items()))
    return outcomes


def weights(graph: dict[str, set[str]]) -> dict[str, tuple[int, int]]:
    """Length of the longest chain that waits for a stage, then how many stages wait for it."""
    chain: dict[str, int] = {}
    waiting: dict[str, set[str]] = {name: set() for name in graph}
    for name in reversed(list(graph)):
        later = [other for other in graph if name in graph[other]]
        chain[name] = 1 + max((chain[other] for other in later), default=0)
        waiting[name] = set(later).union(*(waiting[other] for other in later))
    return {name: (chain[name], len(waiting[name])) for name in graph}
