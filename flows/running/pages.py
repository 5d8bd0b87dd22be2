"""What a run leaves on its page in Prefect: links to MLflow, stages and verdicts as tables."""

import json
import os
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run

from tasks.files import params
from tasks.files.workspace import BASELINES
from tasks.tracking.tracker import Page

UNWANTED = "imu.verdicts.unwanted"  # the event that automations wait for


def leave(folder: Path, outcomes: dict[str, str], page: Page, *, whole: bool, wanted: str) -> None:
    """whole: the report was made. wanted: the verdict that methods are to have; "" for any."""
    create_link_artifact(mlflow_link(page), link_text="MLflow run", key="mlflow")
    create_table_artifact(
        [{"stage": name, "outcome": outcome} for name, outcome in outcomes.items()],
        key="stages",
        description="What became of each stage",
    )
    if not whole:
        return
    create_link_artifact(
        mlflow_link(page, page.comparison), link_text="All models side by side", key="comparison"
    )
    said = json.loads((folder / "runs" / "report" / "verdicts.json").read_text())
    create_table_artifact(
        [
            {
                "model": model,
                "verdict": verdict["words"],
                "decided by": "; ".join(verdict["decided"]),
            }
            for model, verdict in said.items()
        ],
        key="verdicts",
        description="What the tests say of each model; evidence, not a guarantee",
    )

    methods = _methods(folder)
    others = [
        f"{model}: {verdict['words']}"
        for model, verdict in said.items()
        if model in methods and verdict["outcome"] != wanted
    ]
    if wanted and others:
        tell(others, wanted)


def changed(folder: Path, model: str) -> None:
    """Raises UnchangedError when the method left the model as it was."""
    said = json.loads((folder / "runs" / "report" / "verdicts.json").read_text())[model]
    if said["outcome"] == "unchanged":
        raise UnchangedError(f"{model} is {said['words']}; {said['decided'][0]}")


class UnchangedError(RuntimeError):
    """A request was to be served by the model that was to forget."""


def tell(others: list[str], wanted: str) -> None:
    """Send the event that automations wait for: methods with other verdicts than ``wanted``."""
    emit_event(
        UNWANTED,
        resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.id}"},
        payload={
            "said": f"{flow_run.name}: wanted {wanted}, got " + "; ".join(others),
            "wanted": wanted,
            "verdicts": others,
        },
    )


def _methods(folder: Path) -> list[str]:
    """Entries that unlearn: the baselines are there to be beaten."""
    return [
        name
        for name, entry in params.section(folder, "unlearn").items()
        if entry["method"] not in BASELINES
    ]


def mlflow_link(page: Page, path: str = "") -> str:
    """Address of a path in MLflow's page; "" for that of the run."""
    here = f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}"  # of `make mlflow`
    base = page.uri if page.uri.startswith("http") else here
    return base.rstrip("/") + (path or page.link)
