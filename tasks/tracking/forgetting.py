"""Runs in MLflow that show or remember samples: found, and removed with their models and files.

``mlflow gc`` leaves files behind, and stops where a folder is missing: folders that are missing
are made before it runs, and what it leaves is removed after.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import unquote, urlparse

from tasks.tracking import registry
from tasks.tracking.store import Store


class Logged(NamedTuple):
    """A run in MLflow and its models; places: of their files, addresses. holds: what of samples."""

    run: str
    models: tuple[str, ...]
    places: tuple[str, ...]
    holds: str


def remembering(store: Store, lists: Callable[[Path], bool]) -> list[Logged]:
    """Pipeline runs whose split lists some of the samples, the runs below them, and former models.

    lists: whether a manifest does.
    """
    found: dict[str, Logged] = {}
    with store.reaching():
        for run in store.search("tags.`imu.kind` = 'pipeline'"):
            if not _lists(store, run.info.run_id, lists):
                continue
            of = run.info.run_id
            below = [
                *store.search(f"tags.`mlflow.parentRunId` = '{of}'"),
                *store.search(f"tags.`pipeline.{of}` = 'true'"),
            ]
            for one in (run, *below):
                found[one.info.run_id] = _logged(
                    store, one.info.run_id, "their predictions, images or models"
                )
        served = registry.production(store)
        for run in store.search("tags.`imu.kind` = 'erasure'"):
            if served and run.info.run_id != served.run_id:
                logged = _logged(store, run.info.run_id, "a former model, which remembers")
                if logged.models:
                    found[run.info.run_id] = logged
    return list(found.values())


def remove(store: Store, logged: list[Logged]) -> list[Logged]:
    """Remove them for good; returns those whose files are not here to be removed."""
    if not logged:
        return []
    local = [folder for one in logged for folder in map(_folder, one.places) if folder]
    with store.reaching():
        for one in logged:
            for model in one.models:
                store.client.delete_logged_model(model)
            store.client.delete_run(one.run)
    if not store.uri.startswith("http"):
        for folder in local:
            folder.mkdir(parents=True, exist_ok=True)
        call = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store.uri]
        for kind, ids in (
            ("--run-ids", [one.run for one in logged]),
            ("--logged-model-ids", [model for one in logged for model in one.models]),
        ):
            if ids:
                subprocess.run([*call, kind, ",".join(ids)], capture_output=True, check=False)
    for folder in local:
        shutil.rmtree(folder, ignore_errors=True)
    return [one for one in logged if not all(map(_folder, one.places))]


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
