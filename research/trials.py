"""Ideas for deeper forgetting, each tried where no page of results looks.

``docs/research.yaml`` names the ideas, and the trials: data on which they are tried, in the cells
of ``flows.searching.tuning``. A trial leaves two tables, docs/research-<trial>.csv and
-accuracy-drop.csv; the page is made from all of them, and from the pages of results.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from flows.running.cells import Cell
from flows.searching.tuning import CLASSES, tuning_cells
from flows.sweep import swept
from research import accuracy_drop
from research import page as research_page
from tasks import unlearn
from tasks.files import artifacts, params
from tasks.pages import results

IDEAS = "docs/research.yaml"
# What the page does not show is not computed.
SMALL = {
    "snapshots": 2,
    "retrain": {"reference": {"seed_offset": 0}, "retrain_2": {"seed_offset": 1000}},
}
Scenario = Literal["class", "fraction"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    scenarios: tuple[Scenario, ...]
    settings: str = ""  # a file of parameters that differ from params.yaml, by dotted path
    classes: tuple[str, ...] = CLASSES  # one for each cell; none that is reported
    ideas: tuple[str, ...] = ()  # those that are tried; none named: all

    def __post_init__(self) -> None:
        if not self.scenarios:
            raise ValueError("scenarios must name at least one")

    def changes(self, root: Path) -> dict[str, Any]:
        if not self.settings:
            return {}
        return params.read_file(root / self.settings, self.settings, "dotted paths")


@dataclass(frozen=True, kw_only=True)
class Idea:
    why: str  # it might work
    entry: str  # a method, or a variant of one
    changes: dict[str, Any] = field(default_factory=dict)  # what differs from the entry
    scenarios: tuple[Scenario, ...] = ("class", "fraction")  # where it differs from other ideas

    def of_unlearn(self, where: str) -> dict[str, Any]:
        """The line that ``unlearn`` in ``params.yaml`` would have. Raises ParameterError."""
        entries = unlearn.entries()
        if self.entry not in entries:
            raise params.ParameterError(
                f"{where}.entry must be one of {', '.join(entries)}, got {self.entry!r}"
            )
        return params.changed(entries[self.entry], self.changes)


@dataclass(frozen=True, kw_only=True)
class Plan:
    trials: dict[str, Trial]
    ideas: dict[str, Idea]
    conclusions: tuple[str, ...]  # paragraphs by hand: no number is typed into a page


def read(root: Path) -> Plan:
    """``docs/research.yaml``. Raises ParameterError for what is not allowed there."""
    content = params.read_file(root / IDEAS, IDEAS, "trials, ideas and conclusions")
    if unknown := sorted(content.keys() - {"trials", "ideas", "conclusions"}):
        raise params.ParameterError(
            f"{IDEAS} must have trials, ideas and conclusions, got {unknown[0]!r}"
        )
    trials, ideas = _parsed(content, "trials", Trial), _parsed(content, "ideas", Idea)
    for name, trial in trials.items():
        if unknown := [idea for idea in trial.ideas if idea not in ideas]:
            raise params.ParameterError(
                f"{IDEAS}: trials.{name}.ideas must be of {', '.join(ideas)}, got {unknown[0]!r}"
            )
    said = content.get("conclusions")
    if not isinstance(said, list) or not all(isinstance(paragraph, str) for paragraph in said):
        raise params.ParameterError(
            f"{IDEAS}: conclusions must be a list of paragraphs, got {said!r}"
        )
    return Plan(trials=trials, ideas=ideas, conclusions=tuple(said))


def cells_of(root: Path, plan: Plan, trial: Trial) -> dict[str, list[Cell]]:
    """By scenario: the tuning cells of the trial, each with every idea that concerns it."""
    found: dict[str, list[Cell]] = {}
    for scenario in trial.scenarios:
        ideas = {
            name: idea.of_unlearn(f"{IDEAS}: ideas.{name}")
            for name, idea in plan.ideas.items()
            if scenario in idea.scenarios and (name in trial.ideas or not trial.ideas)
        }
        cells = tuning_cells(root, [scenario], trial.classes, trial.changes(root))
        found[scenario] = [
            replace(
                cell, changes=cell.changes | SMALL | {"unlearn": cell.changes["unlearn"] | ideas}
            )
            for cell in cells
        ]
    return found


def research(root: Path, jobs: int, names: Sequence[str]) -> None:
    """Try every idea in the trials ``names`` (none: in all), and write the page."""
    plan = read(root)
    if unknown := [name for name in names if name not in plan.trials]:
        raise params.ParameterError(
            f"trials must be of {', '.join(plan.trials)}, got {unknown[0]!r}"
        )
    asked = {
        name: cells_of(root, plan, trial)
        for name, trial in plan.trials.items()
        if name in names or not names
    }
    target = root / "docs" / "research.md"
    for name, cells in asked.items():
        ran = swept(f"research {name}", [c for of in cells.values() for c in of], root, jobs)
        folders = [Path(folder) for folder in ran.folders]
        tables = [
            results.collected({ran.said[c.name]["folder"]: ran.said[c.name] for c in of})
            for of in cells.values()
        ]
        artifacts.write_table(_table(root, name, "-accuracy-drop"), accuracy_drop.by_class(folders))
        artifacts.write_table(_table(root, name), pd.concat(tables, ignore_index=True))
        artifacts.write_text(target, page(root, plan))
        print(f"written to {target}")


def page(root: Path, plan: Plan) -> str:
    """Of the tables that are there, of trials and of results."""
    tried = {}
    for name in plan.trials:
        if _table(root, name).is_file():
            files = [_table(root, name, of) for of in ("-accuracy-drop", "-payers")]  # now; 0.1.0
            drops = next((artifacts.read_table(file) for file in files if file.is_file()), None)
            tried[name] = research_page.Tried(_collected(_table(root, name)), drops)
    judged = {}
    for path in sorted((root / "docs").glob("results-*.csv")):
        table = _collected(path)
        images = "gap" in table  # metrics of texts are others
        if images and (table["model"] == research_page.METHOD).any():
            judged[path.stem.removeprefix("results-")] = table
    why = {name: idea.why for name, idea in plan.ideas.items()}
    return research_page.page(tried, why, judged, plan.conclusions, "python -m research")


def _collected(path: Path) -> pd.DataFrame:
    """A table of ``results.collected``. Those of 0.1.0 say "floor" for what is retrained."""
    return artifacts.read_table(path).replace({"kind": {"floor": results.RETRAINED}})


def _table(root: Path, trial: str, of: str = "") -> Path:
    return root / "docs" / f"research-{trial}{of}.csv"


def _parsed(content: dict[str, Any], section: str, kind: type) -> dict[str, Any]:
    found = content.get(section)
    if not isinstance(found, dict) or not found:
        raise params.ParameterError(f"{IDEAS}: {section} must be a mapping, got {found!r}")
    return {
        name: params.parse(value, f"{section}.{name}", kind, file=IDEAS)
        for name, value in found.items()
    }
