"""Child processes of a flow: their lines are passed on, and none outlives the flow."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from weakref import WeakSet

from tasks.starting.ending import FAILED, KILLED
from tasks.starting.warm import LINK

GRACE = 5.0  # seconds between SIGTERM and SIGKILL


_LIVING: "WeakSet[Children]" = WeakSet()


class ChildError(RuntimeError):
    """A child process failed; the message ends with its last lines."""


class Children:
    """All running children of one flow. ``end_all`` ends them with everything they started.

    also: called by ``end_all`` first.
    """

    def __init__(self, root: Path):
        self.root = root
        self.also: list[Callable[[], None]] = []
        _LIVING.add(self)
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.closed = False

    def dvc(self, arguments: list[str], line: Callable[[str], None]) -> None:
        """Run DVC, as ``run`` does."""
        self.run(["--wait-for-lock", *arguments], line, module="tasks.graph")

    def run(
        self,
        arguments: list[str],
        line: Callable[[str], None],
        *,
        module: str = "tasks",
        allowed: Collection[int] = (0,),
    ) -> int:
        """Run ``python -m tasks`` with ``arguments``, handing every line to ``line``.

        The child leads a session of its own and asks the kernel for SIGTERM when its parent dies
        (``tasks.starting``), so no kill of the flow leaves a writer behind. Returns the exit
        status; raises ChildError when it is none of ``allowed``.
        """
        with self._lock:
            if self.closed:
                raise ChildError("the flow is being stopped")
            child = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.root,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(child)
        lines = []
        try:
            assert child.stdout is not None
            with child.stdout:
                for text in child.stdout:
                    lines.append(text.rstrip())
                    line(lines[-1])
            status = child.wait()
        except BaseException:
            end([child])
            raise
        finally:
            with self._lock:
                self._running.discard(child)
        if status not in allowed:
            raise ChildError(reason(lines) or f"{' '.join(arguments)}: status {status}")
        return status

    def end_all(self) -> None:
        """End every child; none is started any more."""
        with self._lock:
            self.closed = True
            running = list(self._running)
        try:
            for call in self.also:
                call()
        finally:
            end(running)


def end_everything() -> None:
    """End the children of every flow in this process."""
    for children in list(_LIVING):
        children.end_all()


def reason(lines: list[str]) -> str:
    """Why a child failed: what it said last of a failure (``tasks.__main__``), else its end.

    Without its name, which whoever started it says. A process that a signal ended says nothing;
    DVC then has its status, such as -9.
    """
    for number in range(len(lines) - 1, -1, -1):
        if FAILED in lines[number]:
            said = [lines[number].split(FAILED, 1)[1], *lines[number + 1 :]]
            return "\n".join(line for line in said if line and not line.startswith("ERROR: "))
    if killed := re.search(r"exited with -(\d+)$", "\n".join(lines), re.MULTILINE):
        return f"{KILLED} {signal.Signals(int(killed[1])).name}"
    return "\n".join([line for line in lines if line][-5:])


def end(children: list[subprocess.Popen[str]]) -> None:
    """SIGTERM to the sessions of the children, SIGKILL to those that stay."""
    for child in children:
        _signal(child, signal.SIGTERM)
    deadline = monotonic() + GRACE
    while any(child.poll() is None for child in children) and monotonic() < deadline:
        sleep(0.05)
    for child in children:
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):  # ended in the meantime
        os.killpg(child.pid, number)


@contextmanager
def warm(root: Path) -> Iterator[None]:
    """Stages of the workspace ``root`` start warm in this block."""
    with starting(root) as address:
        lead(root, address)
        try:
            yield
        finally:
            (root / LINK).unlink(missing_ok=True)


@contextmanager
def warmed(root: Path, folder: Path | None = None) -> Iterator[None]:
    """Stages of ``folder`` (none: of ``root``) start warm, by the process of ``root`` if any.

    Cells share it.
    """
    with ExitStack() as stack:
        if not (root / LINK).exists():
            stack.enter_context(warm(root))
        if folder not in (None, root):
            lead(folder, (root / LINK).resolve())
            stack.callback((folder / LINK).unlink, missing_ok=True)
        yield


@contextmanager
def starting(root: Path) -> Iterator[Path]:
    """A process that starts stages warm (``tasks.starting.warm``): where its socket lies.

    That is a private folder of its own. If it ever ends, stages start cold.
    """
    with tempfile.TemporaryDirectory(prefix="imu-") as folder:
        address = Path(folder, "warm")
        with _opened(folder) as number, socket.socket(socket.AF_UNIX) as listener:
            # By its number: a socket takes no path of more than 107 characters.
            listener.bind(f"/proc/self/fd/{number}/{address.name}")
            listener.listen()  # from here on callers queue, long before the server is ready
            process = subprocess.Popen(
                [sys.executable, "-m", "tasks.starting.warm", str(listener.fileno())],
                cwd=root,
                pass_fds=[listener.fileno()],
                start_new_session=True,
                text=True,
            )
        try:
            yield address
        finally:
            end([process])


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    number = os.open(folder, os.O_RDONLY)
    try:
        yield number
    finally:
        os.close(number)


def lead(root: Path, address: Path) -> None:
    """Have stages of the workspace ``root`` find the process that starts them warm."""
    link = root / LINK
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(address)
