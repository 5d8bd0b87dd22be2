"""Runs in MLflow that show or remember samples: found, and removed with their models and files.

``mlflow gc`` leaves files behind, and stops where a folder is missing: folders that are missing
are made before it runs, and what it leaves is removed after. Behind a server files are removed
through it; its database has no way in for that, and keeps the rows, marked as deleted.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlparse

from tasks.tracking import registry
from tasks.tracking.store import Store, TrackingError

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


ROWS = (
    "its files are removed; its rows in the server's database are marked as deleted, and go by "
    "`mlflow gc` on its host"
)
UNREACHED = "its files could not be removed from here; `mlflow gc` on the server's host does it"


class Logged(NamedTuple):
    """A run in MLflow and its models; places: of their files, addresses. holds: what of samples."""

    run: str
    models: tuple[str, ...]
    places: tuple[str, ...]
    holds: str


def remembering(store: Store, lists: Callable[[Path], bool]) -> list[Logged]:
    """Pipeline runs whose split lists some of the samples, the runs below them, and former models.

    lists: whether a manifest does. Runs that are marked as deleted count: they can be restored.
    """
    found: dict[str, Logged] = {}
    with store.reaching():
        for run in _search(store, "tags.`imu.kind` = 'pipeline'"):
            if not _lists(store, run, lists):
                continue
            below = [
                *_search(store, f"tags.`mlflow.parentRunId` = '{run}'"),
                *_search(store, f"tags.`pipeline.{run}` = 'true'"),
            ]
            for one in (run, *below):
                found[one] = _logged(store, one, "their predictions, images or models")
        served = registry.production(store)
        for run in _search(store, "tags.`imu.kind` = 'erasure'"):
            former = _logged(store, run, "a former model, which remembers")
            if served and run != served.run_id and any(_has_files(store, p) for p in former.places):
                found[run] = former
    return list(found.values())


def remove(store: Store, logged: list[Logged]) -> list[tuple[Logged, str]]:
    """Remove them for good; returns those of which something is left, and why."""
    if not logged:
        return []
    with store.reaching():
        # What is gone was removed before a kill.
        models = [
            model
            for one in logged
            for model in one.models
            if _is_there(store.client.delete_logged_model, model)
        ]
        runs = [one.run for one in logged if _is_there(store.client.delete_run, one.run)]
        if store.uri.startswith("http"):
            return [(one, _unremoved(store, one.places) or ROWS) for one in logged]
        local = [folder for one in logged for folder in map(_folder, one.places) if folder]
        for folder in local:
            folder.mkdir(parents=True, exist_ok=True)
        if runs:  # of none, MLflow would take all that are marked as deleted
            _collect(store, runs, models)
    for folder in local:
        shutil.rmtree(folder.parent if folder.name == "artifacts" else folder, ignore_errors=True)
    return [(one, UNREACHED) for one in logged if not all(map(_folder, one.places))]


def _unremoved(store: Store, places: Iterable[str]) -> str:
    """Why files are left there, after removal through the server; "" where none is."""
    for place in places:
        try:
            if (folder := _folder(place)) and not folder.is_dir():
                return f"its files, in {place}, are not on this machine, if there are any"
            _files(store, place).delete_artifacts()
        except Exception as error:  # each kind of storage has its own; what is gone is one
            if _has_files(store, place):
                return f"{UNREACHED} ({type(error).__name__})"
    return UNREACHED if any(_has_files(store, place) for place in places) else ""


def _has_files(store: Store, place: str) -> bool:
    return len(_files(store, place).list_artifacts()) > 0


def _files(store: Store, place: str) -> "ArtifactRepository":
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(place, tracking_uri=store.uri)


def _is_there(delete: Callable[[str], None], name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        delete(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def _collect(store: Store, runs: list[str], models: list[str]) -> None:
    call = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store.uri]
    done = subprocess.run(
        [*call, "--run-ids", ",".join(runs), "--logged-model-ids", ",".join(models)],
        env={**os.environ, "MLFLOW_TRACKING_URI": store.uri},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise TrackingError(f"`mlflow gc` failed: {done.stderr.strip().splitlines()[-1:]}")
    if store.uri.startswith("sqlite:///"):
        with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as database:
            database.execute("VACUUM")  # rows that are deleted stay in the file until then


def _search(store: Store, query: str) -> list[str]:
    from mlflow.entities import ViewType

    found = store.client.search_runs(
        [store.experiment], query, run_view_type=ViewType.ALL, max_results=10_000
    )
    return [run.info.run_id for run in found]


def _lists(store: Store, run: str, lists: Callable[[Path], bool]) -> bool:
    with TemporaryDirectory() as folder:
        for file in store.client.list_artifacts(run, "split"):
            if file.path.endswith(".csv") and lists(
                Path(store.client.download_artifacts(run, file.path, folder))
            ):
                return True
    return False


def _logged(store: Store, run: str, holds: str) -> Logged:
    models = store.client.search_logged_models(
        [store.experiment], filter_string=f"source_run_id = '{run}'"
    )
    uri = store.client.get_run(run).info.artifact_uri
    places = (uri, *(model.artifact_location for model in models))
    return Logged(run, tuple(model.model_id for model in models), places, holds)


def _folder(place: str) -> Path | None:
    """Where the files lie, if they lie on this machine."""
    parts = urlparse(place)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
