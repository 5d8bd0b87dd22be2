"""The pages of ``docs/`` that are made from many pipelines.

    python -m flows.documents table   a class, a fraction, a list of ids; seeds 0, 1, 2
                                      -> docs/results-digits.md, .csv and .png
                                      (--shipped: the methods of params.yaml alone;
                                      --with settings/x.yaml: other data, networks or
                                      parameters -> docs/results-x.md; --scenarios: some)
    python -m flows.documents tune    a class, a fraction; seeds 100, 101, 102, other splits
                                      -> docs/tuning-digits.md and .csv
    python -m flows.documents metrics what every metric means -> docs/metrics.md, at once

Each pipeline is a cell, as in a sweep: what was stopped goes on where it was.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.pipeline import JOBS
from flows.running.cells import Cell
from flows.running.children import warm
from flows.running.failures import EXPLAINED
from flows.running.holding import only_run
from flows.running.server import serving
from flows.searching.tuning import PREPARED, in_every_cell, tuning_cells
from flows.sweep import swept
from tasks import ensemble, unlearn
from tasks.files import artifacts, params
from tasks.pages import metrics_page, results, results_page, tables

REPORTED = (0, 1, 2)
MEMBERS = 8  # networks per family and cell; the seeds make them three families
SCENARIOS = ("class", "fraction", "ids")


def reported_cells(
    root: Path,
    shipped: bool,
    settings: dict[str, Any] | None = None,
    scenarios: Sequence[str] = SCENARIOS,
) -> list[Cell]:
    """Every method there is, those of ``params.yaml`` as they stand there, on reported seeds.

    shipped: none but those of ``params.yaml``. settings: parameters that differ from it, by dotted
    path, in every cell; where they have a scenario it is the only one.
    """
    settings = settings or {}
    if "seed" in settings:
        raise params.ParameterError("settings must not have 'seed': the table sets it")
    if given := settings.get("split.scenario"):
        scenarios = (given,)
    if not settings.get("original.retrain", params.section(root, "original.retrain")):
        raise params.ParameterError("a table needs a reference: original.retrain must be true")
    own = settings.get("unlearn", params.section(root, "unlearn"))
    entries = {**({} if shipped else unlearn.entries()), **own}
    return [
        Cell(
            name=f"{scenario} · seed {seed}",
            changes={
                "seed": seed,
                "split.scenario": scenario,
                "ensemble.members": MEMBERS,
                "ensemble.families": ensemble.every_family(),
                "ensemble.judged": {name: {"method": entries[name]["method"]} for name in entries},
                "unlearn": entries,
            }
            | settings,
        )
        for scenario in scenarios
        for seed in REPORTED
    ]


def table(
    root: Path, jobs: int, *, shipped: bool, settings: Path | None, scenarios: Sequence[str]
) -> None:
    changes = params.read_file(settings, str(settings), "dotted paths") if settings else {}
    cells = reported_cells(root, shipped, changes, scenarios)
    found = results.collected(swept("table", cells, root, jobs).folders)
    name = settings.stem if settings else str(found["dataset"].iloc[0])
    page = results_page.page(found, command(shipped, settings, scenarios), name, changes)
    target = root / "docs" / f"results-{name}.md"
    artifacts.write_text(target, page)
    artifacts.write_table(target.with_suffix(".csv"), found)
    picture = results_page.picture(found, params.section(root, "unlearn"))
    artifacts.write_bytes(target.with_suffix(".png"), picture)
    print(f"{page}\nwritten to {target}")


def command(shipped: bool, settings: Path | None, scenarios: Sequence[str]) -> str:
    """What makes this page again."""
    options = ["--shipped"] if shipped else []
    options += ["--with", str(settings)] if settings else []
    options += ["--scenarios", *scenarios] if tuple(scenarios) != SCENARIOS else []
    return " ".join(["python -m flows.documents table", *options]) if options else "make table"


def tune(root: Path, jobs: int) -> None:
    found = swept("tune", tuning_cells(root), root, jobs, part=PREPARED)
    folders = [Path(folder) for folder in found.folders]
    in_every_cell(folders, ["tune"], jobs, print)
    tried = tables.candidates(folders)
    target = root / "docs" / f"tuning-{params.section(root, 'split.dataset')}.md"
    artifacts.write_text(target, tables.tuning_page(tried, "make tune"))
    artifacts.write_table(target.with_suffix(".csv"), tried)
    print(f"best candidates: {json.dumps(tables.best(tried), indent=1)}\nwritten to {target}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.documents", description=__doc__)
    parser.add_argument("command", choices=("table", "tune", "metrics"))
    parser.add_argument(
        "--shipped", action="store_true", help="table: the methods of params.yaml, not all"
    )
    parser.add_argument(
        "--with", type=Path, dest="settings", help="table: a YAML file of dotted path: value"
    )
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--jobs", type=int, default=JOBS, help="stages at the same time")
    arguments = parser.parse_args()
    root = Path.cwd()
    if arguments.command == "metrics":
        artifacts.write_text(root / "docs" / "metrics.md", metrics_page.page())
        return
    try:
        with only_run(root), warm(root), serving() as ready:
            ready()
            if arguments.command == "table":
                table(
                    root,
                    arguments.jobs,
                    shipped=arguments.shipped,
                    settings=arguments.settings,
                    scenarios=arguments.scenarios,
                )
            else:
                tune(root, arguments.jobs)
    except EXPLAINED as error:
        sys.exit(f"{arguments.command} failed: {error}")


if __name__ == "__main__":
    main()
