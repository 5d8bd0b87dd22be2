"""The pipeline over forget sets, seeds and parameters: cells, and a page that compares them.

Each cell is a workspace of its own that shares DVC's cache, so a sweep that was stopped goes on
where it was: stages that are done are restored, not repeated.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import copy_context
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from prefect import flow, get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from pydantic import Field

from flows.pipeline import JOBS, Jobs
from flows.running import pages
from flows.running.cells import FOLDER, Cell, clean_commit, prepare
from flows.running.children import ChildError, end_everything, warmed
from flows.running.entries import entries_of
from flows.running.failures import EXPLAINED
from flows.running.holding import only_run
from flows.running.requests import Forgetting, Method
from flows.running.workspaces import run_tags, run_workspace
from tasks.files import artifacts, params
from tasks.files.workspace import Seed, Workspace
from tasks.pages import results, results_page, sweep_page
from tasks.starting import calling
from tasks.tracking.store import address
from tasks.tracking.sweeps import Group
from tasks.tracking.tracker import Context, Page

HTML = "results.html"
AS_IT_IS = Forgetting()
STARTED = (
    "a sweep is a deployment: start it on Prefect's page, or for example with\n"
    """  prefect deployment run sweep/sweep --param name='"two"' --param seeds='[0, 1]'\n"""
    "docs/operations.md says how deployments get there, and what the parameters are"
)


class Swept(NamedTuple):
    """said: cell -> its folder and results. failed: cell -> why there are none."""

    said: dict[str, dict[str, Any]]
    failed: dict[str, str]

    @property
    def folders(self) -> dict[str, dict[str, Any]]:
        return {cell["folder"]: cell for cell in self.said.values()}

    def check(self) -> None:
        """Raises ChildError with every reason where a cell failed."""
        if self.failed:
            count = len(self.said) + len(self.failed)
            lines = [f"{name}: {why}" for name, why in self.failed.items()]
            raise ChildError(f"{len(lines)} of {count} cells failed:\n" + "\n".join(lines))


@flow(name="cell", flow_run_name="{cell.name}")
def run_cell(
    cell: Cell, root: Path, jobs: int, group: str, pools: bool, part: tuple[str, ...] = ()
) -> dict[str, Any]:
    """One pipeline in a workspace of its own; returns its folder and results.

    part: how the names of the stages begin that are to run; none: all. A part has no results.
    """
    folder = cell.folder(root)
    context = Context(store=address(root), below=group, tags=run_tags())
    with only_run(folder):
        prepare(root, cell)
        ran = run_workspace(root, folder, cell, context, jobs=jobs, pools=pools, part=part)
    return {"folder": str(folder), "times": dict(ran.page.times)}


def run_cells(
    cells: list[Cell],
    root: Path,
    jobs: int,
    group: str,
    *,
    in_flight: int = 1,
    pools: bool = False,
    part: tuple[str, ...] = (),
) -> Swept:
    """Every cell, ``in_flight`` at a time; one that fails leaves the others alone.

    What an earlier run of the same cell finished is restored, not computed again.
    """
    log, swept = get_run_logger(), Swept({}, {})
    with ThreadPoolExecutor(in_flight) as threads:
        running = {
            threads.submit(copy_context().run, run_cell, cell, root, jobs, group, pools, part): cell
            for cell in cells
        }
        try:
            for number, done in enumerate(as_completed(running), 1):
                name = running[done].name
                try:
                    swept.said[name] = done.result()
                    log.info(f"{number} of {len(cells)}: {name} is done")
                except EXPLAINED as error:
                    swept.failed[name] = str(error)
                    log.error(f"{number} of {len(cells)}: {name} failed: {error}")
        except BaseException:  # the threads would be waited for otherwise
            for waiting in running:
                waiting.cancel()
            end_everything()
            raise
    order = [cell.name for cell in cells]
    return Swept(
        {name: swept.said[name] for name in order if name in swept.said},
        {name: swept.failed[name] for name in order if name in swept.failed},
    )


@contextmanager
def grouped(root: Path, name: str, key: str = "") -> Iterator[tuple[Group, list[Path]]]:
    """A run in MLflow for a sweep, and the list of files that it gets at its end.

    key: of a search, whose run is taken up again where there is one.
    """
    group = Group(Workspace(root), name, run_tags(), key)
    files: list[Path] = []
    status = "FAILED"
    page = Page(group.run, group.store.uri, group.link)
    link = pages.mlflow_link(page)
    create_link_artifact(link, link_text="MLflow run", key="mlflow", description="All cells, there")
    try:
        yield group, files
        status = "FINISHED"
    finally:
        group.end(status, files)


@flow(name="cells", flow_run_name="{name}")
def swept(name: str, cells: list[Cell], root: Path, jobs: int, part: tuple[str, ...] = ()) -> Swept:
    """All cells; ``jobs`` stages run at a time, of as many cells as possible.

    A cell alone leaves cores idle wherever its stages wait for one of them. part: see ``run_cell``.
    """
    in_flight = min(jobs, len(cells))
    with grouped(root, name) as (group, _):
        found = run_cells(cells, root, jobs // in_flight, group.run, in_flight=in_flight, part=part)
        found.check()
    return found


@flow(name="sweep", flow_run_name="{name}", validate_parameters=True)
def sweep(
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "sweep",
    requests: Annotated[list[Forgetting], Field(min_length=1)] = [AS_IT_IS],  # noqa: B006
    methods: list[Method] = [],  # noqa: B006
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0, 1, 2],  # noqa: B006
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {},  # noqa: B006
    in_flight: Annotated[int, Field(ge=1)] = 1,
    jobs: Jobs = JOBS,
    pools: bool = False,
) -> dict[str, str]:
    """Methods × seeds × forget sets × parameters: a cell for each, and a page that compares them.

    A sweep that was stopped goes on where it was. Cells that fail are listed at the end; the page
    compares the others. Returns what became of each cell.

    Args:
        name: of its pages.
        requests: forget sets, each with every seed below.
        methods: see docs/methods.md; none: the entries of params.yaml, as they stand there.
        seeds: of training and methods.
        grid: values to try, such as {"train.epochs": [15, 30]}; every combination is a cell.
        in_flight: cells at the same time.
        jobs: stages of each that run here at the same time.
        pools: hand stages to the work pools that they ask for, while these have a worker.
    """
    root = Path.cwd()
    cells = asked_cells(root, requests, methods, seeds, grid, clean_commit(root) if pools else "")
    with warmed(root), grouped(root, name) as (group, files):
        found = run_cells(cells, root, jobs, group.run, in_flight=in_flight, pools=pools)
        if found.said:
            html = pages.mlflow_link(
                Page(group.run, group.store.uri, ""), group.store.link(group.run, HTML)
            )
            files += written(root / FOLDER / f"{name}-results", name, found, cells, grid, html)
        create_table_artifact(
            [{"cell": cell, "outcome": "done"} for cell in found.said]
            + [{"cell": cell, "outcome": why} for cell, why in found.failed.items()],
            key="cells",
            description="What became of each cell",
        )
        found.check()
    return dict.fromkeys(found.said, "done")


def asked_cells(
    root: Path,
    requests: Sequence[Forgetting],
    methods: Sequence[Method],
    seeds: Sequence[int],
    grid: dict[str, list[Any]],
    commit: str,
) -> list[Cell]:
    """Every combination, in that order. Raises ParameterError for what params.yaml does not have.

    The settings of a request must not have a seed, as the sweep sets it.
    """
    if any("seed" in request.settings for request in requests):
        raise params.ParameterError("requests must not have a seed: the sweep's seeds set it")
    entries: dict[str, Any] = {}
    for method in methods:
        entries |= entries_of(root, method, {})
    cells = []
    for request, seed in product(requests, seeds):
        for values in product(*grid.values()):
            varied = dict(zip(grid, values, strict=True))
            changes = {**request.changes(), "seed": seed, **varied}
            changes |= {"unlearn": entries} if entries else {}
            said = params.title(params.changed(params.read(root), changes))
            name = " · ".join(filter(None, [said, differs(changes, grid)]))
            cells.append(Cell(name=name, changes=changes, commit=commit))
    if len({cell.folder(root) for cell in cells}) < len(cells):
        raise params.ParameterError("requests, seeds and grid must name each cell once")
    return cells


def differs(changes: dict[str, Any], grid: Iterable[str]) -> str:
    """What tells a cell from the others of its forget set and seed; "" without a grid."""
    return ", ".join(f"{path} {changes[path]}" for path in grid)


def written(
    folder: Path,
    name: str,
    found: Swept,
    cells: list[Cell],
    grid: Iterable[str],
    link: str,
) -> list[Path]:
    """The pages of a sweep, in ``folder`` and on Prefect's page: HTML, Markdown and CSV.

    link: where MLflow will show the first.
    """
    differing = {cell.name: differs(cell.changes, grid) for cell in cells}
    said = {
        cell["folder"]: {**cell, "differs": differing[which]} for which, cell in found.said.items()
    }
    table = results.collected(said)
    page = results_page.page(table, f"the flow sweep, as “{name}”", name)
    if found.failed:
        lines = "".join(f"- {cell}: {why}\n" for cell, why in found.failed.items())
        page += f"\n## Cells that failed\n\n{lines}"
    artifacts.write_text(folder / "results.md", page)
    parts = sweep_page.parts(table)
    artifacts.write_text(folder / HTML, sweep_page.page(parts, name, found.failed, page))
    artifacts.write_table(folder / "results.csv", table)
    create_markdown_artifact(
        f"[All of it, in MLflow]({link}), or `{folder / HTML}`\n\n{sweep_page.short(parts)}",
        key="results",
        description=f"Results of the sweep {name}",
    )
    return [folder / f"results.{suffix}" for suffix in ("html", "md", "csv")]


def main() -> None:
    calling.parser("flows.sweep", f"{__doc__}\n{STARTED}").parse_args()
    sys.exit(STARTED)


if __name__ == "__main__":
    main()
