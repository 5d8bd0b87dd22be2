"""Cells in which parameters are chosen: no page reports their seeds, splits and classes."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from prefect import get_run_logger

from flows.running.cells import Cell
from flows.running.children import Children
from tasks import tune
from tasks.files import artifacts, params
from tasks.files.workspace import baselines

FIRST_SEED = 100  # of everything in the cells of the first class; the next class has the next seed
CLASSES = ("1", "3", "5")
SCENARIOS = ("class", "fraction")  # a file names the same samples whatever the seed is
KNOWN = (*SCENARIOS, "group")  # of other samples too, where only a share of all is used
PREPARED = ("influence", "retrain@reference")  # stages that candidates need, with all before them
REPORTED = "split.by_class.classes"
DRAW = "data.seed"
SCENARIO = "split.scenario"
SET_HERE = ("seed", "split.seed", "split.by_fraction.seed")


class Outcome(NamedTuple):
    """Of a candidate. found: by cell, what ``tasks.tune.asked`` wrote of it there."""

    found: dict[str, dict[str, Any]]

    @property
    def gaps(self) -> dict[str, float | None]:
        """By cell, None where it failed."""
        return {cell: here["gap"] for cell, here in self.found.items()}

    @property
    def failure(self) -> str:
        """Where it failed and why; "" where it did in no cell."""
        failed = {cell: here["failure"] for cell, here in self.found.items() if here["failure"]}
        return "; ".join(f"{cell}: {why}" for cell, why in failed.items())

    @property
    def gap(self) -> float | None:
        """Mean over the cells; None where the candidate failed in one."""
        values = [gap for gap in self.gaps.values() if gap is not None]
        return None if self.failure else sum(values) / len(values)


# What becomes of candidates, in their order.
Judge = Callable[[Sequence[dict[str, Any]]], list[Outcome]]


def tuning_cells(
    root: Path,
    scenarios: Sequence[str] = SCENARIOS,
    classes: Sequence[str] = CLASSES,
    settings: dict[str, Any] | None = None,
    commit: str = "",
    draws: Sequence[int] = (),
) -> list[Cell]:
    """Other training seeds, splits and forget sets than any that are reported.

    draws: of data that are drawn from a seed, ``data.seed`` of as many cells of each; none: one,
    with the data of ``params.yaml``. settings: parameters that differ from ``params.yaml``, by
    dotted path, in every cell; where they have a scenario it is the only one. Entries of
    ``unlearn`` are left out: ``tasks.tune`` is told what to try. Raises ParameterError for what
    cannot be changed, a class or a draw that is reported, and the same one twice.
    """
    settings = settings or {}
    if SCENARIO in settings:
        scenarios = (settings[SCENARIO],)
    _check(root, scenarios, classes, settings, draws)
    trivial = baselines(params.section(root, "unlearn"))
    of_cells = {path: settings[path] for path in settings if path.split(".")[0] != "unlearn"}
    cells = [
        Cell(
            name=f"tuning · {scenario} · seed {seed}"
            + "".join(f" · data {draw}" for draw in drawn.values()),
            changes={
                **of_cells,
                "seed": seed,
                "split.seed": seed,
                "split.by_fraction.seed": seed,
                REPORTED: [forgotten],
                SCENARIO: scenario,
                "unlearn": trivial,
                **drawn,
            },
            commit=commit,
        )
        for scenario in scenarios
        for drawn in ([{DRAW: draw} for draw in draws] or [{}])
        for seed, forgotten in enumerate(classes, FIRST_SEED)
    ]
    for cell in cells:
        params.changed(params.read(root), cell.changes)
    return cells


def label(cell: Cell) -> str:
    """Such as "class/100": scenario and seed; and ``data.seed`` where the cells differ in it."""
    found = (cell.changes.get(name) for name in (SCENARIO, "seed", DRAW))
    return "/".join(str(value) for value in found if value is not None)


def in_every_cell(
    folders: Sequence[Path], arguments: list[str], jobs: int, say: Callable[[str], None]
) -> None:
    """Run ``python -m tasks`` in each folder, ``jobs`` at a time."""
    cells = [Children(folder) for folder in folders]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(lambda children: children.run(arguments, say), cells))
        except BaseException:  # the pool would wait for cells that nobody wants any more
            for children in cells:
                children.end_all()
            raise


def judge_in(folders: dict[str, Path], entry: dict[str, Any], jobs: int) -> Judge:
    """Tries candidates in every cell, ``jobs`` cells at a time. folders: label of a cell -> it."""
    log = get_run_logger()

    def judge(candidates: Sequence[dict[str, Any]]) -> list[Outcome]:
        asked = Path("runs", "tune", "asked.json")
        for folder in folders.values():
            artifacts.write_json(folder / asked, {"entry": entry, "candidates": [*candidates]})
        in_every_cell([*folders.values()], ["tune", str(asked)], jobs, log.debug)
        rows = {
            cell: artifacts.read_json(tune.answer(folder / asked))
            for cell, folder in folders.items()
        }
        found = []
        for number, candidate in enumerate(candidates):
            found.append(Outcome({cell: rows[cell][number] for cell in rows}))
            log.info(f"{json.dumps(candidate)}: {found[-1].failure or found[-1].gap}")
        return found

    return judge


def _check(
    root: Path,
    scenarios: Sequence[str],
    classes: Sequence[str],
    settings: dict[str, Any],
    draws: Sequence[int],
) -> None:
    if taken := sorted(settings.keys() & {*SET_HERE, *([DRAW] if draws else [])}):
        raise params.ParameterError(f"settings must not have {taken[0]!r}: the tuning cells set it")
    for name, given in (("scenarios", scenarios), ("classes", classes), ("draws", draws)):
        if not given and name != "draws":
            raise params.ParameterError(f"{name} must name at least one")
        if twice := sorted({value for value in given if list(given).count(value) > 1}):
            raise params.ParameterError(f"{name} name {twice[0]!r} twice")
    if unknown := [scenario for scenario in scenarios if scenario not in KNOWN]:
        raise params.ParameterError(f"scenarios must be of {', '.join(KNOWN)}, got {unknown[0]!r}")
    reported = settings.get(REPORTED, params.section(root, REPORTED))
    if shared := sorted({*classes} & {*reported}):
        raise params.ParameterError(
            f"classes must not have {shared[0]!r}: {REPORTED} has it, and what is reported "
            "must not choose parameters"
        )
    if (reported := params.section(root, DRAW)) in draws:
        raise params.ParameterError(
            f"draws must not have {reported!r}: {DRAW} has it, and what is reported must not "
            "choose parameters"
        )
    if not settings.get("original.retrain", params.section(root, "original.retrain")):
        raise params.ParameterError(
            "candidates are judged against a reference: original.retrain must be true"
        )
