"""Results over several training seeds, as the Markdown pages in ``docs/``."""

import json
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from imu import metrics
from tasks import artifacts, params

BASELINES = ("reference", "floor", "nothing", "logit_mask")
COSTS = ("RTE_work", "RTE_time")


def collected(cells: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per cell and model: scenario, forget, seed, model, what it sees, every metric.

    cells: folder -> what ``python -m tasks close`` said of the cell (its results by
    "<model>/<metric>"). Raises ArtifactError when a cell lacks a model that another one has.
    """
    rows = []
    for folder, said in cells.items():
        root = Path(folder)
        request = artifacts.read_json(root / "runs" / "split" / "request.json")
        entries = params.section(root, "unlearn")
        by_model: dict[str, dict[str, float]] = {}
        for name, value in said["results"].items():
            model, metric = name.split("/", 1)
            by_model.setdefault(model, {})[metric] = value
        for model, values in by_model.items():
            rows.append(
                {
                    "dataset": request["dataset"],
                    "scenario": request["scenario"],
                    "forget": request["forget"],
                    "seed": params.section(root, "seed"),
                    "model": model,
                    "sees": entries[model]["sees"] if model in entries else "retain",
                    **values,
                }
            )
    table = pd.DataFrame(rows)
    counts = table.groupby(["scenario", "model"]).size()
    if counts.nunique() > 1:
        raise artifacts.ArtifactError(f"models are missing in some cells:\n{counts.to_string()}")
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean ± sample standard deviation over seeds, one row per model, columns as measured."""
    columns = [c for c in (*metrics.about(), *COSTS) if table.get(c, pd.Series()).notna().any()]
    groups = table.groupby("model", sort=False)[columns]
    mean, deviation, count = groups.mean(), groups.std(), groups.count()
    cells = pd.DataFrame(index=mean.index, columns=columns, dtype=object)
    for column in columns:
        digits = 3 if column == "TV" else 0 if column in COSTS else 2
        for model in mean.index:
            if count.loc[model, column] == 0:
                cells.loc[model, column] = "–"
            else:
                values = (mean.loc[model, column], deviation.loc[model, column])
                cells.loc[model, column] = " ± ".join(f"{value:.{digits}f}" for value in values)
    first = [model for model in BASELINES if model in cells.index]
    return cells.loc[first + [model for model in cells.index if model not in first]]


def results_page(table: pd.DataFrame, command: str) -> str:
    """The page of results: every scenario, every model, beside the baselines."""
    parts = [
        f"# Results on {table['dataset'].iloc[0]}\n",
        provenance(command),
        "Mean ± sample standard deviation over training seeds "
        f"{_listed(table['seed'])}; accuracies and MIA in %, gaps in points, TV in [0, 1]. "
        "*reference*: retrained without the forget set. *floor*: retrained with another seed, "
        "one model per training seed. *nothing*: the original model. *logit_mask*: "
        "the logit of the forgotten class set to −∞, the trivial baseline. *sees*: the data that a "
        "method is given besides the original model, the forget set alone or the retain set as "
        "well. gap_acc is the gap without MIA. The aim of FA, RA, TFA, "
        "TA and MIA is the reference's value, of gaps and TV 0. RTE_work is the work of retraining "
        "divided by that of the method, RTE_time the same in seconds on this machine; "
        "influence is included, and so are the passes that measure the forget accuracy on the way; "
        "`imu` and ascent on the head need one pass, as the head's input is cached. RTE_work "
        "counts the network's layers, no other products. The spread is over training seeds "
        "alone; split and forget set are the same. Original and reference share their seed, the "
        "floor has another.\n",
        "These metrics look at outputs. A mask on one logit passes them, so they are no evidence "
        "that the features forgot. The membership attack learns from confidences near 1; where a "
        "model gives the forget set confidences near 0 it extrapolates and can flip between 0 and "
        "100 from seed to seed, the reference included. MIA, and the gap through it, is then "
        "mostly noise: look at the other columns.\n",
    ]
    for (scenario, forget), rows in table.groupby(["scenario", "forget"], sort=False):
        parts.append(f"## {scenario}: {forget} ({rows['seed'].nunique()} seeds)\n")
        shown = summary(rows).reset_index()
        shown.insert(1, "sees", shown["model"].map(rows.groupby("model")["sees"].first()))
        parts.append(markdown(shown))
        parts.append(_verdicts(rows))
    return "\n".join(parts)


def candidates(folders: Iterable[Path]) -> pd.DataFrame:
    """What ``tasks.tune`` found in each cell, one row per cell and candidate."""
    parts = []
    for folder in folders:
        request = artifacts.read_json(folder / "runs" / "split" / "request.json")
        part = artifacts.read_table(folder / "runs" / "tune" / "candidates.csv", failure="str")
        part.insert(0, "seed", params.section(folder, "seed"))
        part.insert(0, "forget", request["forget"])
        part.insert(0, "scenario", request["scenario"])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def tuning_page(table: pd.DataFrame, command: str) -> str:
    """How the methods got their parameters, and what each candidate measured."""
    cells = table[["forget", "seed"]].drop_duplicates()
    listed = ", ".join(f"{forget} (seed {seed})" for forget, seed in cells.itertuples(index=False))
    parts = [
        "# Choice of parameters\n",
        provenance(command),
        f"Cells: {listed}. The seed is that of training, split and request; no page of results "
        "uses any of these seeds. A candidate is judged by its gap: the mean distance in points to "
        "its cell's retrained reference over the accuracies on the forget set, the retain set and "
        "validation images (of forgotten and of other classes apart). Test images are not looked "
        "at. The candidate with the smallest mean over all cells, both scenarios alike, is taken; "
        "one that failed in a cell is not. The columns after max are means by scenario: one "
        "setting serves both, which costs some methods one of the two. The parameters of "
        "influence are those of `params.yaml`, not searched for.\n",
    ]
    taken = best(table)
    for entry, rows in table.groupby("entry", sort=False):
        by_candidate = rows.groupby("candidate", sort=False)
        means = rows.pivot_table(
            index="candidate", columns="scenario", values="gap", sort=False, dropna=False
        )
        shown = by_candidate["gap"].agg(["mean", "max"]).join(means).map(lambda gap: f"{gap:.2f}")
        shown["failed"] = by_candidate["gap"].agg(lambda gaps: int(gaps.isna().sum()))
        shown["taken"] = [
            "yes" if json.loads(c) == taken.get(str(entry)) else "" for c in shown.index
        ]
        parts += [f"## {entry}\n", markdown(shown.reset_index())]
    return "\n".join(parts)


def best(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Entry -> the candidate with the smallest mean gap; none that failed in any cell.

    Of equals the first. Raises ArtifactError when every candidate of an entry failed somewhere.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry, rows in table.groupby("entry", sort=False):
        mean = rows.groupby("candidate", sort=False)["gap"].agg(
            lambda gaps: gaps.mean(skipna=False)
        )
        if mean.isna().all():
            raise artifacts.ArtifactError(f"every candidate of {entry} failed in some cell")
        found[str(entry)] = json.loads(str(mean.idxmin()))
    return found


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table; every cell as text."""
    lines = ["| " + " | ".join(map(str, table.columns)) + " |"]
    lines.append("|" + " --- |" * len(table.columns))
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def _verdicts(rows: pd.DataFrame) -> str:
    """One line per method: its gap seed by seed against the floor and the trivial baseline."""
    gap = rows.pivot(index="seed", columns="model", values="gap")
    lines = []
    for model in gap.columns:
        if model in BASELINES:
            continue
        said = []
        for other in ("nothing", "logit_mask", "floor"):
            if other in gap:
                wins, ties = (gap[model] < gap[other]).sum(), (gap[model] == gap[other]).sum()
                said.append(
                    f"{other} in {wins} of {len(gap)}" + (f" ({ties} ties)" if ties else "")
                )
        lines.append(f"- `{model}` has a smaller gap than " + ", ".join(said) + " seeds")
    return "\n".join(lines) + "\n"


def provenance(command: str) -> str:
    """Which command wrote a page, and on what machine."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "scikit-learn"))
    return (
        f"Written by `{command}`; do not edit. Machine: {platform.machine()}, "
        f"{_processor()}, Python {sys.version.split()[0]}, {packages}.\n"
    )


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"


def _listed(seeds: "pd.Series[int]") -> str:
    return ", ".join(map(str, sorted(seeds.unique())))
