"""A warm start for stages: one process imports the heavy libraries once and forks per stage.

Importing torch, MLflow and scikit-learn takes 4–10 s of CPU, most of the time of a small stage.
``python -m tasks.starting.warm DESCRIPTOR`` imports them, then forks a child for every
``python -m tasks`` (or ``tasks.graph``) in a folder whose ``.dvc/tmp/warm`` leads to its socket.
The child takes over the caller's arguments, environment, folder and standard streams, imports this
project's code fresh, and its exit status is handed back. Only third-party libraries are preloaded,
so an edited stage is never stale; nothing else differs from a cold start. DVC is unaware of it.

Ends of life: a signal to the caller reaches the child; when the caller dies the child gets
SIGTERM; when the server dies so do its children, and the server dies with the flow.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
from pathlib import Path

from tasks.starting.ending import FAILED, KILLED, end_with_parent

LINK = Path(".dvc", "tmp", "warm")  # in a workspace: leads to the socket of a server, if one runs
PRELOADED = (
    "torch",
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "safetensors.torch",
    "sklearn.model_selection",
    "sklearn.svm",
    "dvc.cli",
    "dvc.repo",
    "dvc.stage",
    "scmrepo.git",
    "jinja2",
    "psutil",
    "pydantic.dataclasses",
    "ruamel.yaml",
)


def start(module: str, arguments: list[str]) -> int:
    """Run ``main`` of a module with ``arguments``, warm where a server listens, else in here.

    Returns its exit status.
    """
    end_with_parent()
    status = _call(module, arguments)
    if status is not None and status - 128 in {*signal.Signals}:
        name = signal.Signals(status - 128).name
        print(f"{' '.join(arguments)}{FAILED}{KILLED} {name}", file=sys.stderr, flush=True)
    return _main(module, arguments) if status is None else status


def _main(module: str, arguments: list[str]) -> int:
    return int(importlib.import_module(module).main(arguments))


def _call(module: str, arguments: list[str]) -> int | None:
    """The exit status of a child of the server; None when no server listens at ``LINK``."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(LINK))
        except (FileNotFoundError, ConnectionRefusedError, PermissionError):
            return None
        if _owner(connection) != os.getuid():
            return None  # what is sent holds the whole environment
        request = {
            "module": module,
            "arguments": arguments,
            "cwd": os.getcwd(),
            "environment": dict(os.environ),
        }
        content = json.dumps(request).encode()
        try:
            socket.send_fds(connection, [len(content).to_bytes(8, "big")], [0, 1, 2])
            connection.sendall(content)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: connection.sendall(b"t"))
            status = connection.recv(8)
        except (ConnectionResetError, BrokenPipeError):
            status = b""
        end_with_parent()  # its handler does not need the connection
    if not status:
        print("the process that runs stages ended before this one", file=sys.stderr)
        return 1
    return int(status)


def _owner(connection: socket.socket) -> int:
    """Id of the user whose process listens at the other end."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return int(user)


def serve(listener: socket.socket) -> None:
    """Fork a child for every caller of ``listener`` until this process is ended."""
    for name in PRELOADED:
        importlib.import_module(name)
    if threading.active_count() != 1:
        raise RuntimeError(f"a preloaded library started threads: {threading.enumerate()}")
    gc.freeze()
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    children: dict[int, socket.socket] = {}
    while True:
        for key, _ in ready.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                child = _fork(connection, listener)
                if child:
                    children[child] = connection
                    ready.register(connection, selectors.EVENT_READ, ("caller", child))
                    ready.register(os.pidfd_open(child), selectors.EVENT_READ, ("child", child))
                continue
            kind, child = key.data
            if child not in children:
                continue  # it ended in the same moment
            if kind == "caller":
                # A byte means that the caller got a signal, none that it is gone.
                if not children[child].recv(1):
                    ready.unregister(children[child])
                os.kill(child, signal.SIGTERM)
            else:
                ready.unregister(key.fileobj)
                os.close(key.fd)
                connection = children.pop(child)
                _reply(connection, os.waitpid(child, 0)[1])
                if connection in ready.get_map():
                    ready.unregister(connection)
                connection.close()


def _fork(connection: socket.socket, listener: socket.socket) -> int:
    """Pid of the child in the server; the child itself never returns."""
    try:
        length, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
        content = b""
        while len(content) < int.from_bytes(length, "big"):
            part = connection.recv(1 << 16)
            if not part:
                raise ConnectionResetError("the caller is gone")
            content += part
    except OSError:
        connection.close()
        return 0
    child = os.fork()
    if child:
        for descriptor in descriptors:
            os.close(descriptor)
        return child
    status = 1
    try:
        listener.close()
        connection.close()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        status = _run(json.loads(content))
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(request: dict[str, object]) -> int:
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update({str(k): str(v) for k, v in dict(request["environment"]).items()})  # type: ignore[call-overload]
    sys.path[0] = str(request["cwd"])
    for name in [name for name in sys.modules if name.split(".")[0] in ("imu", "tasks")]:
        del sys.modules[name]
    arguments = [str(part) for part in request["arguments"]]  # type: ignore[attr-defined]
    module = str(request["module"])
    sys.argv = [module.removesuffix(".__main__"), *arguments]
    return _main(module, arguments)


def _reply(connection: socket.socket, status: int) -> None:
    try:
        code = os.waitstatus_to_exitcode(status)
        connection.sendall(str(128 - code if code < 0 else code).encode())
    except OSError:
        pass  # the caller is gone; nobody is left to tell


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit()
    end_with_parent()
    # Libraries that count their objects at exit would list what gc.freeze keeps.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    serve(socket.socket(fileno=int(sys.argv[1])))
