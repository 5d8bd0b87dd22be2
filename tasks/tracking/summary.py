"""The run of a whole pipeline in MLflow: begun, completed with what was restored, summed up."""

import platform
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.graph import lineage
from tasks.tracking import times
from tasks.tracking.runs import Tracker
from tasks.tracking.stages import module_of, run_tags, token

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "prefect", "mlflow", "dvc")


def opened(workspace: Workspace) -> dict[str, str]:
    """Begin the pipeline run that IMU_PARENT names; where its page is in the MLflow UI.

    Evaluations of entries that are gone are removed first, before anything depends on them.
    """
    from tasks.pages import lineup

    lineup.prune(workspace)
    tracker = Tracker(workspace)
    return _page(workspace, tracker, tracker.parent(token()[0], run_tags(workspace)))


def closed(workspace: Workspace, status: str) -> dict[str, Any]:
    """End the pipeline run that IMU_PARENT names as FINISHED, FAILED or KILLED.

    PART: finished, though only some of its stages were wanted, so that there is no comparison.
    """
    tracker = Tracker(workspace)
    if status == "PART":
        keys = dict(lineage.locked_keys(workspace.root))
        parent = _with_restored(workspace, tracker, token()[0], keys)
        tracker.end(parent, "FINISHED")
        return _page(workspace, tracker, parent)
    if status == "FINISHED":
        page = _page(workspace, tracker, complete(workspace, tracker, token()[0]))
        keys = dict(lineage.locked_keys(workspace.root))
        return {**page, "results": results(workspace, tracker, keys)}
    parent = tracker.parent(token()[0], run_tags(workspace))
    tracker.end(parent, status)
    return _page(workspace, tracker, parent)


def grouped(workspace: Workspace, name: str, key: str = "") -> dict[str, str]:
    """Begin the run of a sweep, which the pipeline runs of its cells are nested below.

    key: of a search, whose run is taken up again where there is one.
    """
    tracker = Tracker(workspace)
    run = tracker.group(token()[0], name, run_tags(workspace), key)
    return {"run": run, "link": tracker.link(run), "uri": tracker.uri}


def group_ended(workspace: Workspace, run: str, status: str, files: list[Path]) -> None:
    """End the run of a sweep as FINISHED or FAILED, with its pages."""
    tracker = Tracker(workspace)
    tracker.summarise(run, {}, {}, {"": files})
    tracker.end(run, status)


def tried(workspace: Workspace, run: str, file: Path) -> None:
    """Log the trials of a search that its run does not have yet.

    file: JSON, a list of ``number``, ``candidate``, ``gap``, ``gaps`` by cell, and ``failure``.
    """
    tracker = Tracker(workspace)
    logged = tracker.trials(run)
    for trial in artifacts.read_json(file):
        if trial["number"] in logged:
            continue
        gaps = {f"gap/{cell}": gap for cell, gap in trial["gaps"].items() if gap is not None}
        gaps |= {} if trial["failure"] else {"gap": trial["gap"]}
        tracker.trial(run, token()[0], trial["number"], trial["candidate"], gaps, trial["failure"])


def complete(
    workspace: Workspace, tracker: Tracker, of: str, *, made: dict[str, str] | None = None
) -> str:
    """Close the pipeline run ``of`` as finished; restored stages appear in it with their results.

    made: keys of stages that are computed but not in ``dvc.lock`` yet. Returns the parent's id.
    """
    from tasks import report
    from tasks.pages import lineup

    keys = dict(lineage.locked_keys(workspace.root, made or {}))
    commands = lineage.commands(workspace.root)
    parent = _with_restored(workspace, tracker, of, keys)
    said = report.read_verdicts(workspace)
    stages = {row.model: row.stage for row in lineup.rows(workspace)}
    tracker.tell(
        parent,
        {
            stages[model]: {
                "verdict": verdict["words"],
                "verdict.decided": "; ".join(verdict["decided"]),
            }
            for model, verdict in said.items()
        },
        # A comparison shows names at the top, and tags at the very end.
        {
            stages[model]: f"{stages[model]} · {verdict['outcome']}"
            for model, verdict in said.items()
        },
    )
    tracker.summarise(
        parent,
        results(workspace, tracker, keys),
        {f"verdict.{model}": verdict["words"] for model, verdict in said.items()}
        | {"dvc.pipeline_key": lineage.pipeline_key({n: keys[n] for n in commands if n in keys})}
        | {"host": socket.gethostname(), "platform": platform.platform()}
        | {f"version.{package}": version(package) for package in PACKAGES}
        | {"mlflow.note.content": _note(workspace, tracker, parent)},
        {"": [workspace.root / "dvc.lock"] if made is None else []},
    )
    tracker.end(parent, "FINISHED")
    return parent


def _with_restored(workspace: Workspace, tracker: Tracker, of: str, keys: dict[str, str]) -> str:
    """Add the stages that were not computed to the pipeline run ``of``; returns its id."""
    commands = lineage.commands(workspace.root)
    parent = tracker.parent(of, run_tags(workspace))
    for name in tracker.missing(parent, [name for name in commands if name in keys]):
        stage, item = commands[name]
        original = tracker.computed(keys[name])
        tags = {"restored": "true"} | ({"restored.from": original.info.run_id} if original else {})
        extra, more = times.of_stage(workspace, tracker, name, item, keys)
        tracker.finish(
            tracker.begin(parent, of, name, run_tags(workspace) | tags),
            module_of(stage).record(workspace, item),
            key=keys[name],
            extra=extra,
            tags=more,
            files=original is None,
        )
    return parent


def results(workspace: Workspace, tracker: Tracker, keys: dict[str, str]) -> dict[str, float]:
    """Every evaluation that ``params.yaml`` names and that lies on disk, by "item/metric".

    What many networks say of an item is among them. RTE_time is added where the seconds of all
    stages behind it are known.
    """
    from tasks.pages import lineup

    found: dict[str, float] = {}
    for row in lineup.rows(workspace):
        evaluated = workspace.evaluation(row.producer)
        for folder in (evaluated, row.judged and workspace.per_sample(row.judged)):
            if folder and (folder / "metrics.json").is_file():
                values = artifacts.read_json(folder / "metrics.json")
                found |= {f"{row.model}/{k}": v for k, v in values.items()}
        if (evaluated / "metrics.json").is_file() and row.producer.startswith("unlearn/"):
            known = times.rte_time(workspace, tracker, row.model, keys)[0]
            found |= {f"{row.model}/{k}": v for k, v in known.items()}
    return found


def shown(workspace: Workspace) -> str:
    """The table of results as text, with the times that this store knows."""
    from tasks import report
    from tasks.pages import findings, lineup

    table = lineup.table(workspace)
    known = results(workspace, Tracker(workspace), dict(lineage.locked_keys(workspace.root)))
    table[findings.TIME] = [known.get(f"{model}/{findings.TIME}") for model in table["model"]]
    return report.text(table, report.outcomes(workspace))


def _note(workspace: Workspace, tracker: Tracker, parent: str) -> str:
    """What the run's page says first: verdicts, the table, and all models side by side."""
    from tasks import report
    from tasks.pages import findings, lineup

    table = lineup.table(workspace)
    compared = lineup.compared(workspace, table)
    lines = findings.headlines(compared, findings.findings(compared))
    return (
        f"{' '.join(lines)}\n\n"
        f"[Compare all models]({tracker.comparison(parent, _evaluations(workspace))}) beside the "
        "*floor* (retrained with other seeds), *nothing* and *logit_mask*. A verdict is evidence "
        "from the tests that were made, not a guarantee."
        f"\n\n```\n{report.text(table, report.outcomes(workspace))}\n```"
    )


def _evaluations(workspace: Workspace) -> list[str]:
    """Stages that evaluate a model, in the order of the table."""
    from tasks.pages import lineup

    return [row.stage for row in lineup.rows(workspace)]


def _page(workspace: Workspace, tracker: Tracker, run: str) -> dict[str, str]:
    return {
        "run": run,
        "link": tracker.link(run),
        "comparison": tracker.comparison(run, _evaluations(workspace)),
        "uri": tracker.uri,
    }
