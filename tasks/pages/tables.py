"""Markdown pages in ``docs/``: what they share, and the page on the choice of parameters."""

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.files import artifacts, params

NOISE = 0.1  # points of a mean gap, below which a difference over six cells tells nothing


def candidates(
    folders: Mapping[str, Path],
    told: Mapping[str, Sequence[tuple[dict[str, Any], Mapping[str, Any]]]],
) -> pd.DataFrame:
    """One row per cell and candidate. folders: label of a cell -> it. told: entry ->
    candidates, each with what was found of it by cell."""
    rows = []
    for cell, folder in folders.items():
        request = artifacts.read_json(folder / "runs" / "split" / "request.json")
        about = {
            "scenario": request["scenario"],
            "forget": request["forget"],
            "seed": params.section(folder, "seed"),
            "draw": params.section(folder, "data.seed"),
        }
        rows += [
            {**about, "entry": entry, "candidate": json.dumps(candidate), **found[cell]}
            for entry, of in told.items()
            for candidate, found in of
        ]
    return pd.DataFrame(rows)


def tuning_page(table: pd.DataFrame, command: str) -> str:
    """How the methods got their parameters, and what each candidate measured."""
    cells = table[["forget", "seed", "draw"]].drop_duplicates()
    listed = ", ".join(
        f"{forget} (seed {seed}{f', data.seed {draw}' if cells['draw'].nunique() > 1 else ''})"
        for forget, seed, draw in cells.itertuples(index=False)
    )
    parts = [
        "# Choice of parameters\n",
        provenance(command),
        f"Cells: {listed}. The seed is that of training, split and request; no page of results "
        "uses any of these seeds. A candidate is judged by its gap: a mean distance in points to "
        "its cell's retrained reference on the forget set, the retain set and the validation set: "
        "of accuracies, those of forgotten classes apart, or of texts of the probability of the "
        "true answers, of all and of each one. Test samples are not looked at. The best has "
        "the smallest mean over the cells; one that failed in a cell is none. A method ships with "
        f"the best for all of them, or with one that is farther by at most {NOISE:g} points, which "
        "tells nothing. The columns after max are means by scenario: one setting for all costs "
        "some methods one of them, so that the best of each is named as well. The parameters of "
        "influence are those of `params.yaml`, not searched for.\n",
    ]
    named = {"all": best(table)}
    if len(scenarios := table["scenario"].unique()) > 1:
        named |= {of: best(table[table["scenario"] == of]) for of in scenarios}
    for entry, rows in table.groupby("entry", sort=False):
        by_candidate = rows.groupby("candidate", sort=False)
        by_scenario = rows.pivot_table(
            index="candidate", columns="scenario", values="gap", sort=False, dropna=False
        )
        shown = (
            by_candidate["gap"].agg(["mean", "max"]).join(by_scenario).map(lambda gap: f"{gap:.2f}")
        )
        shown["failed"] = by_candidate["gap"].agg(lambda gaps: int(gaps.isna().sum()))
        shown["best for"] = [
            ", ".join(of for of in named if json.loads(c) == named[of][str(entry)])
            for c in shown.index
        ]
        parts += [f"## {entry}\n", markdown(shown.reset_index())]
    return "\n".join(parts)


def best(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Entry -> the candidate with the smallest mean gap; none that failed in any cell.

    Of equals the first. Raises ArtifactError when every candidate of an entry failed somewhere.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry, rows in table.groupby("entry", sort=False):
        mean = means(rows)
        if mean.isna().all():
            raise artifacts.ArtifactError(f"every candidate of {entry} failed in some cell")
        found[str(entry)] = json.loads(str(mean.idxmin()))
    return found


def means(rows: pd.DataFrame) -> "pd.Series[float]":
    """Candidate -> its mean gap over the cells, NaN where it failed in one; in their order."""
    found: pd.Series[float] = rows.groupby("candidate", sort=False)["gap"].agg(
        lambda gaps: gaps.mean(skipna=False)
    )
    return found


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table; every cell as text."""
    lines = ["| " + " | ".join(map(str, table.columns)) + " |"]
    lines.append("|" + " --- |" * len(table.columns))
    for row in table.itertuples(index=False):
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
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
