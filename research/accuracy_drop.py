"""What forgetting costs the classes that stay: the accuracy drop on their retain samples."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from tasks.files import artifacts, params
from tasks.files.workspace import Workspace
from tasks.pages import lineup, slices

COLUMNS = ("scenario", "forget", "seed", "model", "class", "samples", "lost")


def by_class(folders: Iterable[Path]) -> pd.DataFrame:
    """By cell, model and class: number of retain samples, and what their accuracy lost.

    lost: accuracy of the original on them minus that of the model, in points. Methods that left
    no model are absent.
    """
    return pd.concat([_of_cell(Workspace(folder)) for folder in folders], ignore_index=True)


def _of_cell(workspace: Workspace) -> pd.DataFrame:
    request = workspace.read_request()
    parts = []
    for row in lineup.rows(workspace):
        if lineup.failure(workspace, row):
            continue
        path = workspace.evaluation(row.producer) / "predictions.parquet"
        found = artifacts.read_table(path, id="str")
        table = slices.by_class(found[found["set"] == "retain"])
        table = table.assign(
            scenario=request["scenario"],
            forget=request["forget"],
            seed=params.section(workspace.root, "seed"),
            model=row.model,
            lost=table["original"] - table["accuracy"],
        )
        table["class"] = table["class"].map(lambda label: request["classes"][label])
        parts.append(table[[*COLUMNS]])
    return pd.concat(parts, ignore_index=True)
