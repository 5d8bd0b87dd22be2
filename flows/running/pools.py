"""Stages on other hosts: what is handed to a work pool, and what a worker of it does.

A pool gets the name of a stage, a commit and changed parameters, never data. What a stage reads
and makes travels through the DVC remote: before a stage is handed on, the results it needs are
pushed; afterwards its own are restored from there, as from any other cache. A stage that some
worker computed once is restored by all.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, TypeVar
from uuid import UUID

import httpx
from prefect import flow, get_client, get_run_logger
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelling
from pydantic import Field

from flows.running.cells import Cell, prepare, unused
from flows.running.children import ChildError, Children
from tasks.files.params import ParameterError
from tasks.graph.stages import Stage, stages, wanted

T = TypeVar("T")
POLL = 1.0  # seconds between two looks at a stage that runs elsewhere
PATIENCE = 600.0  # seconds that the server may be away, being restarted or upgraded


class Pools:
    """The work pools, as one cell uses them. What runs there ends with ``children``."""

    def __init__(self, cell: Cell, children: Children, graph: dict[str, Stage]):
        """children: of the cell's workspace here. graph: all its stages."""
        self.cell, self.children, self._graph = cell, children, graph
        self._stored: set[str] = set()
        self._running: set[UUID] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        children.also.append(self.end_all)

    def of(self, name: str) -> str:
        """The pool that takes the stage now: the one it asks for, if a worker is there; else ""."""
        pool = self._graph[name].pool
        return pool if pool and _patiently(lambda: online(pool), self._closed) else ""

    def run(self, name: str, pool: str, *, force: bool, say: Callable[[str], None]) -> bool:
        """Have a worker bring the stage up to date; its outputs are in the remote afterwards.

        False when the pool has no worker any more: then the stage is as it was. Raises ChildError
        when it fails, is cancelled, or dies more often than it is forgiven.
        """
        with self._lock:
            before = wanted(self._graph, [name]).keys() - {name}
            if new := sorted({"data.dvc", *before} - self._stored):
                push(self.children, new, say)
                self._stored |= {*new}
        state = self._run_once(name, pool, force, say)
        if state is not None and state.is_crashed() and self.of(name):  # forgiven once
            say(f"its worker died ({state.message}); handed to the pool {pool} again")
            state = self._run_once(name, pool, force, say)
        if state is None or (state.is_crashed() and not self.of(name)):
            say(f"the pool {pool} has no worker any more")
            return False
        if not state.is_completed():
            raise ChildError(f"in the pool {pool}: {state.name}: {state.message}")
        self._stored.add(name)
        return True

    def end_all(self) -> None:
        """Cancel every stage that runs elsewhere; none is handed on any more."""
        self._closed.set()
        for run in list(self._running):
            self._cancel(run)

    def _run_once(
        self, name: str, pool: str, force: bool, say: Callable[[str], None]
    ) -> "State[Any] | None":
        """The state in which it ended; None when nobody will begin it."""
        run = _patiently(lambda: self._handed(name, pool, force), self._closed)
        assert isinstance(run, FlowRun)  # outside of coroutines
        self._running.add(run.id)
        try:
            say(f"handed to the pool {pool} as run {run.id}")
            with get_client(sync_client=True) as client:
                while not self._closed.wait(POLL):
                    state = _patiently(lambda: client.read_flow_run(run.id).state, self._closed)
                    if state is not None and state.is_final():
                        return state
                    begun = state is not None and not (state.is_scheduled() or state.is_pending())
                    if not begun and not self.of(name):
                        self._cancel(run.id)
                        return None
            self._cancel(run.id)
            raise ChildError("the flow is being stopped")
        finally:
            self._running.discard(run.id)

    def _handed(self, name: str, pool: str, force: bool) -> Any:
        if self._closed.is_set():
            raise ChildError("the flow is being stopped")
        return run_deployment(
            f"stage/{pool}",
            parameters={
                "stage": name,
                "title": f"{name} · {self.cell.name}",
                "commit": self.cell.commit,
                "changes": self.cell.changes,
                "force": force,
            },
            timeout=0,
        )

    def _cancel(self, run: UUID) -> None:
        """Best effort: the server may be away, and the run at its end."""
        try:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(run, Cancelling(message="the pipeline ended"))
        except (httpx.HTTPError, Abort) as error:
            print(f"could not cancel run {run}: {error}", file=sys.stderr)


def online(pool: str) -> list[str]:
    """Names of the workers of ``pool`` that the server has heard of lately."""
    with get_client(sync_client=True) as client:
        try:
            workers = client.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            return []
    return [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]


def push(children: Children, targets: list[str], say: Callable[[str], None]) -> None:
    """Store results in the DVC remote, and what they were made from in its run cache.

    Raises ChildError when the remote does not take them.
    """
    try:
        children.dvc(["push", "--run-cache", *targets], say)
    except ChildError as error:
        raise ChildError(
            f"the DVC remote did not take the results of {', '.join(targets)}, which are complete "
            f"in {children.root}: {error}"
        ) from error


def _patiently(ask: Callable[[], T], closed: threading.Event) -> T:
    """What the server answers, though it may be away for a while."""
    deadline = monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            refused = (
                isinstance(error, httpx.HTTPStatusError) and not error.response.is_server_error
            )
            if refused or monotonic() > deadline or closed.wait(POLL):
                raise


@flow(name="stage", flow_run_name="{title}", validate_parameters=True)
def run_stage(
    stage: str,
    title: str,
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")],
    changes: dict[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Bring one stage up to date and push its results: what a worker does for a pipeline elsewhere.

    Args:
        stage: name in dvc.yaml, such as unlearn@imu.
        title: name of this run.
        commit: of the code; fetched where this clone lacks it.
        changes: parameters that differ from params.yaml, by dotted path.
        force: compute it even if nothing changed.

    Runs in a cell of the current folder, which is a clone of the repository. Whoever reaches the
    server may have sent it: nothing of it becomes a command, a path elsewhere or a setting of
    other programs.
    """
    log, root = get_run_logger(), Path.cwd()
    with unused(root, Cell(name=stage, changes=changes or {}, commit=commit)) as cell:
        folder = prepare(root, cell)
        if stage not in (graph := stages(folder)):
            raise ParameterError(f"stage must be one of {', '.join(graph)}, got {stage!r}")
        children = Children(folder)
        repro = ["repro", "--pull"]
        try:
            if force:
                if before := sorted(graph[stage].needs):
                    children.dvc([*repro, *before], log.info)
                children.dvc([*repro, "--force", "--single-item", stage], log.info)
            else:
                children.dvc([*repro, stage], log.info)
            push(children, [stage], log.info)
        finally:
            children.end_all()
