"""What `make` starts, in a folder whose name has a space, by commands that tell what they get."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, run

TELL = """#!/bin/sh
for word in "$@"; do echo "word $word"; done
env | grep -E '^(MLFLOW|PREFECT|IMU_CLONE)'
"""
SECRET = 'a $b"c'


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a b") / "clone"
    for made in (".prefect/ready", ".prefect/data", "mlflow/mlflow.db", ".venv/bin/mlflow"):
        (root / made).parent.mkdir(parents=True, exist_ok=True)
        (root / made).touch()
    for needed in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy2(REPOSITORY / needed, root)
    for command in ("mlflow", "prefect", "python"):
        (root / ".venv" / "bin" / command).write_text(TELL)
        (root / ".venv" / "bin" / command).chmod(0o755)
    for made in (".venv/installed", ".prefect/ready"):  # in this order
        (root / made).touch()
    return root


def told(clone: Path, target: str, **environment: str) -> list[str]:
    clean = dict.fromkeys(("MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING", "MAKEFLAGS"), "")
    return run("make", "-s", target, cwd=clone, **clean | environment).stdout.splitlines()


def test_paths_with_a_space_stay_whole(clone: Path) -> None:
    said = told(clone, "mlflow")
    assert f"word sqlite:///{clone}/mlflow/mlflow.db" in said
    assert f"word {clone}/mlflow/artifacts" in said
    assert f"IMU_CLONE={clone}" in told(clone, "worker")


def test_links_and_servers_have_the_same_port(clone: Path) -> None:
    said = told(clone, "mlflow", MLFLOW_PORT="5077")
    assert {"word 5077", "MLFLOW_PORT=5077"} <= {*said}
    assert said[0].startswith("http://127.0.0.1:5077/")


def test_servers_ask_for_a_password_where_one_is_set(clone: Path) -> None:
    said = told(clone, "mlflow", MLFLOW_TRACKING_PASSWORD=SECRET)
    assert "word basic-auth" in said
    assert f"MLFLOW_AUTH_CONFIG_PATH={clone}/mlflow/basic_auth.ini" in said
    assert {"MLFLOW_AUTH_ADMIN_USERNAME=admin", f"MLFLOW_AUTH_ADMIN_PASSWORD={SECRET}"} <= {*said}
    assert any(line.startswith("MLFLOW_FLASK_SERVER_SECRET_KEY=") for line in said)
    assert f"PREFECT_SERVER_API_AUTH_STRING=admin:{SECRET}" in told(
        clone, "prefect", PREFECT_API_AUTH_STRING=f"admin:{SECRET}"
    )


def test_servers_ask_for_none_else(clone: Path) -> None:
    assert "word basic-auth" not in told(clone, "mlflow")
    assert not any("AUTH_STRING=admin" in line for line in told(clone, "prefect"))
