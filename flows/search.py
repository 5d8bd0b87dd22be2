r"""A search for a method's parameters by Optuna, in cells that no page reports.

    python -m flows.search trial --method imu --space step=0.01..1:log --trials 20
    python -m flows.search other --method amun        the choices that the method names
    python -m flows.search third --method imu --with settings/cifar10-small.yaml --classes dog ship
    python -m flows.search fourth --method npo --with settings/biographies.yaml \
        --scenarios fraction --draws 1 2
                                  -> .cells/trial-results/search.md and .csv

A search that was stopped goes on where it was when it is started again in the same words; with
more trials it goes on from its end. Other words, and other code, are another study.
"""

import hashlib
import json
import socket
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from optuna.distributions import BaseDistribution
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import ParameterTypeError
from pydantic import Field

from flows.pipeline import JOBS, Jobs
from flows.running.cells import FOLDER, Cell, clean_commit, fingerprint
from flows.running.children import ChildError, warm, warmed
from flows.running.entries import entry_of
from flows.running.failures import EXPLAINED
from flows.running.holding import only_run
from flows.running.requests import Method
from flows.running.server import serving
from flows.searching import space as spaces
from flows.searching.space import Space
from flows.searching.study import Study, Trial
from flows.searching.tuning import (
    CLASSES,
    PREPARED,
    SCENARIOS,
    Judge,
    judge_in,
    label,
    tuning_cells,
)
from flows.sweep import grouped, run_cells
from tasks import tune
from tasks.files import artifacts, params
from tasks.files.workspace import Seed
from tasks.pages import search_page
from tasks.pages.search_page import Searched
from tasks.starting import calling
from tasks.tracking.sweeps import Group


@flow(name="search", flow_run_name="{name}", validate_parameters=True)
def search(
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")],
    method: Method,
    space: Space = {},  # noqa: B006
    trials: Annotated[int, Field(ge=1)] = 20,
    parameters: dict[str, Any] = {},  # noqa: B006
    scenarios: list[Literal["class", "fraction"]] = [*SCENARIOS],  # type: ignore[list-item]  # noqa: B006
    classes: list[str] = [*CLASSES],  # noqa: B006
    draws: list[int] = [],  # noqa: B006
    settings: dict[str, Any] = {},  # noqa: B006
    seed: Seed = 0,
    at_once: Annotated[int, Field(ge=1)] = 4,
    in_flight: Annotated[int, Field(ge=1)] = 1,
    jobs: Jobs = JOBS,
    pools: bool = False,
) -> dict[str, Any]:
    """Parameters of a method, searched by Optuna on seeds, splits and classes that nothing reports.

    A search that was stopped goes on where it was when it is started again with the same
    parameters. Returns the best candidate, its gap, and that of what stands in params.yaml.

    Args:
        name: of the search and its pages.
        space: parameter -> choices, or low, high and log; none: what the method names.
        trials: candidates in all, what was tried before included.
        parameters: of the method that stay as they are given; the others are as in params.yaml.
        scenarios: kinds of forget sets; where settings have one it is the only one.
        classes: to forget, each under a seed of its own; none that params.yaml forgets.
        draws: data.seed of data that are drawn, each with each of these seeds; not that of
            params.yaml.
        settings: any other parameter by its path, such as {"split.dataset": "cifar10"}.
        seed: of the sampler.
        at_once: candidates that are asked for together.
        in_flight: cells that are prepared at the same time.
        jobs: stages of each that run here at the same time, and cells that are judged so.
        pools: hand the stages of the cells to the work pools that they ask for.
    """
    root = Path.cwd()
    asked = understood(root, method, space, parameters, settings)
    commit = clean_commit(root) if pools else ""
    cells = tuning_cells(root, scenarios, classes, settings, commit, draws)
    key = identity(root, name, asked, cells, seed)
    folder = root / FOLDER / f"{name}-results"
    with only_run(folder), warmed(root), grouped(root, name, key) as (group, files):
        found = run_cells(
            cells, root, jobs, group.run, in_flight=in_flight, pools=pools, part=PREPARED
        )
        found.check()
        folders = {label(cell): Path(found.said[cell.name]["folder"]) for cell in cells}
        study = Study(folder / "study.db", key, asked.distributions, seed)
        get_run_logger().info(f"{len(study.told())} trials are known already")
        judge = judge_in(folders, asked.entry, jobs)
        if spaces.inside(asked.space, asked.present):
            study.begin_with(asked.present)
        log(group, study)  # what a stop left unlogged
        study.run(judge, trials, at_once, lambda: log(group, study))
        searched = summed_up(name, asked, folders, study, judge)
        files += written(folder, searched)
    if searched.best is None:
        raise ChildError(f"all {len(searched.trials)} candidates failed: see {files[0]}")
    return {**searched.best, "present": searched.present}


class Asked(NamedTuple):
    """entry: of ``params.yaml``, with every field. present: what it has for what is searched."""

    name: str
    entry: dict[str, Any]
    space: Space
    distributions: dict[str, BaseDistribution]

    @classmethod
    def of(cls, name: str, entry: dict[str, Any], space: Space) -> "Asked":
        """Raises ParameterError for what the method or its parameters are not."""
        entry = {
            "method": entry["method"],
            "data_access": entry["data_access"],
            **asdict(tune.configured(entry, {})),
        }
        return cls(name, entry, space, spaces.distributions(space, entry))

    @property
    def present(self) -> dict[str, Any]:
        known = spaces.settings(self.entry)
        return {path: known[path] for path in self.space}


def understood(
    root: Path,
    method: Method,
    space: Space,
    parameters: dict[str, Any],
    settings: dict[str, Any],
) -> Asked:
    """What is searched. Raises ParameterError for what the method or its parameters are not."""
    known = params.changed(params.read(root), settings)["unlearn"]
    name, entry = entry_of(known, method, parameters)
    tune.configured(entry, {})
    if fixed := sorted(path for path in space if path.split(".")[0] in parameters):
        raise params.ParameterError(f"space: {fixed[0]!r} is given in parameters as well")
    if not space:
        space = spaces.default(method)
        space = {path: space[path] for path in space if path.split(".")[0] not in parameters}
    if not space:
        raise params.ParameterError("space: parameters are given for all that the method searches")
    return Asked.of(name, entry, space)


def identity(root: Path, name: str, asked: Asked, cells: list[Cell], seed: int) -> str:
    """Of a study: what is searched here, in what, and by which code."""
    fixed = params.changed({"entry": asked.entry}, {f"entry.{path}": None for path in asked.space})
    content = [
        socket.gethostname(),
        str(root),
        name,
        fixed,
        {path: spaces.words(values) for path, values in asked.space.items()},
        [params.changed(params.read(root), cell.changes) for cell in cells],
        seed,
        fingerprint(root),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def log(group: Group, study: Study) -> None:
    """A nested run in MLflow for each trial that has none yet."""
    group.log_trials([trial.row() for trial in study.told()])


def summed_up(
    name: str, asked: Asked, folders: dict[str, Path], study: Study, judge: Judge
) -> Searched:
    requests = {
        cell: artifacts.read_json(folder / "runs" / "split" / "request.json")
        for cell, folder in folders.items()
    }
    present = study.outcome(asked.present, judge)
    found = Searched(
        name=name,
        entry_name=asked.name,
        entry=asked.entry,
        space={path: spaces.words(values) for path, values in asked.space.items()},
        cells={cell: request["forget"] for cell, request in requests.items()},
        trials=[trial.row() for trial in study.told()],
        present=Trial(-1, asked.present, present).row(),
        importances=study.importances(),
    )
    edges = spaces.edges(asked.space, found.best["candidate"]) if found.best else {}
    return replace(found, edges=edges)


def written(folder: Path, searched: Searched) -> list[Path]:
    """The page of a search, in ``folder`` and on Prefect's page, and its table."""
    page = search_page.page(searched, f"the flow search, as “{searched.name}”")
    artifacts.write_text(folder / "search.md", page)
    artifacts.write_table(folder / "search.csv", search_page.table(searched))
    create_markdown_artifact(page, key="search", description=f"The search {searched.name}")
    return [folder / "search.md", folder / "search.csv"]


def main() -> None:
    parser = calling.parser("flows.search", __doc__)
    parser.add_argument("name", help="of the search and its pages")
    parser.add_argument(
        "--method",
        required=True,
        metavar="METHOD",
        choices=[method.value for method in Method],
        help="a file in imu/methods, without .py",
    )
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="PARAMETER=VALUES",
        help="LOW..HIGH, LOW..HIGH:log or CHOICE,CHOICE; may be repeated",
    )
    parser.add_argument("--trials", type=int, default=20, help="in all")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PARAMETER=VALUE", help="stays as it is given"
    )
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=[*SCENARIOS])
    parser.add_argument("--classes", nargs="+", default=[*CLASSES], help="to forget")
    parser.add_argument(
        "--draws", nargs="+", type=int, default=[], help="data.seed of data that are drawn"
    )
    parser.add_argument(
        "--with", type=Path, dest="settings", help="a YAML file of dotted path: value"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    parser.add_argument("--at-once", type=int, default=4, help="candidates asked for together")
    parser.add_argument("--jobs", type=int, default=JOBS, help="stages and cells at the same time")
    given = parser.parse_args()
    root = Path.cwd()
    try:
        file = given.settings
        settings = params.read_changes(root, file, str(file)) if file else {}
        with only_run(root), warm(root), serving() as ready:
            ready()
            found = search(
                given.name,
                given.method,
                spaces.read(given.space),
                given.trials,
                spaces.fixed(given.set),
                given.scenarios,
                given.classes,
                given.draws,
                settings,
                given.seed,
                at_once=given.at_once,
                jobs=given.jobs,
            )
    except (*EXPLAINED, ParameterTypeError) as error:
        sys.exit(f"search failed{calling.with_file(file)}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on with what is done")
    page = root / FOLDER / f"{given.name}-results" / "search.md"
    print(f"best {found['candidate']}: gap {found['gap']:.2f}; the page is {page}")


if __name__ == "__main__":
    main()
