"""How long a run takes, and what a stage costs besides what it computes.

    make bench        writes docs/startup.md

The default run in a clone of its own, set up: everything, nothing to do, one method changed, and
all again by plain `dvc repro`. Then a stage that starts cold against one that starts warm
(``tasks.starting.warm``), in turn, in one session; and the seconds of each import in a process of
its own.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

from benchmarks.orchestration import PREFECT, run
from flows.running.children import warm
from tasks.files import artifacts
from tasks.graph import lock
from tasks.pages import tables
from tasks.starting import calling

PAIRS = 7
STAGE = ("evaluate", "unlearn/imu")
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
FLOW = [sys.executable, "-m", "flows.pipeline"]
CHANGE = ("step: 0.25", "step: 0.3")


def seconds(command: list[str], folder: Path) -> float:
    begin = perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - begin


def spread(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def runs(clone: Path) -> dict[str, float]:
    """Seconds of whole runs in a clone without results; it is left with all of them."""
    found = {"`make run`, everything": seconds(FLOW, clone)}
    found["`make run`, nothing to do"] = seconds(FLOW, clone)
    parameters = clone / "params.yaml"
    before = parameters.read_text()
    assert CHANGE[0] in before
    parameters.write_text(before.replace(*CHANGE))
    found["`make run`, one method changed"] = seconds(FLOW, clone)
    parameters.write_text(before)
    for left in (clone / "runs", clone / ".dvc" / "cache" / "runs"):
        shutil.rmtree(left)
    (clone / "dvc.lock").unlink()
    found["`dvc repro`, everything"] = seconds(["dvc", "repro", "-q"], clone)
    return found


def main() -> None:
    calling.parser("benchmarks.startup", __doc__).parse_args()
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "imu")
        run(["git", "clone", "-q", str(root), str(clone)], root)
        (clone / "dvc.lock").unlink()
        for command in (["data"], ["store"]):
            run([sys.executable, "-m", "tasks", *command], clone)
        run([PREFECT, "server", "database", "upgrade", "-y"], clone)
        whole = runs(clone)
        size, stages = (clone / "dvc.lock").stat().st_size, len(lock.locked_stages(clone))
        stage = [sys.executable, "-m", "tasks", *STAGE]
        cold, hot = [], []
        for _ in range(PAIRS):
            cold.append(seconds(stage, clone))
            with warm(clone):
                seconds(stage, clone)  # the first one waits for the imports
                hot.append(seconds(stage, clone))
    imports = {
        name: [seconds([sys.executable, "-c", f"import {name}"], root) for _ in range(3)]
        for name in IMPORTS
    }
    lines = [
        "# How long runs take\n",
        tables.provenance("make bench"),
        f"The default run in a fresh clone, set up; each once. {stages} stages, `dvc.lock` of "
        f"{size / 1000:.0f} KB.\n",
        "| run | seconds |\n| --- | --- |",
        *(f"| {name} | {value:.0f} |" for name, value in whole.items()),
        f"\nThe stage `{' '.join(STAGE)}`, whole process, {PAIRS} pairs run in turn; seconds, mean "
        "± sample standard deviation.\n",
        "| start | seconds |\n| --- | --- |",
        f"| cold | {spread(cold)} |",
        f"| warm | {spread(hot)} |",
        f"| ratio cold / warm | {spread([c / w for c, w in zip(cold, hot, strict=True)])} |\n",
        "One import in a fresh process, Python's own start included, 3 runs:\n",
        "| import | seconds |\n| --- | --- |",
        *(f"| {name} | {spread(values)} |" for name, values in imports.items()),
    ]
    artifacts.write_text(root / "docs" / "startup.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
