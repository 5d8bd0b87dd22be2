"""What a stage that starts warm does not have to import any more."""

import sys
from pathlib import Path

import pytest

from flows.running.children import lead, starting
from tests.conftest import REPOSITORY, run

STEP = """
import importlib, sys
from tasks.starting import warm

for name in warm.PRELOADED:
    importlib.import_module(name)
before = set(sys.modules)

import torch

for kind in (torch.optim.SGD, torch.optim.Adam):
    weights = torch.ones(3, requires_grad=True)
    optimizer = kind([weights], lr=0.1)
    weights.sum().backward()
    optimizer.step()
print(len({name for name in sys.modules.keys() - before if name.split(".")[0] != "torch"}))
"""


def test_the_first_step_of_an_optimizer_imports_no_other_library() -> None:
    """torch imports its compiler with that step, and sympy with it: seconds in every stage."""
    assert run(sys.executable, "-c", STEP, cwd=REPOSITORY).stdout.strip() == "0"


def test_the_server_ends_without_a_word(workspace: Path, capfd: pytest.CaptureFixture) -> None:
    with starting(REPOSITORY) as address:
        lead(workspace, address)
        asked = run("python", "-m", "tasks", "no", "such", "stage", cwd=workspace, check=False)
        assert asked.returncode == 2
    assert capfd.readouterr() == ("", "")
