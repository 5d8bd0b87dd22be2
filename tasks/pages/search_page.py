"""The page of a search: the best candidate, every trial, and what stands in ``params.yaml``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any

import pandas as pd

from tasks.files import params
from tasks.pages.tables import markdown, provenance


@dataclass(frozen=True, kw_only=True)
class Searched:
    """entry: of ``params.yaml``, without the candidates' values. space: in words, by parameter.

    cells: label -> what is forgotten there. trials: ``number``, ``candidate``, ``gap`` (None
    where it failed), ``gaps`` by cell, ``failure``. present: likewise, of what stands in
    ``params.yaml`` now. edges, importances: by parameter; see
    ``flows.searching``.
    """

    name: str
    entry_name: str
    entry: dict[str, Any]
    space: dict[str, str]
    cells: dict[str, str]
    trials: Sequence[Mapping[str, Any]]
    present: Mapping[str, Any]
    importances: dict[str, float]
    edges: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The trial with the smallest gap, of equals the first; None where all failed."""
        left = [trial for trial in self.trials if not trial["failure"]]
        return min(left, key=lambda trial: trial["gap"]) if left else None


def page(searched: Searched, command: str) -> str:
    """Markdown."""
    cells = ", ".join(f"{label} ({forget})" for label, forget in searched.cells.items())
    space = "".join(f"- `{path}`: {words}\n" for path, words in searched.space.items())
    parts = [
        f"# Search “{searched.name}”: {searched.entry_name}\n",
        provenance(command),
        f"Cells, named by scenario and seed: {cells}. The seed is that of training, split and "
        "request; no page of results uses any of these seeds. A candidate is judged by its gap: "
        "a mean distance in points to its cell's retrained reference on the forget set, the retain "
        "set and the validation set: of accuracies, those of forgotten classes apart, or of texts "
        "of the probability of the true answers, of all and of each one. Test samples are not "
        "looked at. The best candidate has the smallest mean gap over "
        "the cells, and failed in none.\n",
        f"Searched:\n\n{space}",
        "## Best\n",
        *_best(searched),
    ]
    if searched.importances:
        shares = [
            {"parameter": path, "share": f"{share:.2f}"}
            for path, share in searched.importances.items()
        ]
        parts += [
            "## Importance\n",
            "Share of the gap's variance over the trials that a parameter explains (fANOVA).\n",
            markdown(pd.DataFrame(shares)),
        ]
    shown = table(searched).sort_values("gap", kind="stable").map(_shown)
    parts += ["## Trials\n", markdown(shown.drop(columns="failure"))]
    if failed := [trial for trial in searched.trials if trial["failure"]]:
        lines = "".join(f"- trial {trial['number']}: {trial['failure']}\n" for trial in failed)
        parts += ["## Candidates that failed\n", lines]
    return "\n".join(parts)


def table(searched: Searched) -> pd.DataFrame:
    """One row per trial: its number, parameters, gap, the gap in each cell, failure."""
    rows = [
        {
            "trial": trial["number"],
            **trial["candidate"],
            "gap": trial["gap"],
            **{cell: trial["gaps"].get(cell) for cell in searched.cells},
            "failure": trial["failure"],
        }
        for trial in searched.trials
    ]
    return pd.DataFrame(rows)


def _best(searched: Searched) -> list[str]:
    best, present = searched.best, searched.present
    now = f"it failed ({present['failure']})" if present["failure"] else f"gap {present['gap']:.2f}"
    stands = f"What stands in `params.yaml` now, `{_words(present['candidate'])}`: {now}.\n"
    if best is None:
        return ["Every candidate failed.\n", stands]
    better = present["failure"] or best["gap"] < present["gap"]
    parts = [
        f"Trial {best['number']}, `{_words(best['candidate'])}`: gap {best['gap']:.2f}.\n",
        stands,
        *(
            f"`{path}` lies at the {edge} edge of what was tried: a wider space may hold a better "
            "candidate.\n"
            for path, edge in searched.edges.items()
        ),
    ]
    if not better:
        return [*parts, "No candidate is better than what stands there.\n"]
    changes = {f"{searched.entry_name}.{path}": v for path, v in best["candidate"].items()}
    entry = params.changed({searched.entry_name: searched.entry}, changes)
    lines = indent(params.block({"unlearn": entry}), "    ")
    return [*parts, f"For `params.yaml`:\n\n{lines}"]


def _words(candidate: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {_shown(value)}" for path, value in candidate.items())


def _shown(value: Any) -> str:
    if value is None or value != value:
        return "failed"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
