"""What the report says first: four answers on two models, and every model in one line.

The lines are also the metrics that DVC shows: few columns, the same in the page and a terminal.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from imu import verdicts
from tasks.pages import findings
from tasks.pages.findings import Compared, Finding
from tasks.pages.plain import PLAIN

WORK = "work"  # in %, the inverse of ``findings.WORK``
# Said of a model that passes the tests of a question, and of one that fails one.
SAID = {
    "Did it forget?": ("Yes.", "No."),
    "What did it cost?": ("Within the limits.", "Too much."),
    "Can anyone tell?": ("Not by these tests.", "Yes."),
    "Would it come back?": ("Not by these tests.", "Yes."),
}
OURS = "this project's method"
POWER = ("Did it forget?", "Would it come back?")  # what the original model must fail
NARROW = "\N{NARROW NO-BREAK SPACE}"
NAMED = 2  # numbers in a sentence
Mark = Literal["good", "bad", "open"]


class Answer(NamedTuple):
    question: str
    mark: Mark
    word: str
    evidence: str


class Hero(NamedTuple):
    """A model that the page begins with, and why it does."""

    finding: Finding
    role: str
    answers: list[Answer]

    @property
    def file(self) -> str:
        """Where its model lies, in the workspace; "" where it left none."""
        left = self.finding.outcome != findings.FAILED
        return f"runs/unlearn/{self.finding.model}/model.safetensors" if left else ""


class Column(NamedTuple):
    name: str
    unit: str
    question: str
    plain: str
    meaning: str
    aim: str

    @property
    def header(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


class Cell(NamedTuple):
    text: str
    failed: bool
    title: str


class Row(NamedTuple):
    model: str
    kind: str
    outcome: str  # "" of the reference
    finding: Finding | None
    cells: list[Cell]


def heroes(compared: Compared, found: list[Finding], default: str | None) -> list[Hero]:
    """The method with the best verdict, the cheapest of equals; and the default, where it was run.

    default: its model. [] where no method was run. One where there are no verdicts.
    """
    by_name = {f.model: f for f in found}
    best = next((f for f in found if f.kind in findings.METHODS), None)
    if best is None:
        return []
    several = sum(f.kind in findings.METHODS for f in found) > 1
    chosen = [(best, "best verdict, the cheapest of equals" if several else "the only method")]
    if not compared.retrained:  # there is no verdict to choose by
        chosen = [(by_name[default], OURS) if default in by_name else (best, "a method")]
    elif default == best.model:
        chosen = [(best, f"best verdict, and {OURS}")]
    elif default in by_name:
        chosen.append((by_name[default], OURS))
    return [Hero(f, role, answers(compared, f)) for f, role in chosen]


def told(compared: Compared) -> list[str]:
    """The answers on the best method, a line each in Markdown; [] where no method was run."""
    best = heroes(compared, findings.findings(compared), None)[:1]
    return [f"- {a.question} **{a.word}** {a.evidence}" for hero in best for a in hero.answers]


def unaccepted(outcome: str) -> str:
    """Why retraining is to be used, where the best method has this outcome."""
    if outcome == "no evidence":
        return "the tests cannot show here that a method forgot"
    return "no method passed all tests"


def answers(compared: Compared, found: Finding) -> list[Answer]:
    return [_answer(compared, found, question) for question in findings.QUESTIONS]


def columns(compared: Compared) -> list[Column]:
    """What is shown of every model: few, and only what was measured."""
    measured = compared.table.columns[compared.table.notna().any()]
    return explained(measured, class_wise=compared.class_wise, retrained=compared.retrained)


def explained(measured: Collection[str], *, class_wise: bool, retrained: bool) -> list[Column]:
    shown = []
    for question, names in findings.QUESTIONS.items():
        for name in names:
            if name == findings.WORK and retrained:
                meaning = "work of the method, influence included, in FLOPs, of that of retraining"
                column = Column(WORK, "%", question, PLAIN[WORK], meaning, "0")
            elif name != findings.WORK and name in measured and tells(name, class_wise):
                (about,) = findings.explained([name])
                plain = PLAIN.get(name, about.meaning)
                column = Column(name, about.unit, question, plain, about.meaning, about.short)
            else:
                continue
            shown.append(column)
    return shown


def tells(name: str, class_wise: bool) -> bool:
    """Whether a metric tells anything: after class-wise forgetting MIA flips between 0 and 100."""
    return not (name == "MIA" and class_wise)


def rows(compared: Compared, found: list[Finding]) -> list[Row]:
    """Methods by verdict and cost, baselines, then what was retrained."""
    known = {f.model: f for f in found}
    others = [str(m) for m in compared.table.index if m not in known]
    lines = []
    for model in [*known, *others]:
        finding, kind = known.get(model), str(compared.table.loc[model, "kind"])
        cells = [_cell(compared, finding, model, column) for column in columns(compared)]
        lines.append(Row(model, kind, finding.outcome if finding else "", finding, cells))
    return lines


def lines(compared: Compared, outcomes: Mapping[str, str]) -> list[list[str]]:
    """Model, verdict and the columns as they are printed, of every model.

    outcomes: of the verdicts, the best method first; models that have none follow.
    """
    models = [*outcomes, *(str(m) for m in compared.table.index if m not in outcomes)]
    shown = columns(compared)
    return [
        [m, outcomes.get(m, ""), *(printed(c.name, value(compared, m, c.name)) for c in shown)]
        for m in models
    ]


def of_models(compared: Compared, found: list[Finding]) -> dict[str, dict[str, Any]]:
    """Model -> its verdict and the columns as they are printed; for ``dvc metrics show``."""
    shown = columns(compared)
    return {
        row.model: {"verdict": row.outcome or "reference"}
        | {
            column.name: float(cell.text)
            for column, cell in zip(shown, row.cells, strict=True)
            if cell.text
        }
        for row in rows(compared, found)
    }


def said(name: str, value: float) -> str:
    """A number in a sentence, with its unit."""
    unit = "%" if name == WORK else findings.about()[name].unit
    if unit in ("%", "points"):
        digits = f"{value:.2g}" if 0 < value < 0.1 else f"{value:.1f}"
        return f"{digits}{NARROW}{unit}"
    return f"{value:.2g} {unit}".rstrip()


def value(compared: Compared, model: str, name: str) -> float:
    """Of a column; NaN where it is absent."""
    if name != WORK:
        return compared.value(model, name)
    retrained = compared.table.loc[model, "kind"] in ("reference", "retrained")
    absent = retrained or model in compared.failures
    return math.nan if absent else findings.work(compared, model)


def printed(name: str, number: float) -> str:
    """As ``findings.shown``, of a column."""
    if name != WORK:
        return findings.shown(name, number)
    return "" if math.isnan(number) else f"{number:.2f}"


def _cell(compared: Compared, found: Finding | None, model: str, column: Column) -> Cell:
    text = printed(column.name, value(compared, model, column.name))
    if not text:
        return Cell("", False, f"{column.plain}: not measured")
    tests = [r for r in (found.results if found else []) if r.test.metric == column.name]
    lines = [f"{column.plain}: {text} {column.unit}".rstrip()]
    lines += [against(r) for r in tests]
    return Cell(text, any(r.failed for r in tests), "\n".join(lines))


def against(result: verdicts.Result) -> str:
    """What a test was, in a line: how far off the model is, and how far it may be."""
    name = result.test.metric
    side = {"above": "too high", "below": "too low", "apart": "off"}[result.test.side]
    is_distance = findings.about()[name].aim != "reference"
    retrained = "" if is_distance else f"reference {findings.shown(name, result.reference)}, "
    return (
        f"{retrained}{side} by {findings.shown(name, max(result.excess, 0.0))}, "
        f"allowed {findings.shown(name, result.allowed)}"
    )


def _answer(compared: Compared, found: Finding, question: str) -> Answer:
    if found.outcome == findings.FAILED:
        return Answer(question, "open", "No model.", found.decided[0])
    price = []
    if question == "What did it cost?" and compared.retrained:
        price = [f"{said(WORK, findings.work(compared, found.model))} of the work of retraining"]
    asked, results = findings.QUESTIONS[question], found.of(question)
    if not results:
        names = [n for n in asked if _known(compared, found.model, n)]
        values = [_value(compared, found.model, name) for name in names[:NAMED]]
        word = "Not judged." if values or not compared.retrained else "Not measured."
        return Answer(question, "open", word, _sentence([*values, *price]))
    failed = [r for r in results if r.failed]
    failed.sort(key=lambda r: (r.test.metric not in asked, -times(r)))
    good, bad = SAID[question]
    first = [n for n in asked if n in {r.test.metric for r in results}]
    names = list(dict.fromkeys([r.test.metric for r in failed] or first))[:NAMED]
    low = {r.test.metric for r in failed if r.test.side == "below"}
    # Where less may look better.
    less = ", less than retraining leaves" if question == "Can anyone tell?" else ""
    evidence = [
        _value(compared, found.model, name) + (less if name in low else "") for name in names
    ]
    evidence += price
    if failed:
        return Answer(question, "bad", bad, _sentence(evidence))
    unknown = [n for n in asked if n in _tested(compared) and n not in first]
    if unknown and not names:
        return Answer(question, "open", "Not measured.", _sentence(evidence))
    absent = ", ".join(PLAIN.get(name, name) for name in unknown)
    evidence += [f"not measured: {absent}"] if absent else []
    if question in POWER and {r.test.metric for r in results} <= set(findings.blind(compared)):
        word = "Not shown: doing nothing passes these tests too."
        return Answer(question, "open", word, _sentence(evidence))
    return Answer(question, "good", good, _sentence(evidence))


def _tested(compared: Compared) -> set[str]:
    """Metrics that the verdict would ask for here, and that are in this kind of table."""
    of_kind = (t for t in verdicts.CRITERIA if t.class_wise in (None, compared.class_wise))
    return {test.metric for test in of_kind if test.metric in compared.table}


def _value(compared: Compared, model: str, name: str) -> str:
    """A number of the model, and what it is held against."""
    line = f"{PLAIN.get(name, name)} {said(name, compared.value(model, name))}"
    if not compared.retrained:
        original = compared.nothing
        return line + (
            f" (original {said(name, compared.value(original, name))})" if original else ""
        )
    varies = compared.variability(name)
    if findings.about()[name].aim == "reference":
        return f"{line} (retrained {said(name, compared.value(compared.reference, name))})"
    return line if varies is None else f"{line} (other seeds {said(name, varies)})"


def _known(compared: Compared, model: str, name: str) -> bool:
    told = name in findings.about() and tells(name, compared.class_wise)
    return told and name in compared.values(model)


def _sentence(parts: list[str]) -> str:
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def times(result: verdicts.Result) -> float:
    """How far a model lies on the bad side, in units of what is allowed: above 1 it fails."""
    if result.excess <= 0:
        return 0.0
    return result.excess / result.allowed if result.allowed > 0 else float("inf")
