"""What a stage costs besides what it computes: its start, and DVC.

Cold start against warm start (``tasks.warm``); DVC as it is against DVC as runs call it, which
reads and writes one entry of dvc.lock in place of all (``tasks.graph.lockfile``).

    make bench        after `make run`; writes docs/startup.md

Both ways run the same stage in turn, in one session, logging to a store of their own. Reported are
seconds and their ratio, pair by pair, and the seconds of each import in a process of its own.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

from flows.running.children import warm
from tasks.files import artifacts
from tasks.graph import lineage
from tasks.pages import tables

PAIRS = 7
STAGE = ("evaluate", "unlearn/imu")
SMALLEST = "unlearn@nothing"
IMPORTS = (
    "numpy",
    "pandas",
    "torch",
    "torchvision",
    "sklearn.svm",
    "mlflow",
    "prefect",
    "dvc.repo",
)


def seconds(command: list[str], **environment: str) -> float:
    begin = perf_counter()
    subprocess.run(
        command, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL
    )
    return perf_counter() - begin


def spread(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def main() -> None:
    root = Path.cwd()
    if not (root / "runs" / "unlearn" / "imu").is_dir():
        sys.exit("there are no results to work on: type `make run` first")
    stages = len(lineage.locked_keys(root))
    stage = [sys.executable, "-m", "tasks", *STAGE]
    with tempfile.TemporaryDirectory() as folder, warm(root) as environment:
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        seconds(stage, **store, **environment)  # the first one waits for the imports
        pairs = [
            (seconds(stage, **store), seconds(stage, **store, **environment)) for _ in range(PAIRS)
        ]
        repro = ["repro", "--single-item", "--force", SMALLEST]
        ways = (["dvc", *repro], [sys.executable, "-m", "tasks", "dvc", *repro])
        tracked = [tuple(seconds(way, **store) for way in ways) for _ in range(PAIRS)]
    imports = {name: [seconds([sys.executable, "-c", f"import {name}"])] for name in IMPORTS}
    for name, values in imports.items():
        values += [seconds([sys.executable, "-c", f"import {name}"]) for _ in range(2)]
    cold, hot = zip(*pairs, strict=True)
    whole, by_entry = zip(*tracked, strict=True)
    lines = [
        "# Start-up\n",
        tables.provenance("make bench"),
        f"The stage `{' '.join(STAGE)}`, whole process, {PAIRS} pairs run in turn; seconds, mean ± "
        "sample standard deviation.\n",
        "| start | seconds |\n| --- | --- |",
        f"| cold | {spread(list(cold))} |",
        f"| warm | {spread(list(hot))} |",
        f"| ratio cold / warm | {spread([c / w for c, w in pairs])} |\n",
        f"`dvc repro` of the stage `{SMALLEST}` alone, which computes next to nothing, in this "
        f"repository, whose `dvc.lock` has {stages} stages: both cold, {PAIRS} pairs.\n",
        "| `dvc.lock` | seconds |\n| --- | --- |",
        f"| read and written whole, as DVC does | {spread(list(whole))} |",
        f"| one entry, as runs do | {spread(list(by_entry))} |",
        f"| difference | {spread([w - e for w, e in tracked])} |\n",
        "One import in a fresh process, Python's own start included, 3 runs:\n",
        "| import | seconds |\n| --- | --- |",
        *(f"| {name} | {spread(values)} |" for name, values in imports.items()),
    ]
    artifacts.write_text(root / "docs" / "startup.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
