"""The pages of ``docs/`` that are made from many pipelines.

    python -m flows.documents table   a class, a fraction, a list of ids; seeds 0, 1, 2
                                      -> docs/results-digits.md, .csv and .png
                                      (--shipped: the methods of params.yaml alone;
                                      --tuned docs/tuning-digits.csv: each with what was best
                                      in that search, in cells of the same scenario;
                                      --with settings/x.yaml: other data, networks or
                                      parameters -> docs/results-x.md; --scenarios: some;
                                      --seeds: others; --fraction 0.1: another share is
                                      forgotten -> docs/results-x-10.md)
    python -m flows.documents tune    a class, a fraction; seeds 100, 101, 102, other splits
                                      -> docs/tuning-digits.md and .csv
                                      (--with settings/x.yaml: the grids of settings/grids/x.yaml
                                      -> docs/tuning-x.md; --draws 1 2: also data.seed)
    python -m flows.documents metrics what every metric means -> docs/metrics.md, at once

Each pipeline is a cell, as in a sweep: what was stopped goes on where it was.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from prefect import flow

from flows.pipeline import JOBS
from flows.running.cells import FOLDER, Cell
from flows.running.children import warm
from flows.running.failures import EXPLAINED
from flows.running.holding import only_run
from flows.running.server import serving
from flows.search import Asked, identity
from flows.searching import space as spaces
from flows.searching.study import Study
from flows.searching.tuning import PREPARED, judge_in, label, tuning_cells
from flows.sweep import swept
from tasks import unlearn
from tasks.files import artifacts, params
from tasks.pages import metrics_page, results, results_page, tables
from tasks.starting import calling
from tasks.tune import configured

REPORTED = (0, 1, 2)
MEMBERS = 8  # networks per family and cell, where settings ask for families
SCENARIOS = ("class", "fraction", "ids")
FRACTION = "split.by_fraction.fraction"
EVERY = 10_000  # more candidates than an entry has
AT_ONCE = 4  # candidates that a stop may cost
TUNED = ("scenario", "entry", "candidate", "gap")
GRIDS = "grids"  # folder of what is searched under settings: entry -> parameter -> values


def reported_cells(
    root: Path,
    shipped: bool,
    settings: dict[str, Any] | None = None,
    scenarios: Sequence[str] = SCENARIOS,
    seeds: Sequence[int] = REPORTED,
    tuned: pd.DataFrame | None = None,
) -> list[Cell]:
    """Every method there is, those of ``params.yaml`` as they stand there, on reported seeds.

    shipped: none but those of ``params.yaml``. settings: parameters that differ from it, by dotted
    path, in every cell; where they have a scenario it is the only one. tuned: what ``tune`` tried;
    an entry takes what was best of it in cells of the same scenario, where there were any.
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
    taken = {scenario: with_best(entries, scenario, tuned) for scenario in scenarios}
    return [
        Cell(
            name=f"{scenario} · seed {seed}",
            changes={
                "seed": seed,
                "split.scenario": scenario,
                "ensemble.members": MEMBERS,
            }
            | settings
            | {"unlearn": taken[scenario]},
        )
        for scenario in scenarios
        for seed in seeds
    ]


def with_best(
    entries: dict[str, Any], scenario: str, tuned: pd.DataFrame | None
) -> dict[str, dict[str, Any]]:
    """The entries, with the candidates that were best in ``scenario``.

    Raises ParameterError for a parameter that an entry does not have.
    """
    if tuned is None or scenario not in set(tuned["scenario"]):
        return entries
    found = dict(entries)
    for name, candidate in tables.best(tuned[tuned["scenario"] == scenario]).items():
        if name in entries:
            try:
                found[name] = entries[name] | asdict(configured(entries[name], candidate))
            except params.ParameterError as error:
                reason = f"what a search found best for {name} does not suit it: {error}"
                raise params.ParameterError(reason) from error
    return found


def table(
    root: Path,
    jobs: int,
    *,
    shipped: bool,
    settings: Path | None,
    scenarios: Sequence[str],
    seeds: Sequence[int] = REPORTED,
    fraction: float | None = None,
    tuned: Path | None = None,
) -> None:
    """fraction: that is forgotten, in place of what the settings say."""
    changes = params.read_changes(root, settings, str(settings)) if settings else {}
    if fraction is not None:
        if (scenario := changes.get("split.scenario", "fraction")) != "fraction":
            raise params.ParameterError(f"{settings} asks for the {scenario}, not a fraction")
        changes[FRACTION] = fraction
    searched = None if tuned is None else read_tuned(tuned)
    cells = reported_cells(root, shipped, changes, scenarios, seeds, searched)
    found = results.collected(swept("table", cells, root, jobs).folders)
    name = settings.stem if settings else str(found["dataset"].iloc[0])
    name += f"-{100 * fraction:g}" if fraction is not None else ""
    again = command(shipped, settings, scenarios, seeds, fraction, tuned)
    page = results_page.page(found, again, name, changes, tuned)
    target = root / "docs" / f"results-{name}.md"
    artifacts.write_text(target, page)
    artifacts.write_table(target.with_suffix(".csv"), found)
    picture = results_page.picture(found, changes.get("unlearn", params.section(root, "unlearn")))
    artifacts.write_bytes(target.with_suffix(".png"), picture)
    print(f"{page}\nwritten to {target}")


def read_tuned(file: Path) -> pd.DataFrame:
    """What ``tune`` wrote. Raises ParameterError where it did not, ArtifactError for no table."""
    table = artifacts.read_given(file)
    if lacking := {*TUNED} - {*table.columns}:
        raise params.ParameterError(f"{file} must have the column {min(lacking)!r}, as tune writes")
    if not is_numeric_dtype(table["gap"]):
        raise params.ParameterError(f"{file}: gap must be a number in every row")
    for text in map(str, table["candidate"].unique()):
        try:
            valid = isinstance(json.loads(text), dict)
        except json.JSONDecodeError:
            valid = False
        if not valid:
            raise params.ParameterError(
                f"{file}: candidate must be JSON, parameters to values, got {text!r}"
            )
    return table


def command(
    shipped: bool,
    settings: Path | None,
    scenarios: Sequence[str],
    seeds: Sequence[int] = REPORTED,
    fraction: float | None = None,
    tuned: Path | None = None,
) -> str:
    """What makes this page again."""
    options = ["--shipped"] if shipped else []
    options += ["--tuned", str(tuned)] if tuned else []
    options += ["--with", str(settings)] if settings else []
    options += ["--scenarios", *scenarios] if tuple(scenarios) != SCENARIOS else []
    options += ["--seeds", *map(str, seeds)] if tuple(seeds) != REPORTED else []
    options += ["--fraction", str(fraction)] if fraction is not None else []
    return " ".join(["python -m flows.documents table", *options])


@flow(name="tune", flow_run_name="tune")
def tune(root: Path, jobs: int, *, settings: Path | None, draws: Sequence[int]) -> None:
    """settings: of other data, whose grids lie beside it, in the folder ``GRIDS``."""
    changes = params.read_changes(root, settings, str(settings)) if settings else {}
    asked = grids(root, settings, changes) if settings else searched()
    cells = tuning_cells(root, settings=changes, draws=draws)
    ran = swept("tune", cells, root, jobs, part=PREPARED)
    folders = {label(cell): Path(ran.said[cell.name]["folder"]) for cell in cells}
    told = {}
    for one in asked:
        key = identity(root, one.name, one, cells, 0)
        study = Study(root / FOLDER / "tune-results" / "study.db", key, one.distributions, 0)
        study.run(judge_in(folders, one.entry, jobs), EVERY, AT_ONCE, lambda: None)
        told[one.name] = [(trial.candidate, trial.outcome.found) for trial in study.told()]
    tried = tables.candidates(folders, told)
    name = settings.stem if settings else str(params.section(root, "split.dataset"))
    target = root / "docs" / f"tuning-{name}.md"
    command = ["python -m flows.documents tune", *(["--with", str(settings)] if settings else [])]
    command += ["--draws", *map(str, draws)] if draws else []
    said = " ".join(command) if command[1:] else "make tune"
    artifacts.write_text(target, tables.tuning_page(tried, said))
    artifacts.write_table(target.with_suffix(".csv"), tried)
    print(f"best candidates: {json.dumps(tables.best(tried), indent=1)}\nwritten to {target}")


def searched() -> list[Asked]:
    """Every method that names what is searched, as it is and in its variants."""
    every = unlearn.entries()
    having = {n: e for n, e in every.items() if spaces.named(e["method"])}
    return [Asked.of(n, e, spaces.default(e["method"])) for n, e in having.items()]


def grids(root: Path, settings: Path, changes: dict[str, Any]) -> list[Asked]:
    """Of the file beside ``settings``. Raises ParameterError for an entry that the settings lack,
    and a parameter or value that its method does not take."""
    file = settings.parent / GRIDS / settings.name
    entries = params.changed(params.read(root), changes)["unlearn"]
    found = []
    for name, space in params.read_file(file, str(file), "entries of unlearn").items():
        if name not in entries:
            raise params.ParameterError(f"{file}: {settings} has no entry unlearn.{name}")
        if not isinstance(space, dict) or not all(isinstance(v, list) for v in space.values()):
            raise params.ParameterError(
                f"{file}: {name} must be a mapping of parameters to lists of values, got {space!r}"
            )
        found.append(Asked.of(name, entries[name], space))
    return found


def main() -> None:
    parser = calling.parser("flows.documents", __doc__)
    parser.add_argument("command", choices=("table", "tune", "metrics"))
    parser.add_argument(
        "--shipped", action="store_true", help="table: the methods of params.yaml, not all"
    )
    parser.add_argument(
        "--tuned", type=Path, help="table: a CSV that tune wrote; the best by scenario is taken"
    )
    parser.add_argument(
        "--with", type=Path, dest="settings", help="a YAML file of dotted path: value"
    )
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=REPORTED, help="table: of training and methods"
    )
    parser.add_argument(
        "--fraction", type=float, help="table: of the training samples, or subjects, to forget"
    )
    parser.add_argument(
        "--draws", nargs="+", type=int, default=[], help="tune: data.seed of data that are drawn"
    )
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
                    seeds=arguments.seeds,
                    fraction=arguments.fraction,
                    tuned=arguments.tuned,
                )
            else:
                tune(root, arguments.jobs, settings=arguments.settings, draws=arguments.draws)
    except EXPLAINED as error:
        where = calling.with_file(arguments.settings)
        sys.exit(f"{arguments.command} failed{where}: {error}")


if __name__ == "__main__":
    main()
