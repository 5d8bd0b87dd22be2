"""What a run leaves on its page in Prefect: links to MLflow, stages and verdicts as tables."""

import json
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact

MLFLOW_PAGE = "http://127.0.0.1:5000"  # where `make mlflow` listens


def leave(folder: Path, outcomes: dict[str, str], page: dict[str, str], *, whole: bool) -> None:
    """whole: the report was made, and has verdicts."""
    create_link_artifact(mlflow_link(page), link_text="MLflow run", key="mlflow")
    create_table_artifact(
        [{"stage": name, "outcome": outcome} for name, outcome in outcomes.items()],
        key="stages",
        description="What became of each stage",
    )
    if not whole:
        return
    create_link_artifact(
        mlflow_link(page, "comparison"), link_text="All models side by side", key="comparison"
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


def mlflow_link(page: dict[str, str], name: str = "link") -> str:
    base = page["uri"] if page["uri"].startswith("http") else MLFLOW_PAGE
    return base.rstrip("/") + page[name]
