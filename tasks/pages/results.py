"""Results over training seeds: one table of all cells, and each forget set seed by seed."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from imu import metrics
from tasks import report
from tasks.files import artifacts, params
from tasks.files.workspace import BASELINES, Workspace
from tasks.pages import findings, lineup

RETRAINED = "retrained"  # the models retrained with other seeds, together
FIRST = (lineup.REFERENCE, RETRAINED, *BASELINES)
# Distances to the reference by which models are compared; few, as each is one more chance to err.
DISTANCES = (
    *("gap", "gap_acc", "TV", "probe_1", "proto_1", "relearn_auc"),
    *("P_forget", "P_retain", "AUC_min_k", "dP_forget", "relearn_P"),
    *("KL_forgotten", "KL_truth_retain", "KL_forget", "KL_retain", "KL_relearn"),
)


class Scenario(NamedTuple):
    """One forget set. values, distances: name -> table of seeds (rows) and models (columns)."""

    title: str
    rows: pd.DataFrame  # of ``collected``; what other seeds retrained is named RETRAINED
    models: list[str]
    values: dict[str, pd.DataFrame]
    distances: dict[str, pd.DataFrame]

    def left_a_model(self, model: str) -> "pd.Series[bool]":
        """Seed -> whether there is a model to measure."""
        rows = self.rows[self.rows["model"] == model]
        return (rows["verdict"] != findings.FAILED).groupby(rows["seed"]).all()

    @property
    def seeds(self) -> int:
        return int(self.rows["seed"].nunique())

    @property
    def methods(self) -> list[str]:
        kinds = self.rows.groupby("model")["kind"].first()
        return [model for model in self.models if kinds[model] in findings.METHODS]

    @property
    def class_wise(self) -> bool:
        return bool(self.rows["class_wise"].iloc[0])

    @property
    def trivial(self) -> str:
        """What a method must beat: masking where a class is forgotten whole, else the original."""
        return "logit_mask" if self.class_wise else "nothing"


def collected(cells: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per cell and model: the request, the seed, the model's kind, verdict and metrics.

    cells: folder -> "times", RTE_time by model, and "differs", parameters that tell cells of one
    forget set apart; all else is in the cell's report. Raises ArtifactError when a cell lacks a
    model that another one has, or the verdict on one.
    """
    parts = []
    for folder, said in cells.items():
        workspace = Workspace(Path(folder))
        request, outcomes = workspace.read_request(), report.outcomes(workspace)
        entries = params.section(workspace.root, "unlearn")
        found = artifacts.read_table(workspace.runs / "report" / "table.csv")
        # One retrained model alone has no other to be judged by.
        judged = found.loc[~found["kind"].isin(["reference", "retrained"]), "model"]
        if unknown := sorted(set(judged) - outcomes.keys()):
            raise artifacts.ArtifactError(f"{report.verdicts(workspace)} has no {unknown}")
        many = params.section(workspace.root, "ensemble")
        about = {
            "dataset": request["dataset"],
            "scenario": request["scenario"],
            "forget": " · ".join(filter(None, [request["forget"], said.get("differs", "")])),
            "class_wise": bool(request["forget_classes"]),
            "seed": params.section(workspace.root, "seed"),
            "networks": many["members"] if many["families"] else 0,
            "model": found["model"],
            "kind": found["kind"],
            "data_access": [
                entries[m]["data_access"] if m in entries else "retain" for m in found["model"]
            ],
            "verdict": found["model"].map(outcomes),
        }
        times = [said["times"].get(m, math.nan) for m in found["model"]]
        values = found.drop(columns=["model", "kind"]).assign(**{findings.TIME: times})
        parts.append(pd.concat([pd.DataFrame(about), values], axis="columns"))
    table = pd.concat(parts, ignore_index=True)
    counts = pd.crosstab([table["scenario"], table["forget"], table["seed"]], table["model"])
    if (counts != 1).any(axis=None):
        raise artifacts.ArtifactError(f"models are missing in some cells:\n{counts.to_string()}")
    return table


def scenarios(table: pd.DataFrame) -> Iterator[Scenario]:
    """The forget sets of ``collected``'s table, in its order.

    Models retrained with other seeds are one, the mean within each training seed, of values and of
    distances alike. They, the reference and baselines come first. A method has no values in a seed
    where it left no model. Raises ArtifactError when a metric is absent in some retrained models.
    """
    for (kind, forget), rows in table.groupby(["scenario", "forget"], sort=False):
        reference = rows[rows["kind"] == "reference"].set_index("seed")
        rows = rows.assign(model=rows["model"].mask(rows["kind"] == "retrained", RETRAINED))
        known = rows["model"].unique().tolist()
        names = [name for name in columns() if name in rows and rows[name].notna().any()]
        far = {name: _distance(rows, reference, name) for name in DISTANCES if name in names}
        models = [m for m in FIRST if m in known] + [m for m in known if m not in FIRST]
        yield Scenario(
            title=f"{kind}: {forget}",
            rows=rows,
            models=models,
            values={name: _by_seed(rows, rows[name])[models] for name in names},
            distances={name: _by_seed(rows, values)[models] for name, values in far.items()},
        )


def columns() -> list[str]:
    """Every column of numbers that there can be, in the order of the tables."""
    return [*metrics.about(), *findings.COSTS]


def _distance(rows: pd.DataFrame, reference: pd.DataFrame, name: str) -> "pd.Series[float]":
    """|model − reference|; of a metric that is a distance already, how far off its aim.

    Of single models, as signs of the retrained models would cancel in their mean.
    """
    aim = {"low": 0.0, "high": 1.0}.get(metrics.about()[name].aim)
    return (rows[name] - (rows["seed"].map(reference[name]) if aim is None else aim)).abs()


def _by_seed(rows: pd.DataFrame, values: "pd.Series[float]") -> pd.DataFrame:
    groups = values.groupby([rows["seed"], rows["model"]])
    if groups.count().between(1, groups.size() - 1).any():
        raise artifacts.ArtifactError(f"{values.name} is absent in some retrained models")
    return groups.mean().unstack()
