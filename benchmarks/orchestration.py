"""What Prefect costs over plain ``dvc repro``, on this machine.

    make bench                             writes docs/orchestration.md
    python -m benchmarks.orchestration

Runs in a clone of its own, with networks so small that stages are mostly start and end. Every way
computes all stages by force, in turn; afterwards every way finds nothing to do.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import httpx
import psutil
from ruamel.yaml import YAML

from flows.running.children import end
from tasks.files import artifacts, params
from tasks.pages import tables
from tasks.starting import calling

ROUNDS = 2
PREFECT = str(Path(sys.executable).with_name("prefect"))
SMALL = {
    "train.epochs": 2,
    "network.width": 4,
    "snapshots": 2,
    "retrain": {"reference": {"seed_offset": 0}, "retrain_2": {"seed_offset": 1000}},
}
ENTRIES = ("nothing", "logit_mask", "imu")
PLAIN = "`dvc repro`"
FLOW = ["-m", "flows.pipeline", "--jobs"]
# Way -> command, and whether it talks to a server that runs already.
WAYS = {
    PLAIN: (["-m", "tasks.graph", "repro"], False),
    "flow, one stage at a time": ([*FLOW, "1"], False),
    "flow, two stages at a time": ([*FLOW, "2"], False),
    "the same, with a server that runs": ([*FLOW, "2"], True),
}


def clone(root: Path, folder: Path, entries: tuple[str, ...] = ENTRIES) -> None:
    """A clone with small parameters, some entries of methods, its data and both databases."""
    run(["git", "clone", "-q", str(root), str(folder)], root)
    content = params.read(folder)
    small = {**SMALL, "unlearn": {name: content["unlearn"][name] for name in entries}}
    with (folder / params.FILE).open("w") as file:
        YAML(typ="safe").dump(params.changed(content, small), file)
    python = [sys.executable, "-m", "tasks"]
    run([*python, "data"], folder)
    run([*python, "store"], folder)
    run([PREFECT, "server", "database", "upgrade", "-y"], folder)


def run(command: list[str], folder: Path, **environment: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}")


def seconds(command: list[str], folder: Path, **environment: str) -> float:
    begin = perf_counter()
    run([sys.executable, *command], folder, **environment)
    return perf_counter() - begin


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def server(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[], float]]]:
    """A Prefect server: the environment that names it, and its resident memory in MB."""
    port = str(free_port())
    environment = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "flows.running.sqlite", "server", "start"),
            *("--host", "127.0.0.1", "--port", port),
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )

    def memory() -> float:
        top = psutil.Process(process.pid)
        return sum(p.memory_info().rss for p in [top, *top.children(recursive=True)]) / 1e6

    try:
        while True:
            try:
                httpx.get(f"{environment['PREFECT_API_URL']}/health").raise_for_status()
                break
            except httpx.HTTPError:
                sleep(0.2)
        yield environment, memory
    finally:
        end([process])


def main() -> None:
    calling.parser("benchmarks.orchestration", __doc__).parse_args()
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "clone"
        clone(root, folder)
        # What ran once is in the caches of the system.
        run([sys.executable, "-m", "tasks.graph", "repro", "-q"], folder)
        stages = len(YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"])
        with server(folder) as (address, memory):
            sleep(10)
            idle = memory()
            forced: dict[str, tuple[float, ...]] = dict.fromkeys(WAYS, ())
            nothing: dict[str, tuple[float, ...]] = dict.fromkeys(WAYS, ())
            for _ in range(ROUNDS):
                for way, (command, served) in WAYS.items():
                    environment = address if served else {}
                    forced[way] += (seconds([*command, "--force"], folder, **environment),)
                    nothing[way] += (seconds(command, folder, **environment),)
            busy = memory()
    base = median(forced[PLAIN])
    lines = [
        "# Orchestration\n",
        tables.provenance("make bench"),
        f"{os.cpu_count()} cores; {stages} stages on digits, networks of width 4, 2 epochs: hardly "
        f"any work. Every way in turn, {ROUNDS} times: median of seconds (smallest to largest). "
        "Stages of a flow start warm (docs/startup.md), those of `dvc repro` cold, so that a flow "
        "can be faster than DVC alone.\n",
        "| way | all stages by force | per stage, over `dvc repro` | nothing to do |",
        "| --- | --- | --- | --- |",
        *(
            f"| {way} | {spread(forced[way])} | {(median(forced[way]) - base) / stages:+.2f} | "
            f"{spread(nothing[way])} |"
            for way in WAYS
        ),
        "",
        f"Prefect's server with SQLite holds {idle:.0f} MB when it has started and {busy:.0f} MB "
        f"after {2 * ROUNDS} runs.\n",
    ]
    artifacts.write_text(root / "docs" / "orchestration.md", "\n".join(lines))
    print("\n".join(lines))


def spread(values: tuple[float, ...]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
