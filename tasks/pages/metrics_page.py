"""The page that explains every metric, from what the metrics say of themselves."""

from imu import metrics
from tasks.pages import findings

OBJECTIVES = {
    "classification": "Images",
    "identification": "People",
    "language": "Texts",
    "sequences": "Sequences",
}
INTRODUCTION = """# Metrics

Columns of the table of results, of the report, of `dvc metrics show` and of MLflow, by the names
that they have there. In MLflow `curve/...` is the course of a number over epochs or steps; those of
a pipeline's best model begin with `best/`, numbers of samples with `n_`. Written by
`python -m flows.documents metrics` from `imu/metrics`.
"""


def page() -> str:
    """Markdown: a table for each group of metrics, by kind of problem."""
    parts = [INTRODUCTION]
    for objective, title in OBJECTIVES.items():
        named = findings.explained([*metrics.about(objective), *findings.COSTS])
        parts.append(f"## {title}\n")
        for group, heading in findings.GROUPS.items():
            rows = [
                f"| `{column.name}` | {column.unit} | {column.aim} | {_cell(column.meaning)} |"
                for column in named
                if column.group == group
            ]
            if rows:
                head = "| name | unit | best at | meaning |\n|---|---|---|---|"
                parts.append(f"### {heading}\n\n{head}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
