"""The pipeline over training seeds and scenarios, and the pages in ``docs/`` made from it.

    python -m flows.sweep table   seeds 0, 1, 2 -> docs/results-digits.md
    python -m flows.sweep tune    seeds 100, 101, 102 -> docs/tuning-digits.md

Each cell is a workspace of its own that shares DVC's cache, so a sweep that was stopped goes on
where it was: stages that are done are restored, not repeated.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.cells import Cell, prepare
from flows.children import ChildError, Children, warm
from flows.holding import WorkspaceBusyError, only_run
from flows.pipeline import JOBS, run_stages, run_tags
from tasks import artifacts, params, tables

REPORTED = (0, 1, 2)
TUNING = (100, 101, 102)
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@flow(name="cell", flow_run_name="{cell.name}")
def run_cell(cell: Cell, root: Path, jobs: int) -> dict[str, Any]:
    """One pipeline in a workspace of its own; returns its folder, outcomes and results."""
    log = get_run_logger()
    folder = prepare(root, cell)
    ids = {"IMU_PARENT": f"prefect-{flow_run.id}", "IMU_TAGS": json.dumps(run_tags())}
    store = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow/mlflow.db")
    children = Children(folder, {**ids, "MLFLOW_TRACKING_URI": store})
    try:
        children.run(["dvc", "checkout", "-q", "data.dvc"], log.info)
        children.run(["open"], log.debug)
        try:
            outcomes = run_stages(children, jobs, force=False)
        except BaseException:
            children.run(["close", "FAILED"], log.debug)
            raise
        said = json.loads(children.run(["close", "FINISHED"], log.debug)[-1])
    finally:
        children.end_all()
    return {"folder": str(folder), "outcomes": outcomes, **said}


@flow(name="sweep", flow_run_name="{name}")
def sweep(name: str, cells: list[Cell], root: Path, jobs: int) -> list[dict[str, Any]]:
    """Every cell in turn; each uses all ``jobs``. A cell that fails is reported at the end."""
    log, said, failed = get_run_logger(), [], []
    Children(root, {}).run(["data"], log.info)
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


def reported_cells() -> list[Cell]:
    return [
        Cell(name=f"{scenario} · seed {seed}", changes={"seed": seed, "split.scenario": scenario})
        for scenario in ("class", "fraction")
        for seed in REPORTED
    ]


def tuning_grid(root: Path) -> dict[str, dict[str, Any]]:
    """Candidates for every entry of ``unlearn`` that has a learning rate."""
    return {
        f"{name}_{rate:g}".replace(".", "_"): {
            "tuned": name,
            "candidate": {"learning_rate": rate},
            "entry": entry,
        }
        for name, entry in params.section(root, "unlearn").items()
        if "learning_rate" in entry
        for rate in RATES
    }


def tuning_cells(root: Path, grid: dict[str, dict[str, Any]]) -> list[Cell]:
    entries = params.section(root, "unlearn")
    baselines = {name: entries[name] for name in ("nothing", "logit_mask")}
    candidates = {name: {**g["entry"], **g["candidate"]} for name, g in grid.items()}
    return [
        Cell(
            name=f"tuning · seed {seed}",
            changes={"seed": seed, "unlearn": {**baselines, **candidates}},
        )
        for seed in TUNING
    ]


def table(root: Path, jobs: int) -> None:
    said = sweep("table", reported_cells(), root, jobs)
    results = tables.collected({cell["folder"]: cell for cell in said})
    page = tables.results_page(results, "make table")
    target = root / "docs" / f"results-{results['dataset'].iloc[0]}.md"
    artifacts.write_text(target, page)
    artifacts.write_table(target.with_suffix(".csv"), results)
    picture = Path(said[0]["folder"]) / "runs" / "report" / "figures" / "distance.png"
    artifacts.write_bytes(target.with_suffix(".png"), picture.read_bytes())
    print(f"{page}\nwritten to {target}")


def tune(root: Path, jobs: int) -> None:
    grid = tuning_grid(root)
    said = sweep("tune", tuning_cells(root, grid), root, jobs)
    results = tables.collected({cell["folder"]: cell for cell in said})
    target = root / "docs" / f"tuning-{results['dataset'].iloc[0]}.md"
    artifacts.write_text(target, tables.tuning_page(results, grid, "make tune"))
    print(f"best candidates, for params.yaml: {tables.best(results, grid)}\nwritten to {target}")


def main() -> None:
    commands: dict[str, Callable[[Path, int], None]] = {"table": table, "tune": tune}
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description=__doc__)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--jobs", type=int, default=JOBS, help="stages at the same time")
    arguments = parser.parse_args()
    root = Path.cwd()
    with warm(root) as environment:
        os.environ.update(environment)
        try:
            with only_run(root):
                commands[arguments.command](root, arguments.jobs)
        except (ChildError, WorkspaceBusyError) as error:
            sys.exit(f"{arguments.command} failed: {error}")


if __name__ == "__main__":
    main()
