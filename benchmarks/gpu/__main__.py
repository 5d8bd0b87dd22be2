"""``python -m benchmarks.gpu``: starts the checks, one process each, and ends in time."""

import argparse
import faulthandler
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from time import time
from types import ModuleType

import sklearn.linear_model
import sklearn.model_selection
import sklearn.svm  # noqa: F401 - for the forks, see FORKING
import torch
import torchvision  # noqa: F401 - likewise

from benchmarks.gpu import BEGIN
from benchmarks.gpu.images import unpack
from benchmarks.gpu.lab import TINY, Lab, Record, Sizes, append, deterministic
from imu import discovery

ENDING = 5.0  # seconds kept for the end
GRACE = 3.0  # seconds that a check may be late
TOLD = 15  # lines of a log that stand in the results where a check failed
FATAL = "Fatal Python error"
REPOSITORY = Path(__file__).parents[2]
RESULTS = "results.jsonl"
MACHINE, UNPACKING = "machine", "unpacking"  # processes that are no checks
# Forks share what is imported, which takes longer than some checks. No device is in use here.
FORKING = get_context("fork")


def checks() -> dict[str, ModuleType]:
    found = [(name, discovery.load(f"{__package__}.checks", name)) for name in names()]
    return dict(sorted(found, key=lambda check: check[1].PLACE))


def names() -> tuple[str, ...]:
    return discovery.names(f"{__package__}.checks")


@dataclass(frozen=True)
class Started:
    """A process of its own group, whose output goes to a log."""

    name: str
    process: ForkProcess
    begin: float  # of ``time()``, as are all here
    log: Path

    def ended(self, until: float) -> Record:
        """How it ended; killed, with all that it started, if it does not in time."""
        self.process.join(max(0.0, until + GRACE - time()))
        late = self.process.is_alive()
        if late:
            self.kill()
        code = self.process.exitcode
        record: Record = {
            "check": self.name,
            "ended": "killed" if late else "failed" if code else "done",
            "seconds": time() - self.begin,
        }
        if late or code:
            record |= {"code": code, "log": told(self.log)}
        return record

    def kill(self) -> None:
        # At the first signal it tells where it is, see faulthandler; nothing survives the second.
        for send, sign in ((os.kill, signal.SIGABRT), (os.killpg, signal.SIGKILL)):
            with suppress(ProcessLookupError):
                send(self.process.pid or 0, sign)
            self.process.join(1.0)


def told(log: Path) -> list[str]:
    """The end of a log; where faulthandler wrote, the innermost calls, which come first."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = text.replace(f"{REPOSITORY}/", "").splitlines()
    fatal = [number for number, line in enumerate(lines) if line.startswith(FATAL)]
    return lines[fatal[-1] :][:TOLD] if fatal else lines[-TOLD:]


def start(name: str, out: Path, work: Callable[[], Iterable[Record]]) -> Started:
    """Run ``work``; each record is written as soon as it comes."""
    log = out / f"{name}.log"
    log.write_bytes(b"")

    def child() -> None:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file, stream.fileno())
        faulthandler.enable()
        for record in work():
            append(out / RESULTS, {"check": name, **record})
            print(record, flush=True)

    process = FORKING.Process(target=child)
    begin = time()
    process.start()
    return Started(name, process, begin, log)


def drive(options: argparse.Namespace, begin: float) -> None:
    results = options.out / RESULTS
    if results.exists():
        raise FileExistsError(f"{results} is there already: name another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    end = begin + 60 * options.minutes - ENDING
    chosen = {name: of for name, of in checks().items() if name in (options.only or names())}
    shares = sum(module.SHARE for module in chosen.values())
    scratch = Path(tempfile.mkdtemp(prefix="imu-gpu-"))
    running: list[Started] = []

    def begun(name: str, work: Callable[[], Iterable[Record]]) -> Started:
        running.append(start(name, options.out, work))
        return running[-1]

    def finish(process: Started, until: float) -> bool:
        ended = process.ended(until)
        append(results, ended)
        print({key: value for key, value in ended.items() if key != "log"}, flush=True)
        print("".join(f"    {line}\n" for line in ended.get("log", [])), end="", flush=True)
        return bool(ended["ended"] == "done")

    append(results, {"check": MACHINE, "what": "plan", "parts": plan()})
    try:
        if not finish(begun(MACHINE, lambda: [machine(options)]), end):
            raise SystemExit(f"there is no device {options.device!r} here")
        # Beside the first check, which needs no photographs.
        unpacking = begun(UNPACKING, lambda: [unpack(options.cifar, scratch)])
        until = begin
        for name, module in chosen.items():
            until += (end - begin) * module.SHARE / shares
            if module.PHOTOGRAPHS and unpacking in running:
                finish(unpacking, until)
                running.remove(unpacking)
            lab = Lab(
                device=torch.device(options.device),
                scratch=scratch,
                sizes=TINY if options.tiny else Sizes(),
                until=until,
                language=options.language or (),
            )
            finish(begun(name, partial(prepared, module, lab)), until)
    finally:
        for process in running:
            process.kill()
        shutil.rmtree(scratch, ignore_errors=True)


def prepared(module: ModuleType, lab: Lab) -> Iterator[Record]:
    deterministic(lab.device)
    yield from module.run(lab)


def machine(options: argparse.Namespace) -> Record:
    """What it is, packages, date, and how this was called."""
    device, memory = None, 0
    if options.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        device, memory = properties.name, properties.total_memory
    return {
        "what": "begin",
        "device": device,
        "memory": memory,
        "processor": processor(),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "torchvision", "scikit-learn")},
        "cuda": torch.version.cuda,
        "tiny": options.tiny,
        "minutes": options.minutes,
    }


def processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def plan() -> list[tuple[str, str, float, str]]:
    """Check, part, estimated seconds, and how they were estimated."""
    return [(name, *work) for name, module in checks().items() for work in module.plan()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="within which all ends")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    parser.add_argument("--cifar", type=Path, help="archive with train/<class>/<n>.jpg and test/")
    parser.add_argument(
        "--language",
        nargs="+",
        type=Path,
        help="archive with the folders smollm2 and tofu, in parts or a folder of parts",
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=names(), help="these checks alone")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to rehearse")
    parser.add_argument("--plan", action="store_true", help="print estimated times and end")
    options = parser.parse_args()
    if options.plan:
        for name, what, seconds, how in plan():
            print(f"{seconds:6.0f} s  {name}: {what} ({how})")
        print(f"{sum(part[2] for part in plan()):6.0f} s  all")
    else:
        drive(options, BEGIN)


if __name__ == "__main__":
    main()
