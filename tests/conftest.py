"""Workspaces for tests: copies of this repository with a small, fast set of parameters."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from flows.children import warm

REPOSITORY = Path(__file__).parent.parent
SMALL = {
    "network": {"width": 4},
    "train": {"epochs": 3, "batch_size": 32},
    "ensemble": {"members": 3, "network": {"width": 2}},
    "snapshots": 3,
}

# Of what params.yaml runs: one of each kind, and a floor of two.
MODELS = {
    "retrain": ("reference", "floor", "floor_2"),
    "unlearn": ("nothing", "logit_mask", "fine_tune", "imu"),
}

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _settings() -> Iterator[None]:
    """Stages start warm, and no settings of whoever runs the tests reach them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "IMU_PARENT", "IMU_WARM", "SHELL"):
            patch.delenv(name, raising=False)
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        with warm(REPOSITORY) as environment:
            patch.setenv("IMU_WARM", environment["IMU_WARM"])
            yield


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "workspace")


def make_workspace(root: Path, changes: dict[str, Any] | None = None) -> Path:
    """A git and DVC repository with this code, small parameters and its own cache and data.

    It runs few models, see ``MODELS``.
    """
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=REPOSITORY).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith(("tests/", "dvc.lock")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, root / name)
    keep(root, MODELS)
    change(root, SMALL)
    change(root, changes or {})
    for command in ("git init -q", "git add -A", "git -c user.name=t -c user.email=t commit -qm t"):
        run(*command.split(), cwd=root)
    run("python", "-m", "tasks", "data", cwd=root)
    return root


def keep(root: Path, entries: dict[str, tuple[str, ...]]) -> None:
    """Remove from the sections of params.yaml every entry but the given ones."""
    yaml = YAML()
    content = yaml.load((root / "params.yaml").read_text())
    for section, names in entries.items():
        content[section] = {name: content[section][name] for name in names}
    with (root / "params.yaml").open("w") as file:
        yaml.dump(content, file)


def change(root: Path, changes: dict[str, Any]) -> None:
    """Merge ``changes`` into the workspace's params.yaml."""
    yaml = YAML()
    content = yaml.load((root / "params.yaml").read_text())

    def merge(into: Any, new: dict[str, Any]) -> None:
        for key, value in new.items():
            if isinstance(value, dict) and key in into:
                merge(into[key], value)
            else:
                into[key] = value

    merge(content, changes)
    with (root / "params.yaml").open("w") as file:
        yaml.dump(content, file)


def run(
    *command: str, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; stdout and stderr come together."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,  # of what hangs: on slow machines a sweep takes minutes
    )
    if check and done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done


def started(
    root: Path, *command: str, until: str, log: Path | None = None, **environment: str
) -> subprocess.Popen[str]:
    """A process that has printed ``until``; it leads a session of its own."""
    log = log or root.parent / f"{root.name}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=root,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    deadline = monotonic() + 120
    while until not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert monotonic() < deadline, log.read_text()
        sleep(0.02)
    return process
