"""Workspaces for tests: copies of this repository with a small, fast set of parameters."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest
import torch
from filelock import FileLock
from ruamel.yaml import YAML

from benchmarks.orchestration import server
from flows.running.children import lead, starting
from tasks.__main__ import main as tasks_main
from tasks.starting.warm import LINK

REPOSITORY = Path(__file__).parent.parent
SMALL = {
    "split": {"used": 0.4},
    "network": {"width": 4},
    "train": {"epochs": 3, "batch_size": 32},
    "ensemble": {"members": 3, "network": {"width": 2}},
}

# Of what params.yaml runs: one of each kind, and two retrained with other seeds.
MODELS = {
    "retrain": ("reference", "retrain_2", "retrain_3"),
    "unlearn": ("nothing", "logit_mask", "imu"),
}
MANY = {  # what `ensemble` needs for tests by many networks
    "families": {
        "original": {"manifest": "train"},
        "oracle": {"manifest": "retain"},
        "retrained": {"manifest": "retain"},
    },
    "judged": {"imu": {"method": "imu"}},
}

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _settings() -> Iterator[None]:
    """No settings of whoever runs the tests reach them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "SHELL"):
            patch.delenv(name, raising=False)
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield


@cache
def warm_address() -> Path:
    """Of a process that starts the stages of all workspaces warm, as long as the tests run."""
    process = starting(REPOSITORY)
    atexit.register(process.__exit__, None, None, None)
    return process.__enter__()


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database of Prefect, to be copied: to create one takes longer than a small flow.

    The processes of pytest-xdist share it.
    """
    top = tmp_path_factory.getbasetemp()
    home = (top.parent if "PYTEST_XDIST_WORKER" in os.environ else top) / "prefect"
    with FileLock(home.with_suffix(".lock")):
        if not (home / "prefect.db").is_file():
            making = home.with_suffix(".making")
            environment = {"PREFECT_HOME": str(making)}
            run("prefect", "server", "database", "upgrade", "-y", cwd=REPOSITORY, **environment)
            making.replace(home)
    return home / "prefect.db"


@pytest.fixture(scope="session")
def _prefect(
    tmp_path_factory: pytest.TempPathFactory, prefect_database: Path
) -> Iterator[dict[str, str]]:
    """The environment of what talks to a server of Prefect that runs for all tests."""
    folder = tmp_path_factory.mktemp("prefect")
    with_prefect(folder, prefect_database)
    with server(folder) as (environment, _):
        yield environment


@pytest.fixture(scope="module")
def served(_prefect: dict[str, str]) -> Iterator[None]:
    """Flows report to a server that runs, and do not start one each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _prefect.items():
            patch.setenv(name, value)
        yield


def with_prefect(root: Path, database: Path) -> None:
    """Settings and a new database of Prefect for what runs in ``root``."""
    (root / ".prefect").mkdir()
    shutil.copyfile(REPOSITORY / "prefect.toml", root / "prefect.toml")
    shutil.copyfile(database, root / ".prefect" / "prefect.db")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: else one process waits for the last of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "workspace")


def make_workspace(root: Path, changes: dict[str, Any] | None = None) -> Path:
    """A git and DVC repository with this code, small parameters and its own cache and data.

    It runs few models, see ``MODELS``.
    """
    shutil.copytree(_unchanged_workspace(), root, symlinks=True, dirs_exist_ok=True)
    if changes:
        change(root, changes)
        commit(root)
    lead(root, warm_address())
    return root


def start_cold(root: Path) -> None:
    """Stages of the workspace start cold from now on."""
    (root / LINK).unlink()


@cache
def _unchanged_workspace() -> Path:
    """What every workspace of this process is a copy of."""
    root = Path(tempfile.mkdtemp(prefix="imu-tests-"))
    atexit.register(shutil.rmtree, root)
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=REPOSITORY).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith(("tests/", "dvc.lock")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, root / name)
    keep(root, MODELS)
    change(root, SMALL)
    run("git", "init", "-q", cwd=root)
    run("git", "add", "-A", cwd=root)
    commit(root)
    tasks(root, "data")
    return root


def commit(root: Path) -> None:
    """All changes of what git knows."""
    call = "git -c user.name=t -c user.email=t commit -qam t --allow-empty"
    run(*call.split(), cwd=root)


def keep(root: Path, entries: dict[str, tuple[str, ...]]) -> None:
    """Remove from the sections of params.yaml every entry but the given ones."""
    yaml = YAML()
    content = yaml.load((root / "params.yaml").read_text())
    for section, names in entries.items():
        content[section] = {name: content[section][name] for name in names}
    with (root / "params.yaml").open("w") as file:
        yaml.dump(content, file)


def change(root: Path, changes: dict[str, Any]) -> None:
    """Merge ``changes`` into the workspace's params.yaml; {} empties a section."""
    yaml = YAML()
    content = yaml.load((root / "params.yaml").read_text())

    def merge(into: Any, new: dict[str, Any]) -> None:
        for key, value in new.items():
            if value and isinstance(value, dict) and key in into:
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


def tasks(root: Path, *arguments: str, status: int = 0) -> str:
    """What ``python -m tasks`` prints in ``root``, called in here; it ends with ``status``."""
    printed = StringIO()
    with chdir(root), redirect_stdout(printed), redirect_stderr(printed):
        ended = tasks_main(list(arguments))
    assert ended == status, printed.getvalue()
    return printed.getvalue()


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


def processes_in(root: Path, word: str = "") -> list[psutil.Process]:
    """Processes below ``root`` that have ``word`` in their command."""
    found = []
    for process in psutil.process_iter():
        try:
            here = Path(process.cwd()).is_relative_to(root)
            if here and word in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
