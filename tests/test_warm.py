"""The process that stages start warm from."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from flows.running.children import lead, starting
from tests.conftest import REPOSITORY, run


def test_the_server_ends_without_a_word(
    workspace: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = workspace / ("x" * 120)  # longer than the path of a socket may be
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with starting(REPOSITORY) as address:
        lead(workspace, address)
        asked = run("python", "-m", "tasks", "no", "such", "stage", cwd=workspace, check=False)
        assert asked.returncode == 2
    assert capfd.readouterr() == ("", "")


def test_nobody_else_is_handed_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed on holds the environment, passwords included."""
    from tasks.starting import warm

    monkeypatch.chdir(tmp_path)
    warm.LINK.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(warm.LINK))
        listener.listen()
        monkeypatch.setattr(warm, "_owner", lambda connection: os.getuid() + 1)
        assert warm._call("tasks.__main__", ["key"]) is None
        caller, _ = listener.accept()
        assert caller.recv(1) == b""
        caller.close()
