"""The process that stages start warm from."""

from pathlib import Path

import pytest

from flows.running.children import lead, starting
from tests.conftest import REPOSITORY, run


def test_the_server_ends_without_a_word(workspace: Path, capfd: pytest.CaptureFixture) -> None:
    with starting(REPOSITORY) as address:
        lead(workspace, address)
        asked = run("python", "-m", "tasks", "no", "such", "stage", cwd=workspace, check=False)
        assert asked.returncode == 2
    assert capfd.readouterr() == ("", "")
