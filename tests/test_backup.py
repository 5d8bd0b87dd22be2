"""Prefect's databases, backed up while they are in use, and restored."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.orchestration import free_port
from tests.conftest import REPOSITORY, run

pytestmark = [pytest.mark.slow, pytest.mark.long]

POSTGRES = ("initdb", "pg_ctl", "createdb", "pg_dump", "pg_restore")
# Prints the names of all runs. Where a command is given, a run is written before it and one after.
NOTE = """
import asyncio, subprocess, sys
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.server.api.server import create_app
from prefect.states import Completed
@flow
def noted(): pass
async def main():
    async with PrefectClient(create_app(ephemeral=True)) as client:
        if backup := sys.argv[1:]:
            await client.create_flow_run(noted, name="first", state=Completed())
            subprocess.run(backup, check=True)
            await client.create_flow_run(noted, name="later", state=Completed())
        print("runs:", *[run.name for run in await client.read_flow_runs()])
asyncio.run(main())
"""


def runs_in(address: str, home: Path, *backup: str) -> set[str]:
    """Names of the runs in the database at ``address``; ``backup`` runs between two new ones."""
    settings = {"PREFECT_API_DATABASE_CONNECTION_URL": address, "PREFECT_HOME": str(home)}
    said = run(sys.executable, "-c", NOTE, *backup, cwd=REPOSITORY, **settings).stdout
    return set(said.splitlines()[-1].split()[1:])


def test_a_run_is_there_when_an_sqlite_database_is_restored(
    tmp_path: Path, prefect_database: Path
) -> None:
    database, backup = tmp_path / "prefect.db", tmp_path / "backup.db"
    shutil.copyfile(prefect_database, database)
    address = f"sqlite+aiosqlite:///{database}"
    copy = (
        "import sys, sqlite3; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:])"
    )
    backing_up = (sys.executable, "-c", copy, str(database), str(backup))
    assert runs_in(address, tmp_path / "home", *backing_up) == {"first", "later"}
    backup.replace(database)
    assert runs_in(address, tmp_path / "home") == {"first"}


@pytest.fixture
def postgres() -> Iterator[str]:
    """Address of a PostgreSQL server of its own, up to the name of a database."""
    needed = (*POSTGRES, "runuser") if os.geteuid() == 0 else POSTGRES
    if missing := [name for name in needed if not shutil.which(name)]:
        pytest.skip(f"PostgreSQL is not installed: no {missing[0]}")
    port = free_port()
    # Its programs refuse root, and nobody else may enter pytest's folders.
    user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="imu-postgres-") as folder:
        if user:
            shutil.chown(folder, "nobody")
        control = [*user, "pg_ctl", "-D", f"{folder}/data", "-w"]
        options = f"-p {port} -k {folder} -F -c listen_addresses=127.0.0.1"
        run(
            *user, "initdb", "-D", f"{folder}/data", "-U", "imu", "-A", "trust", "-N", cwd=Path("/")
        )
        run(*control, "-o", options, "-l", f"{folder}/log", "start", cwd=Path("/"))
        try:
            yield f"imu@127.0.0.1:{port}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], cwd="/", check=True)


def test_a_run_is_there_when_a_postgresql_database_is_restored(
    tmp_path: Path, postgres: str
) -> None:
    for name in ("prefect", "restored"):
        run("createdb", f"--maintenance-db=postgresql://{postgres}/postgres", name, cwd=tmp_path)
    address = f"postgresql+asyncpg://{postgres}"
    dumped = str(tmp_path / "prefect.dump")
    dump = ("pg_dump", "--format=custom", f"--file={dumped}", f"postgresql://{postgres}/prefect")
    assert runs_in(f"{address}/prefect", tmp_path, *dump) == {"first", "later"}
    restore = "--no-owner", "--exit-on-error", f"--dbname=postgresql://{postgres}/restored"
    run("pg_restore", *restore, dumped, cwd=tmp_path)
    assert runs_in(f"{address}/restored", tmp_path) == {"first"}
