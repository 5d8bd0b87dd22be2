"""A run of the pipeline in MLflow: one run for it, and below it one for every model.

Tags:
    imu.kind       pipeline or model
    imu.key        of a model: what it and its verdict were made from; of a pipeline: of all stages
    pipeline.<id>  on a model: the pipeline runs that it belongs to. A model that was made before
                   is not logged again: the later run points to it
    model          its name in params.yaml; "original" for the trained one
    verdict        as README names it; verdict.words, verdict.decided: in a sentence, and why
    kind, order    what it is, such as method or baseline, and its place in the table
    best           of a pipeline: its best model, with the best verdict and then the least work
    changed        of a pipeline: what differs from the last one of the same title
"""

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from tasks.files import params, progress
from tasks.files.commit import git_tags
from tasks.files.workspace import Workspace
from tasks.graph import lock
from tasks.graph.lock import Locked
from tasks.pages import lineup, summary
from tasks.tracking import candidates, views
from tasks.tracking.record import Record, curve, model_of, pipeline_key, record
from tasks.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "prefect", "mlflow", "dvc")


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
    """Where a run is shown: the store's address, and paths behind a server's.

    comparison, charts: the prepared table of its models, and the charts. report: where it was
    made, the page of results. said: the result in a few sentences.
    """

    run: str
    uri: str
    link: str
    comparison: str = ""
    charts: str = ""
    report: str = ""
    said: str = ""
    times: Mapping[str, float] = {}  # RTE_time by model, where it is known
    name: str = ""  # of the run, with what changed
    prefect: str = ""  # address of the flow's run


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
        self.name, named = self._named()
        tags = {"imu.kind": "pipeline", **git_tags(workspace.root), **context.tags, **named}
        self.run = self.store.create(self.name, tags, context.below)
        of = [self.run, *([context.below] if context.below else [])]
        self._belongs = {f"pipeline.{run}": "true" for run in of}

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
        kinds, forget = views.kinds(self.workspace), self.workspace.read_request()["forget"]
        looks = views.looks(kinds, forget)
        models = [
            self._settled(producer, made, said.get(_name(producer), {}), looks[producer])
            for producer, made in of_models.items()
        ]
        text = self._sum_up(said, models)
        self.store.end(self.run, "FINISHED")
        times = {
            run.data.tags["model"]: run.data.metrics["RTE_time"]
            for run in models
            if "RTE_time" in run.data.metrics
        }
        table, charts = (views.path(self.store, self.run, charts=c) for c in (False, True))
        report = self.store.link(self.run, "report.html") if whole else ""
        return self.page()._replace(
            comparison=table, charts=charts, report=report, said=" ".join(text), times=times
        )

    def fail(self, status: str, reason: str) -> None:
        """Close the run, and those of models that are not done, as FAILED or KILLED."""
        for run in (*self._models.values(), self.run):
            self.store.end(run, status, reason)

    def page(self) -> Page:
        flow = self.context.tags.get("prefect.flow_run_url", "")
        link = self.store.link(self.run)
        return Page(self.run, self.store.uri, link, name=self.name, prefect=flow)

    def _model(self, producer: str) -> str:
        if producer not in self._models:
            tags = {"imu.kind": "model", "model": _name(producer), **self._belongs}
            tags |= git_tags(self.workspace.root)
            self._models[producer] = self.store.create(_name(producer), tags, self.run)
        return self._models[producer]

    def _settled(
        self,
        producer: str,
        made: Mapping[str, Locked],
        verdict: Mapping[str, str],
        look: views.Look,
    ) -> "Run":
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
                return self._placed(known[0], look, self._belongs)
            restored = {"restored": "true"}
        run = self._model(producer)
        for at in made.values():
            self.ended(at.stage, at.item)
        if verdict:
            title = f"{_name(producer)} — {verdict['verdict']}"
            self.store.client.update_run(run, name=title)
        self.store.end(run, "FINISHED")
        del self._models[producer]
        with self.store.reaching():
            found = self.store.client.get_run(run)
        return self._placed(found, look, {"imu.key": key, **restored, **verdict})

    def _placed(self, run: "Run", look: views.Look, tags: Mapping[str, str]) -> "Run":
        """Tag the run of a model, with its place in the table and its colour as well.

        A colour that it has stays: people may choose one.
        """
        outcome = {**run.data.tags, **tags}.get("verdict", "")
        work = run.data.metrics.get(views.WORK, 0.0)
        colour = run.data.tags.get(views.COLOUR, look.colour)
        tags = {**tags, **views.place(look.kind, outcome, work), views.COLOUR: colour}
        tags |= {"forget": look.forget} if look.forget else {}
        self.store.tag(run.info.run_id, tags)
        run.data.tags.update(tags)
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
                "mlflow.note.content": f"**{said['words']}**: {'; '.join(said['decided'])}",
            }
            for model, said in report.read_verdicts(self.workspace).items()
        }

    def _named(self) -> tuple[str, dict[str, str]]:
        """Name of the run, with what changed since the last one of its title, and tags of both."""
        now = params.read(self.workspace.root)
        title = self.context.tags.get("prefect.flow_run_name") or params.title(now)
        quoted = title.replace('"', "'")  # a query cannot hold both
        known = self.store.search(
            f"tags.`imu.kind` = 'pipeline' AND tags.`imu.title` = \"{quoted}\" "
            "AND attributes.status = 'FINISHED'",
            most=1,
        )
        if not known or not known[0].data.params:
            return title, {"imu.title": quoted}
        changed = views.difference(now, known[0].data.params)
        return f"{title} · {changed}", {"imu.title": quoted, "changed": changed}

    def _sum_up(self, said: Mapping[str, Mapping[str, str]], models: Sequence["Run"]) -> list[str]:
        """Tags, numbers and prepared pages of the run; returns its result in sentences."""
        tags = {"imu.key": pipeline_key(self.workspace)}
        tags |= {"platform": platform.platform()}
        tags |= {"versions": ", ".join(f"{package} {version(package)}" for package in PACKAGES)}
        best, columns = views.best(models) if said else None, views.columns(models)
        if best is not None:
            tags |= {"best": best.data.tags["model"]}
            tags |= {"best.verdict": best.data.tags["verdict"]}
            found = best.data.metrics
            values = {f"best/{name}": found[name] for name in columns if name in found}
            self.store.values(self.run, metrics=values)
        text = []
        if said:
            compared = lineup.compared(self.workspace, lineup.table(self.workspace))
            text = views.sentences(self.workspace, compared, models)
            answers = summary.told(compared)
            tags["mlflow.note.content"] = views.note(self.store, self.run, text, answers)
        self.store.tag(self.run, tags)
        self._share(columns)
        if said and not self.context.below:
            views.describe(self.store, self.name, tags["mlflow.note.content"], columns)
            candidates.register(self.store, models, params.title(params.read(self.workspace.root)))
        with self.store.reaching():
            self.store.client.log_artifact(self.run, str(self.workspace.root / lock.FILE))
        return text

    def _share(self, columns: Sequence[str]) -> None:
        """The prepared pages of this run, and those of the experiment."""
        own = views.of_models(f"tags.`pipeline.{self.run}` = 'true'", columns)
        views.share(self.store, self.run, own)
        if not self.context.below:
            done = "tags.`imu.kind` = 'model' AND attributes.status = 'FINISHED'"
            every = views.of_models(done, columns, grouped=True)
            views.share(self.store, views.LATEST, own, "Latest run")
            views.share(self.store, views.OVER_ALL, every, "Over all runs")
            views.share(self.store, views.PIPELINES, views.of_pipelines(columns), "Pipelines")


def _name(producer: str) -> str:
    return views.ORIGINAL if producer == "train" else producer.partition("/")[2]
