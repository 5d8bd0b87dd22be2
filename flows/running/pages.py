"""What a run leaves on its page in Prefect: verdicts, links and what became of stages."""

import json
import os
import re
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.running.failures import UnchangedError
from tasks import report
from tasks.files import params
from tasks.files.workspace import BASELINES, Workspace
from tasks.pages import lineup, summary
from tasks.pages.plain import PLAIN
from tasks.tracking.tracker import Page

UNWANTED = "imu.verdicts.unwanted"  # the event that automations wait for


def leave(folder: Path, outcomes: dict[str, str], page: Page, *, whole: bool, wanted: str) -> None:
    """whole: the report was made. wanted: the verdict that methods are to have; "" for any."""
    said = _leave_result(Workspace(folder), page) if whole else {}
    if not whole:
        create_link_artifact(mlflow_link(page), link_text="MLflow run", key="mlflow")
    create_table_artifact(
        [{"stage": name, "outcome": outcome} for name, outcome in outcomes.items()],
        key="stages",
        description="What became of each stage",
    )
    methods = _methods(folder)
    others = [
        f"{model}: {verdict['words']}"
        for model, verdict in said.items()
        if model in methods and verdict["outcome"] != wanted
    ]
    if wanted and others:
        tell(others, wanted)


def answer(page: Page) -> str:
    """The result in one sentence, as plain text; "" of a part of a pipeline."""
    return re.split(r"(?<=\.) ", re.sub("[*`]", "", page.said))[0]


def _leave_result(workspace: Workspace, page: Page) -> dict[str, dict[str, Any]]:
    """In the log and as the first artifact; returns the verdicts."""
    said = report.read_verdicts(workspace)
    models = mlflow_link(page, page.comparison)
    get_run_logger().info(f"{re.sub('[*`]', '', page.said)} All models: {models}")
    create_markdown_artifact(
        f"{page.said} Evidence from the tests that were made, not a guarantee.\n\n"
        f"{result(workspace, said, page)}",
        key="result",
        description=f"{answer(page)} Of {page.name}",
    )
    return said


def changed(folder: Path, model: str) -> None:
    """Raises UnchangedError when the method left the model as it was."""
    said = json.loads((folder / "runs" / "report" / "verdicts.json").read_text())[model]
    if said["outcome"] == "unchanged":
        raise UnchangedError(f"{model} is {said['words']}; {said['decided'][0]}")


def tell(others: list[str], wanted: str) -> None:
    """Send the event that automations wait for: methods with other verdicts than ``wanted``."""
    emit_event(
        UNWANTED,
        resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.id}"},
        payload={
            "said": f"{flow_run.name}: wanted {wanted}, got " + "; ".join(others),
            "wanted": wanted,
            "verdicts": others,
        },
    )


def result(workspace: Workspace, said: dict[str, Any], page: Page) -> str:
    """Where to read on, the report's table and what decided, in Markdown.

    said: the verdicts, the best method first, as the report has them.
    """
    compared = lineup.compared(workspace, lineup.table(workspace))
    columns = summary.columns(compared)
    outcomes = {model: verdict["outcome"] for model, verdict in said.items()}
    lines = [
        ["model, verdict", *(column.name for column in columns)],
        ["---", *("---:" for _ in columns)],
        # In one cell, so that the page is wide enough for all numbers.
        *(
            [f"**{model}**<br>{verdict}", *cells]
            for model, verdict, *cells in summary.lines(compared, outcomes)
        ),
    ]
    links = {
        "Table of models": page.comparison,
        "charts": page.charts,
        "report": page.report,
        "run": page.link,
    }
    named = " · ".join(f"[{text}]({mlflow_link(page, path)})" for text, path in links.items())
    meanings = {column.header: column.plain for column in columns}
    shown = {column.name for column in columns}
    for verdict in said.values():
        tests = {line.split()[0] for line in verdict["decided"]} - shown
        meanings |= {test: PLAIN[test] for test in sorted(tests) if test in PLAIN}
    decided = [
        f"- {model}: {verdict['words']} ({'; '.join(verdict['decided'])})"
        for model, verdict in said.items()
    ]
    return "\n".join(
        [
            *summary.told(compared),
            f"\nIn MLflow: {named}. Report: `{workspace.runs / 'report' / 'report.html'}`\n",
            *(f"| {' | '.join(line)} |" for line in lines),
            f"\n{'; '.join(f'*{name}* {plain}' for name, plain in meanings.items())}.",
            "\nWhat decided, by its distance from the reference, and how much of it is allowed:\n",
            *decided,
        ]
    )


def _methods(folder: Path) -> list[str]:
    """Entries that unlearn: the baselines are there to be beaten."""
    return [
        name
        for name, entry in params.section(folder, "unlearn").items()
        if entry["method"] not in BASELINES
    ]


def mlflow_link(page: Page, path: str = "") -> str:
    """Address of a path in MLflow's page; "" for that of the run."""
    here = f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}"  # of `make mlflow`
    base = page.uri if page.uri.startswith("http") else here
    return base.rstrip("/") + (path or page.link)
