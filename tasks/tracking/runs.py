"""MLflow: one parent run per pipeline run, one nested run per stage. The only importer of mlflow.

Runs are joined by tags, never by ids in outputs:
    imu.parent     token of the pipeline run that a stage belongs to
    dvc.stage      name of the stage, such as "unlearn@imu"
    dvc.key        what it was made from (``tasks.graph.lineage``)
    imu.search     what a search was asked for; imu.trial: the number of a trial below its run
    restored       "true" where DVC had the outputs already; restored.from names the computing run
    git.commit, git.dirty, prefect.flow_run_id, prefect.flow_run_url
"""

import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tasks.files import artifacts, params
from tasks.files.workspace import Workspace
from tasks.tracking.record import Record

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "imu"
SERVING = "tasks.tracking.serving"
GROUP = "IMU_GROUP"  # id of the run that pipeline runs begun here are nested below
# An unreachable server is reported within a minute or so, not after MLflow's seven long retries.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class TrackingError(RuntimeError):
    """MLflow did not take what was to be logged."""


def store(root: Path) -> str:
    """Where runs go: MLFLOW_TRACKING_URI, else an SQLite file inside the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/mlflow/mlflow.db"


class Tracker:
    """The experiment of one workspace. Raises TrackingError when MLflow cannot be reached."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.uri = store(workspace.root)
        for name, value in {**PATIENCE, "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
            os.environ.setdefault(name, value)
        with self.reaching():
            self.client = self._client()
            self.experiment = self._experiment()

    def _client(self) -> "MlflowClient":
        import logging

        # Alembic and MLflow tell every table that they create.
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.uri)

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        local = self.uri.startswith("sqlite:///")
        place = Path(self.uri.removeprefix("sqlite:///")).parent / "artifacts"
        return self.client.create_experiment(
            EXPERIMENT, artifact_location=place.as_uri() if local else None
        )

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn any failure to reach or write the store into a TrackingError."""
        try:
            yield
        except Exception as error:
            cause = str(error).strip().splitlines()
            raise TrackingError(
                f"MLflow at {self.uri} failed: {type(error).__name__}: {cause[0] if cause else ''}"
            ) from error

    def parent(self, token: str, tags: dict[str, str]) -> str:
        """Id of the pipeline run ``token``, created if needed and set running.

        Runs of the same workspace that a kill left running are closed as killed.
        """
        with self.reaching():
            for run in self._search("attributes.status = 'RUNNING'"):
                tags_of, here = run.data.tags, socket.gethostname()
                same = tags_of.get("imu.workspace") == str(self.workspace.root)
                same = same and tags_of.get("imu.host", here) == here
                if same and run.data.tags["imu.parent"] != token:
                    self.client.set_terminated(run.info.run_id, "KILLED")
            found = self._search(f"tags.`imu.parent` = '{token}' AND tags.`imu.kind` = 'pipeline'")
            if found:
                self.client.update_run(found[0].info.run_id, status="RUNNING")
                return found[0].info.run_id
            if group := os.environ.get(GROUP):
                tags = {**tags, "mlflow.parentRunId": group}
            created = self._create(
                params.title(params.read(self.workspace.root)),
                {**tags, "imu.parent": token, "imu.kind": "pipeline"},
            )
            self._log(created, params=params.read(self.workspace.root))
            self._files(created, {"": [self.workspace.root / params.FILE]})
            return created

    def group(self, token: str, name: str, tags: dict[str, str], key: str = "") -> str:
        """A run that the pipeline runs of a sweep or a search are nested below, running.

        key: of a search; the run that bears it is taken up again.
        """
        with self.reaching():
            kind = {"imu.kind": "search", "imu.search": key} if key else {"imu.kind": "sweep"}
            tags = {**tags, "imu.parent": token, **kind}
            if key and (found := self._search(f"tags.`imu.search` = '{key}'")):
                run = found[0].info.run_id
                self.client.update_run(run, status="RUNNING")
                for tag, value in tags.items():
                    self.client.set_tag(run, tag, value)
                return run
            return self._create(name, tags)

    def trials(self, search: str) -> set[int]:
        """Numbers of the trials that are logged below the run of a search, whole."""
        with self.reaching():
            runs = self._search(
                f"tags.`mlflow.parentRunId` = '{search}' AND tags.`imu.kind` = 'trial'"
            )
            whole = [run for run in runs if run.info.status in ("FINISHED", "FAILED")]
            return {int(run.data.tags["imu.trial"]) for run in whole}

    def trial(
        self,
        search: str,
        token: str,
        number: int,
        candidate: dict[str, Any],
        gaps: dict[str, float],
        failure: str,
    ) -> None:
        """A closed run below that of a search: failed where the candidate did."""
        with self.reaching():
            nested = {"mlflow.parentRunId": search, "imu.parent": token, "imu.kind": "trial"}
            run = self._create(f"trial {number}", {**nested, "imu.trial": str(number)})
            self._log(run, candidate, gaps)
        self.end(run, "FAILED" if failure else "FINISHED", failure)

    def begin(self, parent: str, token: str, name: str, tags: dict[str, str]) -> str:
        """A nested run for the stage ``name``, running."""
        with self.reaching():
            nested = {"mlflow.parentRunId": parent, "imu.parent": token, "imu.kind": "stage"}
            return self._create(name, {**tags, **nested, "dvc.stage": name})

    def finish(
        self,
        run: str,
        record: Record,
        *,
        key: str | None,
        extra: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        files: bool = True,
    ) -> None:
        """Log a stage's record and close its run. ``files``: artifacts and the model as well."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        with self.reaching():
            model = self._model(run, record.model) if files and record.model else None
            self._log(run, record.params, {**record.metrics, **(extra or {})}, record.curves, model)
            self.client.log_inputs(
                run,
                [
                    DatasetInput(
                        Dataset(
                            name=role,
                            digest=hashlib.sha256(path.read_bytes()).hexdigest()[:32],
                            source_type="dvc",
                            source=json.dumps({"manifest": path.name, "data": "data.dvc"}),
                        ),
                        [InputTag("mlflow.data.context", role)],
                    )
                    for role, path in record.manifests.items()
                ],
            )
            if files:
                self._files(run, record.files)
                self._tables(run, record.tables)
            for tag, value in {**(tags or {}), **({"dvc.key": key} if key else {})}.items():
                self.client.set_tag(run, tag, value)
            self.client.set_terminated(run, "FINISHED")

    def end(self, run: str, status: str, reason: str = "") -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        with self.reaching():
            if reason:
                self.client.set_tag(run, "reason", reason[:5000])
            self.client.set_terminated(run, status)

    def missing(self, parent: str, names: list[str]) -> list[str]:
        """Which of the stages have no finished nested run below ``parent``."""
        with self.reaching():
            logged = self._stages(parent)
            return [name for name in names if name not in logged]

    def computed(self, key: str) -> "Run | None":
        """The run that computed the outputs of ``key``, if this store knows it."""
        with self.reaching():
            runs = self._search(f"tags.`dvc.key` = '{key}' AND attributes.status = 'FINISHED'")
            made = [run for run in runs if "restored" not in run.data.tags]
            return made[0] if made else None

    def summarise(
        self,
        parent: str,
        metrics: dict[str, float],
        tags: dict[str, str],
        files: dict[str, list[Path]],
    ) -> None:
        """Results of the whole pipeline on its parent run."""
        with self.reaching():
            self._log(parent, metrics=metrics)
            self._files(parent, files)
            for tag, value in tags.items():
                self.client.set_tag(parent, tag, value)

    def tell(self, parent: str, tags: dict[str, dict[str, str]], names: dict[str, str]) -> None:
        """Tags and names of the newest finished runs of stages below a pipeline run.

        tags: stage -> name -> value. names: stage -> what the run is to be called.
        """
        with self.reaching():
            for stage, run in self._stages(parent).items():
                for name, value in tags.get(stage, {}).items():
                    self.client.set_tag(run, name, value[:5000])
                if stage in names:
                    self.client.update_run(run, name=names[stage])

    def link(self, run: str) -> str:
        """Path of a run's page in the MLflow UI, behind the server's address."""
        return f"/#/experiments/{self.experiment}/runs/{run}?workflowType=machine_learning"

    def comparison(self, parent: str, order: list[str]) -> str:
        """Path of the page that compares stages below a pipeline run, those that are there."""
        with self.reaching():
            stages = self._stages(parent)
        chosen = [stages[name] for name in order if name in stages]
        wanted = {"runs": json.dumps(chosen), "experiments": json.dumps([self.experiment])}
        return f"/#/compare-runs?{urlencode(wanted, quote_via=quote)}"

    def _stages(self, parent: str) -> dict[str, str]:
        """Stage -> its newest finished run below a pipeline run."""
        runs = self._search(
            f"tags.`mlflow.parentRunId` = '{parent}' AND attributes.status = 'FINISHED'"
        )
        return {run.data.tags["dvc.stage"]: run.info.run_id for run in reversed(runs)}

    def _search(self, query: str) -> list["Run"]:
        runs = self.client.search_runs(
            [self.experiment], query, max_results=1000, order_by=["attributes.start_time DESC"]
        )
        return list(runs)

    def _create(self, name: str, tags: dict[str, str]) -> str:
        tags = {
            **tags,
            "imu.workspace": str(self.workspace.root),
            "imu.host": socket.gethostname(),
            "mlflow.source.type": "PROJECT",
        }
        return self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id

    def _log(
        self,
        run: str,
        params: dict[str, Any] | None = None,
        metrics: dict[str, float] | None = None,
        curves: dict[str, list[tuple[int, float]]] | None = None,
        model: str | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        values = [Metric(k, float(v), now, 0, model_id=model) for k, v in (metrics or {}).items()]
        for name, points in (curves or {}).items():
            values += [Metric(f"curve/{name}", float(v), now, int(step)) for step, v in points]
        flat = [Param(name, str(value)) for name, value in flattened(params or {}).items()]
        for start in range(0, len(flat), 100):
            self.client.log_batch(run, params=flat[start : start + 100])
        for start in range(0, len(values), 1000):
            self.client.log_batch(run, metrics=values[start : start + 1000])

    def _files(self, run: str, files: dict[str, list[Path]]) -> None:
        for folder, paths in files.items():
            for path in paths:
                self.client.log_artifact(run, str(path), folder or None)

    def _tables(self, run: str, tables: dict[str, "pd.DataFrame"]) -> None:
        import numpy as np
        from mlflow import Image

        for path, table in tables.items():
            drawn = table.map(lambda cell: Image(cell) if isinstance(cell, np.ndarray) else cell)
            self.client.log_table(run, drawn, path)

    def _model(self, run: str, path: Path) -> str:
        """Log safetensors, description and signature as an MLflow model; returns its id."""
        import numpy as np
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        about = artifacts.read_tensors(path)[1]
        name = self.client.get_run(run).info.run_name.replace("@", "-")
        model = self.client.create_logged_model(
            self.experiment, name=name, source_run_id=run, model_type="classifier"
        )
        description = Model(
            artifact_path=model.artifact_location,
            run_id=run,
            model_id=model.model_id,
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype("uint8"), (-1, *about["image"]))]),
                Schema([TensorSpec(np.dtype("float32"), (-1, len(about["classes"])))]),
            ),
            flavors={"python_function": {"loader_module": SERVING, "data": path.name}},
        )
        self.client.log_model_artifact(model.model_id, str(path))
        with tempfile.TemporaryDirectory() as folder:
            description.save(f"{folder}/MLmodel")
            artifacts.write_json(Path(folder, "model.json"), about)
            self.client.log_model_artifacts(model.model_id, folder)
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
        return model.model_id


def flattened(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
