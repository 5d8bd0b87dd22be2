"""The canonical run as a Prefect flow: every stage of ``dvc.yaml``, in the order of the graph.

A task runs ``dvc repro --single-item STAGE`` in a child process. DVC decides whether a stage must
run, and alone writes ``dvc.lock``; Prefect decides when. So ``dvc repro`` and this flow are one
path. Independent stages run side by side.

    python -m flows.pipeline [--jobs N] [--force]
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run

from flows.children import ChildError, Children, warm
from flows.holding import WorkspaceBusyError, only_run
from tasks import lineage, params

JOBS = os.cpu_count() or 1
MLFLOW_PAGE = "http://127.0.0.1:5000"  # where `make mlflow` listens
DVC_HINTS = (
    "To track the changes",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config",
    "Use `dvc push`",
    "Updating lock file",
)


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def stage(name: str, children: Children, *, changed: bool, force: bool) -> str:
    """Bring one stage up to date; returns "computed", "restored" (from cache) or "unchanged"."""
    log = get_run_logger()
    if not (changed or force):
        log.info("unchanged")
        return "unchanged"
    call = ["dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else [])]
    lines = children.run([*call, name], lambda line: log.info(line) if _said(line) else None)
    if any("skipping run, checking out outputs" in line for line in lines):
        return "restored"
    return "unchanged" if any("didn't change, skipping" in line for line in lines) else "computed"


def _said(line: str) -> bool:
    """Whether a line of DVC is worth passing on: its hints for typists are not."""
    return bool(line) and not line.startswith(DVC_HINTS)


def run_name() -> str:
    root = Path.cwd()
    request = params.section(root, "split")
    return f"{request['dataset']} · {request['scenario']} · seed {params.section(root, 'seed')}"


@flow(name="pipeline", flow_run_name=run_name, validate_parameters=True)
def pipeline(jobs: int = JOBS, force: bool = False) -> dict[str, str]:
    """Split, train, compute influences, unlearn, retrain, evaluate and report.

    Args:
        jobs: stages that run at the same time, at least 1.
        force: compute every stage again, even if nothing changed.

    Returns what became of each stage. Runs in the current folder.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be >= 1, got {jobs}")
    log, root = get_run_logger(), Path.cwd()
    ids = {"IMU_PARENT": f"prefect-{flow_run.id}", "IMU_TAGS": json.dumps(run_tags())}
    with only_run(root), _warm(root) as environment:
        children = Children(root, {**ids, **environment})
        try:
            children.run(["check"], log.info)
            children.run(["data"], log.info)
            page = json.loads(children.run(["open"], log.debug)[-1])
            try:
                outcomes = run_stages(children, jobs, force)
                if left := lineage.changed_stages(root):
                    raise ChildError(
                        f"not up to date after the run: {', '.join(sorted(left))}; an input "
                        "changed meanwhile, run it again"
                    )
                page = json.loads(children.run(["close", "FINISHED"], log.debug)[-1])
            except BaseException as error:
                _close_unfinished(children, error)
                raise
            _leave_artifacts(root, outcomes, page)
            print("\n".join(["", *children.run(["show"], log.debug)]))
        finally:
            children.end_all()
    print(f"\nreport   {root / 'runs' / 'report' / 'report.html'}")
    print(f"MLflow   make mlflow, then {_mlflow_link(page)}", flush=True)
    return outcomes


def run_stages(children: Children, jobs: int, force: bool) -> dict[str, str]:
    """Submit each stage when those before it are done, the longest chain of work first.

    After a failure no stage is started, but those that run may finish: their work is not lost.
    """
    graph = lineage.stage_graph(children.root)
    stale = lineage.changed_stages(children.root)
    weight = _weights(graph)
    futures: dict[str, PrefectFuture[str]] = {}
    outcomes: dict[str, str] = {}
    failures: dict[str, Exception] = {}
    while len(outcomes) < len(graph):
        ready = [name for name in graph if name not in futures and graph[name] <= outcomes.keys()]
        for name in sorted(ready, key=lambda name: weight[name], reverse=True):
            if failures or len(futures) - len(outcomes) == jobs:
                break
            changed = name in stale or any(outcomes[n] != "unchanged" for n in graph[name])
            futures[name] = stage.submit(
                name,
                children,
                changed=changed,
                force=force,
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


def _weights(graph: dict[str, set[str]]) -> dict[str, tuple[int, int]]:
    """Length of the longest chain that waits for a stage, then how many stages wait for it."""
    chain: dict[str, int] = {}
    waiting: dict[str, set[str]] = {name: set() for name in graph}
    for name in reversed(list(graph)):
        later = [other for other in graph if name in graph[other]]
        chain[name] = 1 + max((chain[other] for other in later), default=0)
        waiting[name] = set(later).union(*(waiting[other] for other in later))
    return {name: (chain[name], len(waiting[name])) for name in graph}


@contextmanager
def _warm(root: Path) -> Iterator[dict[str, str]]:
    """The warm start of the caller, if it began one already, else one for this run."""
    if "IMU_WARM" in os.environ:
        yield {}
    else:
        with warm(root) as environment:
            yield environment


def run_tags() -> dict[str, str]:
    url = str(flow_run.ui_url)  # begins with "None" where the server ends with the run
    return {
        "prefect.flow_run_id": str(flow_run.id),
        "prefect.flow_run_name": str(flow_run.name),
        **({"prefect.flow_run_url": url} if url.startswith("http") else {}),
    }


def _close_unfinished(children: Children, error: BaseException) -> None:
    """Record in MLflow how the run ended; its own failure must not hide the first one."""
    children.end_all()
    status = "FAILED" if isinstance(error, ChildError) else "KILLED"
    closing = Children(children.root, children.environment)
    try:
        closing.run(["close", status], lambda _: None)
    except ChildError as unreachable:
        print(unreachable, file=sys.stderr)


def _leave_artifacts(root: Path, outcomes: dict[str, str], page: dict[str, str]) -> None:
    """Link, stages and results on the page of the Prefect run."""
    create_link_artifact(_mlflow_link(page), link_text="MLflow run", key="mlflow")
    create_link_artifact(
        _mlflow_link(page, "comparison"), link_text="All models side by side", key="comparison"
    )
    create_table_artifact(
        [{"stage": name, "outcome": outcome} for name, outcome in outcomes.items()],
        key="stages",
        description="What became of each stage",
    )
    said = json.loads((root / "runs" / "report" / "verdicts.json").read_text())
    create_table_artifact(
        [
            {
                "model": model,
                "verdict": verdict["words"],
                "decided by": "; ".join(verdict["decided"]),
            }
            for model, verdict in said.items()
        ],
        key="verdicts",
        description="What the tests say of each model; evidence, not a guarantee",
    )


def _mlflow_link(page: dict[str, str], name: str = "link") -> str:
    base = page["uri"] if page["uri"].startswith("http") else MLFLOW_PAGE
    return base.rstrip("/") + page[name]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS, help="stages at the same time")
    parser.add_argument("--force", action="store_true", help="compute every stage again")
    arguments = parser.parse_args()
    begin = monotonic()
    # Importing the libraries and starting Prefect's server take their time side by side.
    try:
        with only_run(Path.cwd()), warm(Path.cwd()) as environment:
            os.environ.update(environment)
            outcomes = pipeline(jobs=arguments.jobs, force=arguments.force)
    except (ChildError, WorkspaceBusyError) as error:
        sys.exit(f"pipeline failed: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the next run goes on with what is done")
    counts = {kind: list(outcomes.values()).count(kind) for kind in set(outcomes.values())}
    print(f"done     in {monotonic() - begin:.0f} s: {counts}")


if __name__ == "__main__":
    main()
