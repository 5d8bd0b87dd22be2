"""The page of a sweep, as the report: answers for each forget set first, and details folded."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tasks.pages import charts, findings, lineup, results, results_page, summary
from tasks.pages.results import RETRAINED, Scenario
from tasks.pages.summary import WORK, Column
from tasks.pages.tables import markdown
from tasks.pages.templates import environment

AGAIN = (lineup.REFERENCE, RETRAINED)


class Row(NamedTuple):
    """outcome: the gravest of the seeds, "" of the reference. verdicts: how often each."""

    model: str
    kind: str
    outcome: str
    verdicts: str
    cells: list[str]


class Part(NamedTuple):
    """One forget set. said: question -> the best method's numbers. figures: a line per metric of
    all models; panels: a line per model, a dot per seed."""

    title: str
    seeds: int
    power: list[str]
    best: str
    rows: list[Row]
    columns: list[Column]
    said: dict[str, str]
    figures: dict[str, list[charts.Panel]]
    panels: dict[str, list[charts.Panel]]


def parts(table: pd.DataFrame) -> list[Part]:
    """table: of ``results.collected``."""
    return [part(scenario) for scenario in results.scenarios(table)]


def page(of: Sequence[Part], name: str, failed: Mapping[str, str], text: str) -> str:
    """HTML that needs no network. failed: cell -> why.

    text: all numbers, Markdown, shown folded; HTML in it is shown as it is typed.
    """
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    template = environment(Path(__file__).parent).get_template("sweep.html.j2")
    return template.render(
        name=name, failed=failed, parts=of, questions=list(findings.QUESTIONS), body=body
    )


def short(of: Sequence[Part]) -> str:
    """The table of each forget set in Markdown, the best method first."""
    lines = []
    for one in of:
        rows = [[row.model, row.verdicts, *row.cells] for row in one.rows]
        header = ["model", "verdicts", *(column.header for column in one.columns)]
        lines += [f"## {one.title} ({one.seeds} seed{'s' if one.seeds > 1 else ''})\n"]
        lines += [f"**{line}**\n" for line in one.power]
        lines += [markdown(pd.DataFrame(rows, columns=header))]
        means = "; ".join(f"*{column.name}* {column.plain}" for column in one.columns)
        lines += [f"Mean ± standard deviation over the seeds; *2/3*: in two of three. {means}.\n"]
    return "\n".join(lines)


def part(scenario: Scenario) -> Part:
    kinds = scenario.rows.groupby("model")["kind"].first().to_dict()
    again = [model for model in AGAIN if model in scenario.models]
    columns = summary.explained(
        scenario.values.keys(), class_wise=scenario.class_wise, retrained=bool(again)
    )
    work = _work(scenario, kinds)
    numbers = {c.name: work if c.name == WORK else scenario.values[c.name] for c in columns}
    methods = sorted(scenario.methods, key=lambda model: _order(scenario, model, work[model]))
    others = [m for m in scenario.models if m not in methods and m not in again]
    order = [*methods, *others, *reversed(again)]
    looks = dict.fromkeys(methods, "other") | dict.fromkeys(others, "baseline")
    looks |= dict.fromkeys(again, "again") | dict.fromkeys(methods[:1], "best")
    texts = {
        c.name: {m: _text(scenario, c.name, numbers[c.name], m) for m in order} for c in columns
    }
    figures: dict[str, list[charts.Panel]] = {q: [] for q in findings.QUESTIONS}
    panels: dict[str, list[charts.Panel]] = {q: [] for q in findings.QUESTIONS}
    for column in columns:
        said, of = texts[column.name], numbers[column.name]
        level, varies = _retraining(column, of)
        means = {m: {f"{m}: {said[m]}": float(of[m].mean())} for m in order}
        figures[column.question].append(charts.measured(column, means, looks, None, level, varies))
        each = {
            m: {
                f"{m}, seed {seed}: {summary.printed(column.name, v)}": v
                for seed, v in of[m].items()
            }
            for m in order
        }
        panels[column.question].append(charts.measured(column, each, looks, said, level, varies))
    return Part(
        title=scenario.title,
        seeds=scenario.seeds,
        power=[line.strip().replace("**", "") for line in results_page.power(scenario)],
        best=methods[0] if methods else "",
        rows=[
            Row(
                model,
                str(kinds[model]),
                *_verdicts(scenario, model),
                [texts[column.name][model] for column in columns],
            )
            for model in order
        ],
        columns=columns,
        said=_said(columns, numbers, methods[0]) if methods else {},
        figures=figures,
        panels=panels,
    )


def _work(scenario: Scenario, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Seeds × models: in % of that of retraining."""
    models = scenario.models
    saved = scenario.values.get(findings.WORK, pd.DataFrame(columns=models, dtype=float))
    work = (100 / saved).reindex(index=sorted(scenario.rows["seed"].unique()), columns=models)
    for model in models:
        if kinds[model] not in ("reference", "retrained"):
            work[model] = work[model].fillna(0.0).where(scenario.left_a_model(model))
    return work


def _text(scenario: Scenario, name: str, numbers: pd.DataFrame, model: str) -> str:
    """Mean ± deviation over the seeds, as the tables below have it."""
    if name != WORK:
        return results_page.spread(scenario, name, model)
    known = numbers[model].dropna()
    if known.empty:
        return "–"
    return f"{known.mean():.2f}" + (f" ± {known.std():.2f}" if len(known) > 1 else "")


def _retraining(column: Column, of: pd.DataFrame) -> tuple[float | None, float | None]:
    """The reference's mean; and how far retraining lies from that in the worst seed."""
    about = findings.about().get(column.name)
    if about is None or lineup.REFERENCE not in of:
        return None, None
    relative = about.aim == "reference"
    level = float(of[lineup.REFERENCE].mean()) if relative else None
    if RETRAINED not in of or of[RETRAINED].isna().all():
        return level, None
    apart = of[RETRAINED] - of[lineup.REFERENCE] if relative else of[RETRAINED]
    return level, float(apart.abs().max())


def _outcomes(scenario: Scenario, model: str) -> list[findings.Outcome]:
    found = scenario.rows.loc[scenario.rows["model"] == model, "verdict"].dropna()
    return found.tolist()


def _order(scenario: Scenario, model: str, work: pd.Series) -> tuple[int, float]:
    """By the verdicts of all seeds, then by work."""
    ranks = sum(findings.RANKS.index(outcome) for outcome in _outcomes(scenario, model))
    mean = float(work.mean())
    return ranks, math.inf if math.isnan(mean) else mean


def _verdicts(scenario: Scenario, model: str) -> tuple[str, str]:
    found = _outcomes(scenario, model)
    gravest = max(found, key=findings.RANKS.index, default="")
    counted = results_page.counted(scenario.rows.loc[scenario.rows["model"] == model, "verdict"])
    return gravest, counted if found else ""


def _said(
    columns: Sequence[Column], numbers: Mapping[str, pd.DataFrame], best: str
) -> dict[str, str]:
    """Question -> the numbers of the best method, and of the reference, in a sentence."""
    lines: dict[str, list[str]] = {question: [] for question in findings.QUESTIONS}
    for column in columns:
        of = numbers[column.name]
        if math.isnan(mean := float(of[best].mean())):
            continue
        line = f"{column.plain} {summary.said(column.name, mean)}"
        if column.name == WORK:
            line = f"{summary.said(WORK, mean)} of the work of retraining"
        level, varies = _retraining(column, of)
        if level is not None:
            line += f" (retrained {summary.said(column.name, level)})"
        elif varies is not None:
            line += f" (other seeds {summary.said(column.name, varies)})"
        lines[column.question].append(line)
    said = {question: ", ".join(of) for question, of in lines.items()}
    return {question: f"{text[0].upper()}{text[1:]}." for question, text in said.items() if text}
