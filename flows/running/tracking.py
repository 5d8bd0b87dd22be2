"""The run in MLflow that a flow fills as its stages end."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from time import monotonic
from typing import Any

from prefect import get_run_logger

from tasks.files.workspace import Workspace
from tasks.graph.stages import Stage
from tasks.tracking.store import TrackingError
from tasks.tracking.tracker import Context, Page, Tracker

OFTEN = 2.0  # seconds between two looks at how far a stage is


class Tracking:
    """A tracker in a thread of its own: no stage waits for it.

    It may lose its store on the way: stages go on, and are logged later.
    """

    def __init__(self, workspace: Workspace, context: Context):
        self.workspace, self.lost = workspace, ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tracking")
        self._tracker: Future[Tracker] = self._thread.submit(Tracker, workspace, context)
        self._looked: dict[str, float] = {}

    def require(self) -> None:
        """Raises TrackingError where the store was not there at the beginning."""
        if self._tracker.done():
            self._tracker.result()

    def grew(self, stage: Stage, since: float) -> None:
        """What a stage that runs has done, now and then."""
        if monotonic() - self._looked.get(stage.producer, 0.0) > OFTEN:
            self._looked[stage.producer] = monotonic()
            self._submit(lambda tracker: tracker.grew(stage.stage, stage.item, since))

    def ended(self, stage: Stage) -> None:
        self._submit(lambda tracker: tracker.ended(stage.stage, stage.item))

    def finish(self, names: set[str]) -> Page:
        """Raises TrackingError where the store was lost: all results are there but not logged."""
        pages: list[Page] = []
        self._submit(lambda tracker: pages.append(tracker.finish(names)))
        self._thread.shutdown()
        self.require()
        if self.lost:
            raise TrackingError(
                f"{self.lost}\nAll results are complete in {self.workspace.runs}. When MLflow is "
                "back, log them with `dvc repro track`"
            )
        return pages[0]

    def fail(self, status: str, reason: str) -> None:
        """Record how the run ended; its own failure must not hide the first one."""
        self._thread.shutdown(cancel_futures=True)
        if not self._tracker.cancelled():
            self._try(lambda tracker: tracker.fail(status, reason))

    def _submit(self, call: Callable[[Tracker], Any]) -> None:
        self._thread.submit(copy_context().run, self._try, call)

    def _try(self, call: Callable[[Tracker], Any]) -> None:
        if self.lost or self._tracker.exception() is not None:
            return
        try:
            call(self._tracker.result())
        except TrackingError as error:
            self.lost = str(error)
            get_run_logger().warning(f"{error}; the run goes on, and is not logged")
        except Exception as error:  # of what lies on disk: the run must not end as if all were well
            self.lost = f"{type(error).__name__}: {error}"
            get_run_logger().exception("what a stage left could not be logged")
