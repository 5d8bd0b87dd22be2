"""The comparison of all models: a table, verdicts, what DVC shows, and one HTML page."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.pages import findings, lineup, plotted, report_page, summary


def run(workspace: Workspace, item: None) -> float | None:
    lineup.prune(workspace)
    results = lineup.table(workspace)
    compared = lineup.compared(workspace, results)
    found = findings.findings(compared)
    absent = lineup.absent(workspace, results)
    page = report_page.page(workspace, compared, found, absent)
    out = _out(workspace)
    artifacts.write_table(out / "table.csv", results)
    artifacts.write_json(
        verdicts(workspace),
        {f.model: {"outcome": f.outcome, "words": f.words, "decided": f.decided} for f in found},
    )
    shutil.rmtree(out / "models", ignore_errors=True)  # some may be of entries that are gone
    for model, values in summary.of_models(compared, found).items():
        artifacts.write_json(out / "models" / f"{model}.json", values)
    artifacts.write_table(out / "courses.csv", plotted.joined(plotted.courses(workspace)))
    artifacts.write_table(out / "distances.csv", plotted.distances(compared))
    artifacts.write_text(out / "report.html", page)
    for line in [*workspace.read_request()["notes"], *(f"not measured: {line}" for line in absent)]:
        print(line)
    return None


def verdicts(workspace: Workspace) -> Path:
    """JSON: model -> outcome, the same in words, and the numbers that decided it."""
    return _out(workspace) / "verdicts.json"


def read_verdicts(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Model -> what ``verdicts`` holds of it."""
    found: dict[str, dict[str, Any]] = artifacts.read_json(verdicts(workspace))
    return found


def outcomes(workspace: Workspace) -> dict[str, str]:
    """Model -> outcome of its verdict."""
    return {model: said["outcome"] for model, said in read_verdicts(workspace).items()}


def shown(workspace: Workspace) -> str:
    """The report's table for a terminal."""
    compared = lineup.compared(workspace, lineup.table(workspace))
    return text(compared, outcomes(workspace))


def text(compared: findings.Compared, outcomes: Mapping[str, str]) -> str:
    """The models in the order of ``outcomes``; a rule parts the kinds."""
    columns = summary.columns(compared)
    header = ["model", "verdict", *(column.name for column in columns)]
    units = ["", "", *(column.unit for column in columns)]
    rows = summary.lines(compared, outcomes)
    widths = [max(map(len, column)) for column in zip(header, units, *rows, strict=True)]

    def line(row: list[str]) -> str:
        left, right = row[:2], row[2:]
        cells = [cell.ljust(width) for cell, width in zip(left, widths[:2], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(right, widths[2:], strict=True)]
        return "  ".join(cells).rstrip()

    lines, last = [line(header), line(units)], None
    for row in rows:
        kind = str(compared.table.loc[row[0], "kind"])
        if kind != last:
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        last = kind
        lines.append(line(row))
    return "\n".join(lines)


def _out(workspace: Workspace) -> Path:
    return workspace.runs / "report"
