"""The pipeline over training seeds and scenarios, and the pages in ``docs/`` made from it.

    python -m flows.sweep table   a class, a fraction, a list of ids; seeds 0, 1, 2
                                  -> docs/results-digits.md, .csv and .png
                                  (--shipped: the methods of params.yaml alone;
                                  --with settings/x.yaml: other data, networks or
                                  parameters -> docs/results-x.md; --scenarios: some)
    python -m flows.sweep tune    a class, a fraction; seeds 100, 101, 102, other splits
                                  -> docs/tuning-digits.md and .csv

Each cell is a workspace of its own that shares DVC's cache, so a sweep that was stopped goes on
where it was: stages that are done are restored, not repeated.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from flows.cells import Cell, prepare
from flows.children import ChildError, Children, warm
from flows.holding import WorkspaceBusyError, only_run
from flows.pipeline import JOBS, run_workspace
from tasks import artifacts, params, results, results_page, tables, unlearn

REPORTED = (0, 1, 2)
MEMBERS = 8  # networks per family and cell; the seeds make them three families
TUNING = {100: "1", 101: "3", 102: "5"}  # seed of everything -> class to forget
SCENARIOS = ("class", "fraction", "ids")
TUNED = ("class", "fraction")  # a file names the same samples under every seed: the reported ones


@flow(name="cell", flow_run_name="{cell.name}")
def run_cell(cell: Cell, root: Path, jobs: int) -> dict[str, Any]:
    """One pipeline in a workspace of its own; returns its folder and results."""
    folder = prepare(root, cell)
    with only_run(folder):
        ran = run_workspace(root, folder, cell, {}, jobs=jobs)
    return {"folder": str(folder), "results": ran["page"]["results"]}


@flow(name="sweep", flow_run_name="{name}")
def sweep(name: str, cells: list[Cell], root: Path, jobs: int) -> list[dict[str, Any]]:
    """Every cell in turn; each uses all ``jobs``. A cell that fails is reported at the end."""
    log, said, failed = get_run_logger(), [], []
    for number, cell in enumerate(cells, 1):
        log.info(f"cell {number} of {len(cells)}: {cell.name}")
        try:
            said.append(run_cell(cell, root, jobs))
        except ChildError as error:
            failed.append(f"{cell.name}: {error}")
            log.error(failed[-1])
    if failed:
        raise ChildError(f"{len(failed)} of {len(cells)} cells failed:\n" + "\n".join(failed))
    return said


def reported_cells(
    root: Path,
    shipped: bool,
    settings: dict[str, Any] | None = None,
    scenarios: Sequence[str] = SCENARIOS,
) -> list[Cell]:
    """Every method there is, those of ``params.yaml`` as they stand there, on reported seeds.

    shipped: none but those of ``params.yaml``. settings: parameters that differ from it, by dotted
    path, in every cell.
    """
    settings = settings or {}
    if taken := sorted({"seed", "split.scenario"} & settings.keys()):
        raise params.ParameterError(f"settings must not have {taken[0]!r}: the sweep sets it")
    if not settings.get("original.retrain", params.section(root, "original.retrain")):
        raise params.ParameterError("a table needs a reference: original.retrain must be true")
    entries = {**({} if shipped else unlearn.entries()), **params.section(root, "unlearn")}
    return [
        Cell(
            name=f"{scenario} · seed {seed}",
            changes={
                "seed": seed,
                "split.scenario": scenario,
                "ensemble.members": MEMBERS,
                "unlearn": entries,
            }
            | settings,
        )
        for scenario in scenarios
        for seed in REPORTED
    ]


def tuning_cells() -> list[Cell]:
    """Other training seeds, splits and forget sets than any that are reported.

    The stages run for the baselines alone; ``tasks.tune`` then tries every method in the cell.
    """
    entries = unlearn.entries()
    baselines = {name: entries[name] for name in ("nothing", "logit_mask")}
    return [
        Cell(
            name=f"tuning · {scenario} · seed {seed}",
            changes={
                "seed": seed,
                "split.seed": seed,
                "split.by_fraction.seed": seed,
                "split.by_class.classes": [forgotten],
                "split.scenario": scenario,
                "unlearn": baselines,
            },
        )
        for scenario in TUNED
        for seed, forgotten in TUNING.items()
    ]


def table(
    root: Path, jobs: int, *, shipped: bool, settings: Path | None, scenarios: Sequence[str]
) -> None:
    changes = params.read_file(settings, str(settings), "dotted paths") if settings else {}
    cells = reported_cells(root, shipped, changes, scenarios)
    said = sweep("table", cells, root, jobs)
    found = results.collected({cell["folder"]: cell for cell in said})
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
    return " ".join(["python -m flows.sweep table", *options]) if options else "make table"


def tune(root: Path, jobs: int) -> None:
    folders = [Path(cell["folder"]) for cell in sweep("tune", tuning_cells(), root, jobs)]
    cells = [Children(folder, {}) for folder in folders]
    with ThreadPoolExecutor(jobs) as pool:  # a cell's candidates are tried in one process
        try:
            list(pool.map(lambda children: children.run(["tune"], print), cells))
        except BaseException:  # the pool would wait for cells that nobody wants any more
            for children in cells:
                children.end_all()
            raise
    tried = tables.candidates(folders)
    target = root / "docs" / f"tuning-{params.section(root, 'split.dataset')}.md"
    artifacts.write_text(target, tables.tuning_page(tried, "make tune"))
    artifacts.write_table(target.with_suffix(".csv"), tried)
    print(f"best candidates: {json.dumps(tables.best(tried), indent=1)}\nwritten to {target}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description=__doc__)
    parser.add_argument("command", choices=("table", "tune"))
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
    with warm(root) as environment:
        os.environ.update(environment)
        try:
            with only_run(root):
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
        except (ChildError, WorkspaceBusyError, params.ParameterError) as error:
            sys.exit(f"{arguments.command} failed: {error}")


if __name__ == "__main__":
    main()
