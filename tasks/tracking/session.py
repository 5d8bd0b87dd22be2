"""One stage: compute, then log. What ``python -m tasks`` does."""

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter

from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.graph import lineage
from tasks.tracking import summary, times
from tasks.tracking.runs import Tracker, TrackingError
from tasks.tracking.stages import module_of, name_in_dvc, run_tags, token


class NotLoggedError(RuntimeError):
    """The results are on disk, but MLflow did not take them."""


def run(workspace: Workspace, stage: str, item: str | None) -> None:
    """Compute a stage, then log it. Raises NotLoggedError when only the latter failed."""
    module, name = module_of(stage), name_in_dvc(workspace, stage, item)
    logging = None
    try:
        logging = _Logging(workspace, name)
    except TrackingError as error:
        print(f"{error}\ncomputing all the same; logging is tried again at the end", flush=True)
    begin = perf_counter()
    try:
        core = module.run(workspace, item)
    except BaseException as error:
        if logging:
            logging.failed(error)
        raise
    key = lineage.current_key(workspace.root, name)
    took = {"key": key, "seconds": core, "seconds_process": perf_counter() - begin}
    artifacts.write_json(times.path(workspace, name), took)
    try:
        logging = logging or _Logging(workspace, name)
        logging.finished(stage, item, key)
    except TrackingError as error:
        call = f"python -m tasks log {stage}" + (f" {item}" if item else "")
        raise NotLoggedError(
            f"{error}\nThe results of {name} are complete in {workspace.runs}. When MLflow is "
            f"back, log them and have DVC record them:\n    {call} && dvc commit -f {name}"
        ) from error


def log(workspace: Workspace, stage: str, item: str | None) -> None:
    """Log a stage whose outputs are on disk, computed from what lies there now.

    Raises ArtifactError when the stage was never computed here, or from something else.
    """
    name = name_in_dvc(workspace, stage, item)
    key = lineage.current_key(workspace.root, name)
    made_from = artifacts.read_json(times.path(workspace, name))["key"]
    if made_from != key:
        raise artifacts.ArtifactError(
            f"the outputs of {name} were computed from other code, data or parameters than lie "
            f"here now: run `dvc repro {name}`"
        )
    _Logging(workspace, name).finished(stage, item, key)


class _Logging:
    """The nested run of one stage, open from construction until ``finished`` or ``failed``."""

    def __init__(self, workspace: Workspace, name: str):
        self.workspace, self.name = workspace, name
        self.tracker = Tracker(workspace)
        self.token, self.owned = token()
        self.parent = self.tracker.parent(self.token, run_tags(workspace))
        self.run = self.tracker.begin(self.parent, self.token, name, run_tags(workspace))

    def finished(self, stage: str, item: str | None, key: str) -> None:
        record = module_of(stage).record(self.workspace, item)
        curves = times.curves(self.workspace, self.name, key)
        record = replace(record, curves={**record.curves, **curves})
        keys: Mapping[str, str] = {self.name: key}
        if stage == "evaluate":  # its cost is that of stages before it
            keys = lineage.locked_keys(self.workspace.root, keys)
        extra, tags = times.of_stage(self.workspace, self.tracker, self.name, item, keys)
        self.tracker.finish(self.run, record, key=key, extra=extra, tags=tags)
        if self.owned and stage == "report":
            summary.complete(self.workspace, self.tracker, self.token, made={self.name: key})
        elif self.owned:
            self.tracker.end(self.parent, "FINISHED")

    def failed(self, error: BaseException) -> None:
        stopped = isinstance(error, SystemExit | KeyboardInterrupt)
        status, reason = "KILLED" if stopped else "FAILED", f"{type(error).__name__}: {error}"
        try:
            self.tracker.end(self.run, status, reason)
            if self.owned:
                self.tracker.end(self.parent, status, f"{self.name}: {reason}")
        except TrackingError as unreachable:
            print(unreachable, flush=True)
