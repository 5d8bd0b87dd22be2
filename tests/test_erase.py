"""An erasure request by the command, with a kill on the way, from the letter to the certificate."""

import json
import os
import signal
from pathlib import Path

import pytest

from tasks.files.workspace import Workspace
from tests.conftest import make_workspace, run, started

ERASE = ("python", "-m", "flows.erase")


@pytest.mark.long
def test_a_request_is_served_to_the_last_bit(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    run("python", "-m", "tasks", "split", cwd=root)
    one = str(Workspace(root).read_manifest("train")["id"].iloc[0])
    asked = (*ERASE, "request", "--id", one, "--methods", "imu")
    killed = started(root, *asked, "--no-purge", until="Task run 'influence' - Finished")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert "request 1: certified" in run(*ERASE, "inbox", cwd=root).stdout
    records = (root / "erasure" / "ledger.jsonl").read_bytes()
    assert "request 1: certified" in run(*asked, cwd=root).stdout
    assert (root / "erasure" / "ledger.jsonl").read_bytes() == records
    certificate = "erasure/requests/0001/certificate.json"
    said = run(*ERASE, "verify", certificate, "--rerun", cwd=root).stdout
    assert "the same model to the last bit" in said
    assert " 0 could be removed" not in run(*ERASE, "scan", cwd=root).stdout
    run(*ERASE, "purge", "1", cwd=root)
    assert " 0 could be removed" in run(*ERASE, "scan", cwd=root).stdout
    again = run(*ERASE, "verify", certificate, "--rerun", cwd=root, check=False)
    assert "what it was made from was purged" in again.stdout
    (deployed,) = (r for r in map(json.loads, records.splitlines()) if r["step"] == "deployed")
    assert "not superseded" in run(*ERASE, "rollback", deployed["version"], cwd=root).stdout
    former = run(*ERASE, "rollback", "1", cwd=root, check=False)  # the original, which remembers
    assert "must not be served" in former.stdout
    with_id = [
        path
        for folder in ("runs", ".cells", "erasure", "mlflow", ".dvc")
        for path in (root / folder).rglob("*")
        if path.is_file() and one.encode() in path.read_bytes()
    ]
    assert with_id == []
