"""Runs that others are nested in: of a sweep, and of a search with its trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.files.commit import git_tags
from tasks.files.workspace import Workspace
from tasks.tracking import views
from tasks.tracking.store import Store


class Group:
    """The run of a sweep or a search. Raises TrackingError when MLflow cannot be reached."""

    def __init__(self, workspace: Workspace, name: str, tags: Mapping[str, str], key: str = ""):
        """key: of a search, whose run is taken up again where there is one."""
        self.store = Store(workspace)
        kind = {"imu.kind": "search", "imu.search": key} if key else {"imu.kind": "sweep"}
        tags = {**git_tags(workspace.root), **tags, **kind}
        known = self.store.search(f"tags.`imu.search` = '{key}'") if key else []
        if known:
            self.run: str = known[0].info.run_id
            with self.store.reaching():
                self.store.client.update_run(self.run, status="RUNNING")
            self.store.tag(self.run, tags)
        else:
            self.run = self.store.create(name, tags)

    @property
    def link(self) -> str:
        return self.store.link(self.run)

    def end(self, status: str, files: Sequence[Path]) -> None:
        """Close the run as FINISHED or FAILED, with its pages."""
        with self.store.reaching():
            for file in files:
                self.store.client.log_artifact(self.run, str(file))
        query = f"tags.`pipeline.{self.run}` = 'true'"
        if columns := views.columns(self.store.search(query)):
            state = views.of_models(query, columns, grouped=True)
            table = views.share(self.store, self.run, state).removeprefix("/")
            self.store.tag(self.run, {"mlflow.note.content": f"[Models of all cells]({table})"})
        self.store.end(self.run, status)

    def log_trials(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """A closed run for each trial that has none yet; failed where the candidate did.

        trials: ``number``, ``candidate``, ``gap``, ``gaps`` by cell, and ``failure``.
        """
        below = f"tags.`mlflow.parentRunId` = '{self.run}' AND tags.`imu.kind` = 'trial'"
        closed = [r for r in self.store.search(below) if r.info.status in ("FINISHED", "FAILED")]
        logged = {int(run.data.tags["imu.trial"]) for run in closed}
        for trial in trials:
            if trial["number"] in logged:
                continue
            gaps = {f"gap/{cell}": gap for cell, gap in trial["gaps"].items() if gap is not None}
            gaps |= {} if trial["failure"] else {"gap": trial["gap"]}
            tags = {"imu.kind": "trial", "imu.trial": str(trial["number"])}
            run = self.store.create(f"trial {trial['number']}", tags, self.run)
            self.store.values(run, trial["candidate"], gaps)
            self.store.end(run, "FAILED" if trial["failure"] else "FINISHED", trial["failure"])
