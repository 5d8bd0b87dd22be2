"""Models in MLflow's registry: the original of the last pipeline, and those that were accepted.

The registered model has the name of the data set. A model is a version of it once, however many
runs it belongs to. Aliases: ``original`` and ``candidate``, the best of the accepted models of the
last pipeline; where it accepted none, no version is a candidate.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.files import params
from tasks.tracking import views
from tasks.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

ORIGINAL, CANDIDATE = "original", "candidate"


def register(store: Store, models: "Sequence[Run]", forgotten: str) -> None:
    """forgotten: what the pipeline forgot, in words."""
    accepted = [run for run in models if views.accepted(run)]
    original = next((run for run in models if run.data.tags["kind"] == ORIGINAL), None)
    wanted = {ORIGINAL: original, CANDIDATE: views.best(accepted)}
    name = str(params.section(store.workspace.root, "split.dataset"))
    with store.reaching():
        if not store.client.search_registered_models(f"name = '{name}'"):
            store.client.create_registered_model(name)
        versions = {
            run.info.run_id: _version(store, name, run, forgotten)
            for run in (original, *accepted)
            if run is not None and _model(run)
        }
        for alias, run in wanted.items():
            if run is not None and run.info.run_id in versions:
                store.client.set_registered_model_alias(name, alias, versions[run.info.run_id])
            else:
                store.client.delete_registered_model_alias(name, alias)


def _version(store: Store, name: str, run: "Run", forgotten: str) -> str:
    known = store.client.search_model_versions(f"run_id = '{run.info.run_id}'")
    if known:
        return str(known[0].version)
    tags = {"model": run.data.tags["model"]}
    if verdict := run.data.tags.get("verdict"):
        tags |= {"verdict": verdict, "forgotten": forgotten}
    model = store.client.get_logged_model(_model(run))
    made = store.client.create_model_version(
        name,
        # Not models:/ID, which MLflow looks for in the store that it has by default.
        source=model.artifact_location,
        run_id=run.info.run_id,
        model_id=model.model_id,
        tags=tags,
    )
    return str(made.version)


def _model(run: "Run") -> str:
    """Id of the model that was logged with a run; "" for none."""
    logged = run.outputs.model_outputs if run.outputs else []
    return str(logged[0].model_id) if logged else ""
