"""The tables that ``dvc plots`` draws, all models in one chart, by the templates beside this."""

import pandas as pd

from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.pages import findings, lineup
from tasks.pages.findings import Compared

DISTANCES = ["model", "metric", "distance", "retraining"]


def courses(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """Accuracy by step of the methods; of the baselines when there is no method."""
    rows = lineup.rows(workspace)
    drawn = [row for row in rows if row.kind in findings.METHODS]
    drawn = drawn or [row for row in rows if row.kind == "baseline"]
    return {
        row.model: artifacts.read_table(workspace.evaluation(row.producer) / "trajectory.csv")
        for row in drawn
    }


def joined(courses: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per model and step."""
    return pd.concat([table.assign(model=model) for model, table in courses.items()])


def distances(compared: Compared) -> pd.DataFrame:
    """A row per model and headline metric: how far it is from the reference.

    ``retraining``: the largest distance of models retrained with other seeds, NaN where there are
    none. No rows where there is no reference.
    """
    if not compared.retrained:
        return pd.DataFrame(columns=DISTANCES)
    models = compared.of_kind("baseline") + compared.methods
    known = compared.table.drop(index=list(compared.failures)).notna().all()
    names = [name for name in findings.HEADLINE if name in findings.about() and known.get(name)]
    rows = [
        (model, name, compared.distance(model, name), compared.variability(name))
        for name in names
        for model in models
    ]
    return pd.DataFrame(rows, columns=DISTANCES)
