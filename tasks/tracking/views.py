"""Pages of MLflow that are prepared: tables and charts of models, which a link opens for everyone.

MLflow's page stores what a reader shares in a tag of the experiment, and opens it by the tag's key;
with a name it also stands in the page's menu *Views*. Here such tags are written.

    models of one run     one table for each run of the pipeline, a sweep or a search
    Latest run            the same, of the last run of the pipeline
    Over all runs         models grouped by name and forget set, with means over seeds
    Pipelines             one row for each run of the pipeline, with its best model
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from imu import verdicts
from tasks.files import params
from tasks.pages import findings, lineup, summary
from tasks.pages.plain import PLAIN
from tasks.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

    from tasks.files.workspace import Workspace

TAG = "mlflow.sharedViewState."  # and a key
LATEST, OVER_ALL, PIPELINES = "latest", "over-all", "pipelines"
ORIGINAL = "original"
# Tag `kind` of a model, in the order of the table.
KINDS = {
    "method": "method",
    "with_retain": "method with retain set",
    "baseline": "baseline",
    "reference": "reference",
    "retrained": "retrained",
    ORIGINAL: ORIGINAL,
}
COLOUR = "mlflow.runColor"
# What methods are held against is grey or light blue in tables and charts; methods differ.
AGAIN, GREY, PALE = "#56b4e9", "#8b9299", "#b9bec3"
COMPARED = {"reference": AGAIN, "retrained": AGAIN, "baseline": GREY, ORIGINAL: PALE}
COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7b3fa0", "#8c564b", "#c2185b")
OUTCOMES = tuple(reversed(verdicts.OUTCOMES))  # the best first
WORK = summary.WORK
# The gap has a membership attack in it, which flips where a class is forgotten whole.
LEFT_OUT = ("gap", findings.WORK, findings.TIME)
COLUMNS = (*(name for name in findings.HEADLINE if name not in LEFT_OUT), "U_LiRA", WORK)
# Beside that of retrained models: the first there is.
BARS = ("relearn_auc", "KL_relearn", "dAP_forget", "dP_forget", "JSD_unseen")
# What a model says against what it keeps.
APART = (
    *(("TV", "probe_1"), ("mAP_forget", "mAP_retain")),
    *(("dP_forget", "relearn_P"), ("KL_forget", "KL_retain")),
)
HOW_TO_READ = (
    "Rows of an earlier run are told of on the page of that run (*Pipelines*). "
    "Each row, bar or dot is a model. *reference* was retrained without the forgotten samples; "
    "the other *retrained* ones (light blue) have other seeds: how far they lie from it is chance. "
    "*masked only*: it answers like a model that forgot, but what was to be forgotten is inside."
)
OURS = "**Last run.** "  # so begins a description of the experiment that is not a person's
COURSE = ("curve/forget_accuracy", "curve/retain_accuracy")
WIDTHS = {  # pixels
    "tags.`verdict`": 130,
    "tags.`best`": 120,
    "tags.`best.verdict`": 130,
    "tags.`changed`": 200,
}
NAME = "attributes.`Run Name`"  # takes a width only where it has a place in the order


class Look(NamedTuple):
    """Of a model's run: its kind, its colour in tables and charts, and what it was to forget."""

    kind: str
    colour: str
    forget: str


def kinds(workspace: "Workspace") -> dict[str, str]:
    """Producer -> kind of its model."""
    found = {row.producer: row.kind for row in lineup.rows(workspace)}
    retrained = params.section(workspace.root, "retrain")  # no rows where nothing is retrained
    return {"train": ORIGINAL, **{f"retrain/{name}": "retrained" for name in retrained}, **found}


def looks(kinds: Mapping[str, str], forget: str) -> dict[str, Look]:
    """Of each producer. Retrained models share a colour, so that they are seen as what is chance.

    kinds: of ``kinds``. forget: in words.
    """
    methods = [producer for producer, kind in kinds.items() if kind in findings.METHODS]
    own = dict(zip(methods, cycle(COLOURS), strict=False))
    return {
        producer: Look(
            kind, own.get(producer) or COMPARED[kind], "" if kind == ORIGINAL else forget
        )
        for producer, kind in kinds.items()
    }


def place(kind: str, outcome: str, work: float) -> dict[str, str]:
    """Tags by which models sort: by kind, then verdict, then cost.

    work: in % of that of retraining; 0 where nothing was updated.
    """
    known = OUTCOMES.index(outcome) if outcome in OUTCOMES else len(OUTCOMES)
    order = f"{list(KINDS).index(kind)} {known} {work:09.2f}"
    return {"kind": KINDS[kind], "order": order}


def best(models: "Iterable[Run]") -> "Run | None":
    """The method with the best verdict, and of those the cheapest; None without methods."""
    methods = [run for run in models if run.data.tags["kind"].startswith(KINDS["method"])]
    return min(methods, key=lambda run: run.data.tags["order"].split(" ", 1)[1], default=None)


def accepted(model: "Run") -> bool:
    """Whether it is a method's, and passed tests that neither a mask nor the original passes."""
    tags = model.data.tags
    method = tags["kind"].startswith(KINDS["method"])
    return method and tags.get("verdict") == "indistinguishable"


def columns(models: "Iterable[Run]") -> list[str]:
    """Metrics of the table: the headline of the report, as far as it was measured."""
    measured = {name for run in models for name in run.data.metrics}
    return [name for name in COLUMNS if name in measured]


def of_models(query: str, metrics: Sequence[str], *, grouped: bool = False) -> dict[str, Any]:
    """State of a table and of charts of the models that ``query`` finds.

    grouped: one row per name and forget set, with means of its runs.
    """
    group = {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": name} for name in ("model", "forget")],
    }
    tags = ("verdict",) if grouped else ()  # a model's run has it in its name
    return _table(query, tags, metrics, name=330 if grouped else 300, sort="tags.`order`") | {
        "runsHiddenMode": "SHOW_ALL",
        "groupBy": group if grouped else None,
        "hideEmptyCharts": True,
        "isAccordionReordered": True,  # sections stay in this order
        "compareRunSections": [
            _section("prepared", "Best near light blue", shown=True),
            _section("course", "curve"),
            _section("metrics", "Model metrics"),
            _section("system", "System metrics"),
        ],
        "compareRunCharts": _charts(metrics),
    }


def of_pipelines(metrics: Sequence[str]) -> dict[str, Any]:
    """State of a table of pipelines, with the numbers of the best model of each."""
    return _table(
        "tags.`imu.kind` = 'pipeline'",
        ("best", "best.verdict", "changed"),
        ["n_forget", *(f"best/{name}" for name in metrics)],
        name=330,
        sort="attributes.start_time",
        ascending=False,
    )


def share(store: Store, key: str, state: dict[str, Any], name: str = "") -> str:
    """Store a view under ``key``; returns the path that opens it. name: in the menu, "" for not."""
    text = json.dumps(state, separators=(",", ":"))
    if name:
        now = int(time.time() * 1000)
        text = json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": text})
    with store.reaching():
        store.client.set_experiment_tag(store.experiment, TAG + key, text)
    return path(store, key)


def path(store: Store, key: str, *, charts: bool = False) -> str:
    mode = "&compareRunsMode=CHART" if charts else ""
    runs = f"/#/experiments/{store.experiment}/runs?workflowType=machine_learning"
    return f"{runs}&viewStateShareKey={key}{mode}"


def sentences(
    workspace: "Workspace", compared: findings.Compared, models: "Sequence[Run]"
) -> list[str]:
    """The result, the best model first."""
    lines, chosen = findings.headlines(compared, findings.findings(compared)), best(models)
    if chosen is None or not compared.retrained:
        return lines
    model, words = chosen.data.tags["model"], chosen.data.tags["verdict.words"]
    file = workspace.model(f"unlearn/{model}").relative_to(workspace.root)
    if accepted(chosen):
        work = chosen.data.metrics.get(WORK)
        less = f", with {summary.said(WORK, work)} of the work of retraining" if work else ""
        first = f"Use **{model}** (`{file}`): {words}{less}."
    else:
        left = workspace.model("retrain/reference").relative_to(workspace.root)
        outcome = chosen.data.tags["verdict"]
        first = f"Use the retrained model (`{left}`): {summary.unaccepted(outcome)}."
        if outcome not in (findings.FAILED, findings.UNCHANGED):
            first += f" The nearest: **{model}** (`{file}`), {words}."
    alone = f"{words[0].upper()}{words[1:]}: {model}."
    return [first, *(line for line in lines if line != alone)]


def note(store: Store, run: str, said: Sequence[str], answers: Sequence[str]) -> str:
    """What the page of a pipeline shows first, in Markdown.

    said: of ``sentences``. answers: on the best method.
    """
    pages = (path(store, run), path(store, run, charts=True), store.link(run, "report.html"))
    table, charts, report = (page.removeprefix("/") for page in pages)
    links = f"[Table]({table}) · [Charts]({charts}) · [Report]({report})"
    found = f"{' '.join(said)} Evidence, not a guarantee."
    return "\n\n".join([links, found, *(["\n".join(answers)] if answers else [])])


def describe(store: Store, title: str, said: str, columns: Sequence[str]) -> None:
    """Say above MLflow's tables and charts what the last run found, and how they are read.

    title: of the run, with what changed. said: of ``note``. columns: metrics that are explained.
    A description that somebody has written is left alone.
    """
    means = [f"*{column}* {PLAIN[column]}" for column in columns if column in PLAIN]
    name = "mlflow.note.content"
    with store.reaching():
        tags = store.client.get_experiment(store.experiment).tags
        if tags.get(name, OURS).startswith(OURS):
            pages = {"Pipelines": PIPELINES, "All runs": OVER_ALL}
            more = [
                f"[{name}]({path(store, key).removeprefix('/')})" for name, key in pages.items()
            ]
            links, _, found = said.partition("\n\n")  # folded, the page shows one line
            plain = title.replace("`", "'")  # code, in which names of classes are no Markdown
            first = f"`{plain}`: {found}\n\n{' · '.join([links, *more])}"
            text = f"{OURS}{first}\n\n{HOW_TO_READ}\n\n{'; '.join(means)}; all: `docs/metrics.md`."
            store.client.set_experiment_tag(store.experiment, name, text)


def difference(now: dict[str, Any], before: dict[str, str]) -> str:
    """What changed in ``params.yaml``, in a few words; "again" where nothing did.

    before: as MLflow holds it, flat and as text.
    """
    flat = {name: str(value) for name, value in params.flattened(now).items()}
    said, hidden = [], set()
    for section in ("unlearn", "retrain"):
        old, new = (_entries(content, section) for content in (before, flat))
        said += [f"with {name}" for name in sorted(new - old)]
        said += [f"without {name}" for name in sorted(old - new)]
        hidden |= {f"{section}.{name}" for name in old ^ new}
    said += [
        f"{name} {flat.get(name, 'absent')}"
        for name in sorted(flat.keys() | before.keys())
        if flat.get(name) != before.get(name) and ".".join(name.split(".")[:2]) not in hidden
    ]
    more = [f"{len(said) - 2} more"] if len(said) > 2 else []
    return ", ".join(said[:2] + more) or "again"


def _entries(flat: Iterable[str], section: str) -> set[str]:
    return {name.split(".")[1] for name in flat if name.startswith(f"{section}.")}


def _table(
    query: str,
    tags: Sequence[str],
    metrics: Sequence[str],
    *,
    name: int,
    sort: str,
    ascending: bool = True,
) -> dict[str, Any]:
    """name: width of the column of names, in pixels."""
    shown = [f"tags.`{tag}`" for tag in tags] + [f"metrics.`{metric}`" for metric in metrics]
    widths = {
        column: WIDTHS.get(column, max(76, 26 + 8 * len(said)))
        for column, said in zip(shown, [*tags, *metrics], strict=True)
    }
    return {
        "searchFilter": query,
        "orderByKey": sort,
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": shown,
        "columnOrder": [NAME, *shown],
        "columnWidths": {NAME: name, **widths},
    }


def _section(key: str, name: str, *, shown: bool = False) -> dict[str, Any]:
    """Charts of metrics that nobody prepared go into sections of these names, folded."""
    return {
        "uuid": key,
        "name": name,
        "display": shown,
        "columns": 2,
        "cardHeight": 360,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }


def _charts(metrics: Sequence[str]) -> list[dict[str, Any]]:
    bars = [name for name in BARS if name in metrics][:1]
    apart = [(x, y) for x, y in APART if x in metrics and y in metrics][:1]
    apart += [drawn] if (drawn := findings.picture(metrics)) else []
    made: list[dict[str, Any]] = [
        {"type": "BAR", "metricKey": name, "runsCountToCompare": 100} for name in bars
    ]
    made.append(
        {
            "type": "LINE",
            "metricKey": COURSE[0],
            "selectedMetricKeys": list(COURSE),
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "range": {},
            "lineSmoothness": 0,
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }
    )
    made += [
        {
            "type": "SCATTER",
            "xaxis": {"key": x, "type": "METRIC"},
            "yaxis": {"key": y, "type": "METRIC"},
            "runsCountToCompare": 100,
        }
        for x, y in apart
    ]
    shared = {"metricSectionId": "prepared", "deleted": False, "isGenerated": False}
    return [{"uuid": f"prepared-{number}", **shared, **chart} for number, chart in enumerate(made)]
