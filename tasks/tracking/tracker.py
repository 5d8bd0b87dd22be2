"""A run of the pipeline in MLflow: one run for it, and below it one for every model.

Tags:
    imu.kind       pipeline or model
    imu.key        of a model: what it and its verdict were made from; of a pipeline: of all stages
    pipeline.<id>  on a model: the pipeline runs that it belongs to. A model that was made before
                   is not logged again: the later run points to it
    model          its name in params.yaml; "original" for the trained one
    verdict        as README names it; verdict.words, verdict.decided: in a sentence, and why
"""

import json
import platform
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import NamedTuple
from urllib.parse import quote, urlencode

from tasks.files import params, progress
from tasks.files.commit import git_tags
from tasks.files.workspace import Workspace
from tasks.graph import lock
from tasks.graph.lock import Locked
from tasks.tracking.record import Record, curve, model_of, pipeline_key, record
from tasks.tracking.store import Store

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "prefect", "mlflow", "dvc")
ORIGINAL = "original"


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a pipeline run belongs.

    store: MLflow's address; "" for that of the workspace. below: a sweep's run that it is nested
    in. tags: more of it.
    """

    store: str = ""
    below: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


class Page(NamedTuple):
    """Where a run is shown: the store's address, and paths behind a server's."""

    run: str
    uri: str
    link: str
    comparison: str = ""
    times: Mapping[str, float] = {}  # RTE_time by model, where it is known


class Tracker:
    """Logs what stages leave on disk, in whatever order they end; one call at a time."""

    def __init__(self, workspace: Workspace, context: Context = Context()):
        """Begin the run. Raises TrackingError when MLflow cannot be reached."""
        self.workspace, self.context = workspace, context
        self.store = Store(workspace, context.store)
        self._models: dict[str, str] = {}  # producer -> its run, begun here
        self._parts: set[str] = set()  # stages that are logged, by producer
        self._points: dict[tuple[str, str], int] = {}  # how many of a curve are logged
        self.store.close_left()
        tags = {"imu.kind": "pipeline", **git_tags(workspace.root), **context.tags}
        title = params.title(params.read(workspace.root))
        self.run = self.store.create(title, tags, context.below)

    def grew(self, stage: str, item: str | None, since: float) -> None:
        """Log what a stage that runs has done since the last call; it began at ``since``."""
        producer = model_of(stage, item)
        if stage in ("train", "retrain", "unlearn"):
            table = progress.read(self.workspace, producer, since)
            if table is None:
                return
            prefix = "forget_" if stage == "unlearn" else ""
            curves = {f"{prefix}{name}": points for name, points in curve(table).items()}
            self.store.values(self._model(producer), curves=self._new(producer, curves))

    def ended(self, stage: str, item: str | None) -> None:
        """Log what a stage has left on disk, once."""
        part = f"{stage}/{item}" if item else stage
        if part not in self._parts:
            producer, found = model_of(stage, item), record(self.workspace, stage, item)
            self._log(self._model(producer) if producer else self.run, producer, found)
            self._parts.add(part)

    def finish(self, names: Collection[str]) -> Page:
        """Close the run as finished. names: its stages; those that were not computed are linked."""
        stages = {
            name: at
            for name, at in lock.stages_with(self.workspace.root, names).items()
            if name in names and at.stage != "track"
        }
        of_models: dict[str, dict[str, Locked]] = {}
        for name, at in stages.items():
            of_models.setdefault(model_of(at.stage, at.item), {})[name] = at
        whole = "report" in stages
        said = self._verdicts() if whole else {}
        for at in of_models.pop("", {}).values():
            self.ended(at.stage, at.item)
        runs = {
            producer: self._settled(producer, made, said.get(_name(producer), {}))
            for producer, made in of_models.items()
        }
        self._sum_up(said)
        self.store.end(self.run, "FINISHED")
        times = {
            _name(producer): run.data.metrics["RTE_time"]
            for producer, run in ((p, self.store.client.get_run(r)) for p, r in runs.items())
            if "RTE_time" in run.data.metrics
        }
        return self.page()._replace(comparison=self._comparison(runs), times=times)

    def fail(self, status: str, reason: str) -> None:
        """Close the run, and those of models that are not done, as FAILED or KILLED."""
        for run in (*self._models.values(), self.run):
            self.store.end(run, status, reason)

    def page(self) -> Page:
        return Page(self.run, self.store.uri, self.store.link(self.run))

    def _model(self, producer: str) -> str:
        if producer not in self._models:
            tags = {"imu.kind": "model", "model": _name(producer), f"pipeline.{self.run}": "true"}
            tags |= git_tags(self.workspace.root)
            self._models[producer] = self.store.create(_name(producer), tags, self.run)
        return self._models[producer]

    def _settled(
        self, producer: str, made: Mapping[str, Locked], verdict: Mapping[str, str]
    ) -> str:
        """The run of a model that is done: one that was logged before, or one that is closed now.

        made: the stages that made and judged it, by name.
        """
        # With what came out: another kind of processor makes another model from the same.
        keys = {name: f"{at.key} {at.outputs}" for name, at in made.items()}
        keys["verdict"] = str(verdict)
        key = lock.joint_key(keys)
        restored = {}
        if producer not in self._models:
            query = f"tags.`imu.key` = '{key}' AND attributes.status = 'FINISHED'"
            if known := self.store.search(query):
                run: str = known[0].info.run_id
                self.store.tag(run, {f"pipeline.{self.run}": "true"})
                return run
            restored = {"restored": "true"}
        run = self._model(producer)
        for at in made.values():
            self.ended(at.stage, at.item)
        self.store.tag(run, {"imu.key": key, **restored, **verdict})
        if verdict:
            title = f"{_name(producer)} — {verdict['verdict']}"
            self.store.client.update_run(run, name=title)
        self.store.end(run, "FINISHED")
        del self._models[producer]
        return run

    def _log(self, run: str, producer: str, found: Record) -> None:
        curves = self._new(producer, found.curves)
        self.store.log(run, Record(**{**vars(found), "curves": curves}))

    def _new(
        self, producer: str, curves: Mapping[str, list[tuple[int, float]]]
    ) -> dict[str, list[tuple[int, float]]]:
        """The points of each curve that are not logged yet; they are taken as logged from now."""
        new = {}
        for name, points in curves.items():
            new[name] = points[self._points.get((producer, name), 0) :]
            self._points[producer, name] = len(points)
        return new

    def _verdicts(self) -> dict[str, dict[str, str]]:
        """Model -> its tags."""
        from tasks import report

        return {
            model: {
                "verdict": said["outcome"],
                "verdict.words": said["words"],
                "verdict.decided": "; ".join(said["decided"]),
            }
            for model, said in report.read_verdicts(self.workspace).items()
        }

    def _sum_up(self, said: Mapping[str, Mapping[str, str]]) -> None:
        tags = {"imu.key": pipeline_key(self.workspace)}
        tags |= {"host": socket.gethostname(), "platform": platform.platform()}
        tags |= {f"version.{package}": version(package) for package in PACKAGES}
        tags |= {f"verdict.{model}": verdict["verdict"] for model, verdict in said.items()}
        if said:
            from tasks import report

            tags["mlflow.note.content"] = report.note(self.workspace)
        self.store.tag(self.run, tags)
        with self.store.reaching():
            self.store.client.log_artifact(self.run, str(self.workspace.root / lock.FILE))

    def _comparison(self, runs: Mapping[str, str]) -> str:
        """Path of the page that compares models, in the order of the report's table."""
        from tasks.pages import lineup

        order = [row.producer for row in lineup.rows(self.workspace)]
        chosen = [runs[producer] for producer in order if producer in runs]
        wanted = {
            "runs": json.dumps(chosen),
            "experiments": json.dumps([self.store.experiment]),
        }
        return f"/#/compare-runs?{urlencode(wanted, quote_via=quote)}&workflowType=machine_learning"


def logged_already(workspace: Workspace, store: str) -> str:
    """Id of a finished pipeline run of what lies in ``dvc.lock``; "" where there is none.

    store: MLflow's address.
    """
    query = f"tags.`imu.key` = '{pipeline_key(workspace)}' AND tags.`imu.kind` = 'pipeline'"
    found = Store(workspace, store).search(f"{query} AND attributes.status = 'FINISHED'")
    return str(found[0].info.run_id) if found else ""


def _name(producer: str) -> str:
    return ORIGINAL if producer == "train" else producer.partition("/")[2]
