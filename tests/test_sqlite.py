"""Prefect's server on SQLite, asked by several at a time."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from prefect.server.database import dependencies
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings
from sqlalchemy.exc import OperationalError

from flows.running.sqlite import QueuedWriters, queue_writers


async def _written_by_two(database: AioSqliteConfiguration) -> int:
    """Rows of two requests, of which one reads before it writes and the other writes meanwhile."""
    engine = await database.engine()
    add, count = sa.text("INSERT INTO runs VALUES (1)"), sa.text("SELECT count(*) FROM runs")
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE runs (id INTEGER)"))

    async def other() -> None:
        async with await database.session(engine) as session, database.begin_transaction(session):
            await session.execute(add)

    async with await database.session(engine) as session:
        async with database.begin_transaction(session):
            await session.execute(count)
            meanwhile = asyncio.create_task(other())
            await asyncio.wait({meanwhile}, timeout=0.5)
            await session.execute(add)
        await meanwhile
        return int((await session.execute(count)).scalar_one())


def test_who_reads_before_it_writes_is_not_refused(tmp_path: Path) -> None:
    assert asyncio.run(_written_by_two(QueuedWriters(_in(tmp_path)))) == 2


def test_prefect_alone_refuses_it(tmp_path: Path) -> None:
    """Where this fails, Prefect does by itself what ``QueuedWriters`` is for."""
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(_written_by_two(AioSqliteConfiguration(_in(tmp_path))))


@pytest.mark.parametrize("url", ["", "postgresql+asyncpg://127.0.0.1/imu"])
def test_a_server_on_sqlite_alone_queues_writers(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dependencies.MODELS_DEPENDENCIES, "database_config", None)
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: url or _in(tmp_path)}):
        queue_writers()
    used = dependencies.MODELS_DEPENDENCIES["database_config"]
    assert isinstance(used, QueuedWriters) == (not url)


def _in(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'two.db'}"
