"""A server of Prefect for as long as a command runs, where none is configured.

It leads a session of its own, so that Ctrl-C reaches the flow and not the server that the flow
still has to tell; and it ends with the process that started it, however that ends.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import httpx
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_UI_URL,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Crashed
from prefect.utilities.urls import url_for

from flows.running.children import ChildError
from tasks.starting import calling

PATIENCE = 120.0  # seconds for a start on a busy machine
LAST_WORDS = 5.0  # seconds for logs and events that are still to be sent


def run_link(flow_run: str) -> str:
    """Address of a flow's run that is good later: a server that ends with this process leaves its
    database to the one that ``make prefect`` starts."""
    later = f"http://127.0.0.1:{os.environ.get('PREFECT_PORT', '4200')}"
    return str(url_for("flow-run", flow_run, default_base_url=later))


@contextmanager
def serving() -> Iterator[Callable[[], None]]:
    """Flows in this block report to a server; to be called before the first of them.

    What earlier commands left running in its database, killed as they were, is marked as crashed.
    Raises ChildError, with what the server said last, where it does not start.
    """
    if get_current_settings().api.url:
        yield lambda: None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    said = get_current_settings().home / "server.log"
    said.parent.mkdir(parents=True, exist_ok=True)
    with said.open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.running.server", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        # No link to a page that ends with this process.
        with temporary_settings({PREFECT_API_URL: url, PREFECT_UI_URL: ""}):
            yield lambda: _wait(server, url, said)
    finally:
        # What is not sent by now would be tried for a minute at this process's end.
        APILogWorker.drain_all(timeout=LAST_WORDS)
        EventsWorker.drain_all(timeout=LAST_WORDS)
        server.terminate()  # it writes down what it was told last; nobody waits for that


def _wait(server: "subprocess.Popen[str]", url: str, log: Path) -> None:
    deadline = monotonic() + PATIENCE
    with httpx.Client() as client:  # one for all: each reads the certificates
        while True:
            with suppress(httpx.HTTPError):
                client.get(f"{url}/health").raise_for_status()
                break
            ended = server.poll() is not None
            if ended or monotonic() > deadline:
                last = "\n".join(log.read_text().splitlines()[-5:])
                raise ChildError(
                    f"Prefect's server did not start. Where its database {log.parent}/prefect.db "
                    f"is damaged, move it away. {log} ends with:\n{last}"
                )
            sleep(0.1)
    left = FlowRunFilter(state=FlowRunFilterState.model_validate({"type": {"any_": ["RUNNING"]}}))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=left):
            client.set_flow_run_state(run.id, Crashed(message="its process was ended"), force=True)


def main() -> None:
    parser = calling.parser("flows.running.server", __doc__)
    parser.add_argument("port", type=int)
    port = parser.parse_args().port
    import uvicorn
    from prefect.server.api.server import create_app

    from flows.running.sqlite import queue_writers
    from tasks.starting.ending import end_with_parent

    end_with_parent()
    queue_writers()
    app = create_app()  # with the services that record tasks
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        log_level="error",
        timeout_graceful_shutdown=int(LAST_WORDS),
    )


if __name__ == "__main__":
    main()
