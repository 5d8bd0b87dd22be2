"""The model that is served: a version with the alias ``production``; former ones stay marked."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.tracking.record import Record
from tasks.tracking.store import Store, TrackingError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PRODUCTION = "production"
SERVED, SUPERSEDED = "served", "superseded: must not be served"


def promote(store: Store, request: int, model: Path, tags: dict[str, str]) -> str:
    """Have the model of an erasure request served, as the version that is returned; done twice it
    is done once.

    tags: its lineage. The alias moves in one step; the version that loses it is marked.
    Raises TrackingError when MLflow is away: the former one is then served as before.
    """
    from mlflow.exceptions import MlflowException

    name = registered(store)
    with store.reaching():
        try:
            store.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = _version(store, name, request, model, tags)
        store.client.set_registered_model_alias(name, PRODUCTION, version)
        for other in store.client.search_model_versions(f"name='{name}'"):
            if str(other.version) != version and other.tags.get(SERVED) != SUPERSEDED:
                store.client.set_model_version_tag(name, other.version, SERVED, SUPERSEDED)
        for alias, of in store.client.get_registered_model(name).aliases.items():
            if str(of) != version:  # what pipelines call their original and candidate remembers too
                store.client.delete_registered_model_alias(name, alias)
    return version


def production(store: Store) -> "ModelVersion | None":
    """The version that is served. Raises TrackingError where it must not be."""
    from mlflow.exceptions import MlflowException

    name = registered(store)
    with store.reaching():
        try:
            found = store.client.get_model_version_by_alias(name, PRODUCTION)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
    return found


def require_servable(store: Store, version: str) -> None:
    """Raises TrackingError for a version that there is not, and for one that remembers what a
    request has had forgotten.
    """
    name = registered(store)
    with store.reaching():
        every = store.client.search_model_versions(f"name='{name}'")
        found = {str(one.version): one for one in every}.get(version)
        if found is None:
            choices = ", ".join(sorted((str(one.version) for one in every), key=int)) or "none yet"
            raise TrackingError(
                f"version must be one of those of {name} ({choices}), got {version!r}"
            )
        served = production(store)
        if found.tags.get(SERVED) == SUPERSEDED:
            raise TrackingError(
                f"version {version} of {name} is {SUPERSEDED}; it remembers what request "
                f"{served.tags.get('request', '?') if served else '?'} or an earlier one had "
                "forgotten. Nothing was changed"
            )


def registered(store: Store) -> str:
    """Name of the registered model: that of the data set."""
    with store.reaching():
        return str(store.client.get_experiment(store.experiment).name)


def _version(store: Store, name: str, request: int, model: Path, tags: dict[str, Any]) -> str:
    """The version of this model of a request, made where there is none that may be served.

    The number alone is not enough: a new ledger begins at 1 again.
    """
    with model.open("rb") as file:
        own = {"request": str(request), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    versions = store.client.search_model_versions(f"name='{name}'")
    for known in versions:
        if known.tags.get(SERVED) != SUPERSEDED and own.items() <= known.tags.items():
            return str(known.version)
    about = {"imu.kind": "erasure", "imu.request": str(request), "model": PRODUCTION}
    begun = store.search(" AND ".join(f"tags.`{key}` = '{value}'" for key, value in about.items()))
    for run in begun:  # of a try that was ended
        if run.info.run_id not in {known.run_id for known in versions}:
            store.client.delete_run(run.info.run_id)
    made = store.create(f"erasure request {request}", about)
    store.log(made, Record(model=model))
    store.tag(made, tags)
    store.end(made, "FINISHED")
    (logged,) = store.client.search_logged_models(
        [store.experiment], filter_string=f"source_run_id = '{made}'"
    )
    return str(
        store.client.create_model_version(
            name,
            source=logged.artifact_location,
            run_id=made,
            model_id=logged.model_id,
            tags={**tags, **own},
        ).version
    )
