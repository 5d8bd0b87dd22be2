"""The run in MLflow that a flow fills as its stages end."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from prefect import get_run_logger

from tasks.files.workspace import Workspace
from tasks.graph.stages import Stage
from tasks.tracking.store import TrackingError
from tasks.tracking.tracker import Context, Page, Tracker

OFTEN = 2.0  # seconds between two looks at how far a stage is


class Tracking:
    """A tracker that may lose its store on the way: stages go on, and are logged later."""

    def __init__(self, workspace: Workspace, context: Context):
        """Raises TrackingError where the store is not there at the beginning."""
        self.tracker = Tracker(workspace, context)
        self.lost = ""
        self._looked: dict[str, float] = {}

    def grew(self, stage: Stage, since: float) -> None:
        """What a stage that runs has done, now and then."""
        if monotonic() - self._looked.get(stage.producer, 0.0) > OFTEN:
            self._looked[stage.producer] = monotonic()
            self._try(lambda: self.tracker.grew(stage.stage, stage.item, since))

    def ended(self, stage: Stage) -> None:
        self._try(lambda: self.tracker.ended(stage.stage, stage.item))

    def finish(self, names: set[str]) -> Page:
        """Raises TrackingError where the store was lost: all results are there but not logged."""
        if not self.lost:
            try:
                return self.tracker.finish(names)
            except TrackingError as error:
                self.lost = str(error)
        raise TrackingError(
            f"{self.lost}\nAll results are complete in {self.tracker.workspace.runs}. When MLflow "
            "is back, log them with `dvc repro track`"
        )

    def fail(self, status: str, reason: str) -> None:
        """Record how the run ended; its own failure must not hide the first one."""
        self._try(lambda: self.tracker.fail(status, reason))

    def _try(self, call: Callable[[], Any]) -> None:
        if self.lost:
            return
        try:
            call()
        except TrackingError as error:
            self.lost = str(error)
            get_run_logger().warning(f"{error}; the run goes on, and is not logged")
