"""What a second worker brings to a sweep, on this machine.

    make bench                              writes docs/workers.md
    python -m benchmarks.workers --cells 1  fewer cells; likewise

A server, a DVC remote, a clone that runs the sweep and clones with a worker of the pool gpu each,
all on one host. Networks are so small that a cell is mostly start, end and transfer of its stages.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep

import httpx

from benchmarks.orchestration import PREFECT, clone, run, seconds, server
from flows.running.children import end
from tasks.files import artifacts
from tasks.pages import tables
from tasks.starting import calling

CELLS = 2
IN_FLIGHT = 2
WORKERS = (1, 2)
SWEEP = """
import sys
from flows.sweep import sweep
name, seeds = sys.argv[1], [int(seed) for seed in sys.argv[2:]]
sweep(name=name, seeds=seeds, in_flight={in_flight}, jobs=1, pools=True)
"""


def prepare(root: Path, top: Path) -> tuple[Path, list[Path]]:
    """A clone that runs the sweep, and one for each worker, with one DVC remote."""
    here, workers = top / "here", [top / f"worker-{number}" for number in range(max(WORKERS))]
    clone(root, here, entries=("nothing",))
    run(
        [sys.executable, "-m", "tasks.graph", "remote", "add", "-d", "x", str(top / "remote")],
        here,
    )
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark"]
    run(["git", *identity, "commit", "-qam", "small parameters and a remote"], here)
    for folder in workers:
        run(["git", "clone", "-q", str(here), str(folder)], top)
    return here, workers


@contextmanager
def working(folders: list[Path], address: dict[str, str]) -> Iterator[None]:
    """A worker of the pool gpu in each folder, once the server has heard of them."""
    processes = [
        subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", "gpu", "--limit", "1", "--name", folder.name],
            cwd=folder,
            env={**os.environ, **address, "IMU_CLONE": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        for folder in folders
    ]
    try:
        while not {folder.name for folder in folders} <= online(address["PREFECT_API_URL"]):
            if ended := [p.returncode for p in processes if p.poll() is not None]:
                raise SystemExit(f"a worker ended with {ended[0]} before it was online")
            sleep(0.5)
        yield
    finally:
        end(processes)


def online(api: str) -> set[str]:
    found = httpx.post(f"{api}/work_pools/gpu/workers/filter", json={}).raise_for_status().json()
    return {worker["name"] for worker in found if worker["status"] == "ONLINE"}


def main() -> None:
    parser = calling.parser("benchmarks.workers", __doc__)
    parser.add_argument("--cells", type=int, default=CELLS, help="of each sweep")
    cells = parser.parse_args().cells
    root, took = Path.cwd(), {}
    with tempfile.TemporaryDirectory() as name:
        here, folders = prepare(root, Path(name))
        with server(here) as (address, _):
            run([sys.executable, "-m", "flows.deploy"], here, **address)
            run([PREFECT, "--no-prompt", "deploy", "--all"], here, **address)
            # What runs first pays for cold caches: a first turn with all workers is overwritten.
            for turn, count in enumerate([max(WORKERS), *WORKERS]):
                # Seeds that no sweep had before: nothing but the split can be restored.
                seeds = [str(100 * turn + number) for number in range(cells)]
                call = ["-c", SWEEP.format(in_flight=IN_FLIGHT), f"workers-{turn}", *seeds]
                with working(folders[:count], address):
                    took[count] = seconds(call, here, **address)
    lines = [
        "# Workers\n",
        tables.provenance("make bench"),
        f"A sweep of {cells} cells on digits, networks of width 4, 2 epochs: hardly any work. "
        f"{IN_FLIGHT} cells at a time; workers of the pool gpu take a stage at a time. The server, "
        f"the sweep and all workers share the {os.cpu_count()} cores of one host: a second worker "
        "adds no machine. One run each, after one that is not counted.\n",
        "| workers | seconds | cells per hour |",
        "| --- | --- | --- |",
        *(f"| {n} | {took[n]:.0f} | {3600 * cells / took[n]:.0f} |" for n in WORKERS),
        "",
        f"Two workers do {took[1] / took[2]:.2f} times as many cells per hour as one.\n",
    ]
    artifacts.write_text(root / "docs" / "workers.md", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
