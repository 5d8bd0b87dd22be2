"""MLflow's store: how runs are found, made and filled."""

import hashlib
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imu import discovery
from tasks.files import artifacts
from tasks.files.params import flattened, section
from tasks.files.workspace import Workspace
from tasks.tracking.record import Record
from tasks.tracking.serving import pack

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

# An unreachable server is reported within a minute or so, not after MLflow's seven long retries.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
LAST = Path("runs", ".progress", "last.json")  # of a clone whose last run of all is its own
DAMAGED = (
    "The database is damaged: move that file away, and the next run makes a new one; models and "
    "images stay in the folder artifacts beside it"
)
FULL = "The disk is full: make room and run again"
# Words of SQLite and the file system -> what to do
WAYS_OUT = {
    "file is not a database": DAMAGED,
    "malformed": DAMAGED,
    "database or disk is full": FULL,
    "No space left on device": FULL,
}


class TrackingError(RuntimeError):
    """MLflow did not take what was to be logged."""


def address(root: Path) -> str:
    """Where runs go: MLFLOW_TRACKING_URI, else an SQLite file inside the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/mlflow/mlflow.db"


class Store:
    """The experiment of a workspace's data set. Raises TrackingError when MLflow is not there."""

    def __init__(self, workspace: Workspace, uri: str = ""):
        """uri: where; "" for ``address``."""
        self.workspace, self.uri = workspace, uri or address(workspace.root)
        self._here = {"imu.workspace": str(workspace.root), "imu.host": socket.gethostname()}
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        # Alembic tells every table that it creates, MLflow that too and errors with tracebacks.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        with self.reaching():
            from mlflow import MlflowClient

            local = self.uri.startswith("sqlite:///")
            database = Path(self.uri.removeprefix("sqlite:///"))
            if local and not database.is_file():
                # Whole or not at all: MLflow refuses what a kill leaves of it.
                with artifacts.replacing(database) as temporary:
                    MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments()
            self.client = MlflowClient(tracking_uri=self.uri)
            name = str(section(workspace.root, "split.dataset"))
            found = self.client.get_experiment_by_name(name)
            place = (database.parent / "artifacts").as_uri() if local else None
            self.experiment = (
                found.experiment_id
                if found
                else self.client.create_experiment(name, artifact_location=place)
            )

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn any failure to reach or write the store into a TrackingError."""
        try:
            yield
        except TrackingError:
            raise
        except Exception as error:
            raise TrackingError(
                f"MLflow at {self.uri} failed: {type(error).__name__}: {self._explained(error)}"
            ) from error

    def _explained(self, error: Exception) -> str:
        """The line that says why; and what to do, where it is the database's file."""
        lines = str(error).strip().splitlines() or [""]
        if self.uri.startswith("sqlite:///"):
            for words, way_out in WAYS_OUT.items():
                if found := [line for line in lines if words in line]:
                    return f"{found[0]}. {way_out}"
        return lines[0]

    def search(self, query: str, most: int = 1000) -> list["Run"]:
        """Runs of the experiment, the newest first."""
        with self.reaching():
            return list(
                self.client.search_runs(
                    [self.experiment],
                    query,
                    max_results=most,
                    order_by=["attributes.start_time DESC"],
                )
            )

    def create(self, name: str, tags: Mapping[str, str], below: str = "") -> str:
        """Id of a new run, running. below: the run that it is nested in."""
        nested = {"mlflow.parentRunId": below} if below else {}
        every = {**tags, **nested, **self._here, "mlflow.source.type": "PROJECT"}
        with self.reaching():
            return self.client.create_run(self.experiment, run_name=name, tags=every).info.run_id

    def log(self, run: str, record: Record) -> None:
        """All of a record."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        with self.reaching():
            model = self._model(run, record.model) if record.model else None
            self.values(run, record.params, record.metrics, record.curves, model)
            if record.manifests:
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
            for folder, paths in record.files.items():
                for path in paths:
                    self.client.log_artifact(run, str(path), folder or None)
            self._tables(run, record.tables)

    def values(
        self,
        run: str,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        curves: Mapping[str, list[tuple[int, float]]] | None = None,
        model: str | None = None,
    ) -> None:
        """params: nested. metrics: final values, of ``model`` as well. curves: "curve/<name>"."""
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        values = [Metric(k, float(v), now, 0, model_id=model) for k, v in (metrics or {}).items()]
        for name, points in (curves or {}).items():
            values += [Metric(f"curve/{name}", float(v), now, int(step)) for step, v in points]
        flat = [Param(name, str(value)) for name, value in flattened(params or {}).items()]
        with self.reaching():
            for start in range(0, len(flat), 100):
                self.client.log_batch(run, params=flat[start : start + 100])
            for start in range(0, len(values), 1000):
                self.client.log_batch(run, metrics=values[start : start + 1000])

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        with self.reaching():
            self.client.log_batch(run, tags=[RunTag(k, v[:5000]) for k, v in tags.items()])

    def end(self, run: str, status: str, reason: str = "") -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        with self.reaching():
            if reason:
                self.tag(run, {"reason": reason})
            self.client.set_terminated(run, status)

    def close_left(self) -> None:
        """Close runs of pipelines and models of this workspace that a kill left running."""
        for run in self.search("attributes.status = 'RUNNING'"):
            ours = run.data.tags.get("imu.kind") in ("pipeline", "model")
            if ours and self._here.items() <= run.data.tags.items():
                self.end(run.info.run_id, "KILLED", "its process was ended")

    def link(self, run: str, file: str = "") -> str:
        """Path of the page of a run, or of its file, in the MLflow UI, behind an address."""
        page = f"/#/experiments/{self.experiment}/runs/{run}"
        return f"{page}{f'/artifacts/{file}' if file else ''}?workflowType=machine_learning"

    def _tables(self, run: str, tables: Mapping[str, "pd.DataFrame"]) -> None:
        import numpy as np
        from mlflow import Image

        for path, table in tables.items():
            drawn = table.map(lambda cell: Image(cell) if isinstance(cell, np.ndarray) else cell)
            self.client.log_table(run, drawn, path)

    def _model(self, run: str, path: Path) -> str:
        """Log safetensors, description and signature as an MLflow model; returns its id."""
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model, ModelSignature

        about = artifacts.read_about(path)
        kind = discovery.load("imu.serving", about["objective"])
        model = self.client.create_logged_model(
            self.experiment,
            name=self.client.get_run(run).data.tags["model"],
            source_run_id=run,
            model_type=about["objective"],
        )
        description = Model(
            artifact_path=model.artifact_location,
            run_id=run,
            model_id=model.model_id,
            signature=ModelSignature.from_dict(kind.signature(about)),
        )
        self.client.log_model_artifact(model.model_id, str(path))
        with tempfile.TemporaryDirectory() as folder:
            description.flavors = pack(Path(folder), self.workspace.root, about, path.name)
            description.save(f"{folder}/MLmodel")
            artifacts.write_json(Path(folder, "model.json"), about)
            self.client.log_model_artifacts(model.model_id, folder)
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
        return model.model_id
