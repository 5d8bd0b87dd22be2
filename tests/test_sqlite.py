"""Prefect's server on SQLite, asked by several at a time."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.exc import OperationalError

from flows.running.sqlite import queue_writers


@pytest.fixture(autouse=True)
def prefect_s_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    own = AioSqliteConfiguration.begin_transaction
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", own)  # put back at the end


async def _written_by_two(folder: Path) -> int:
    """Rows of two requests, of which one reads before it writes and the other writes meanwhile."""
    database = AioSqliteConfiguration(f"sqlite+aiosqlite:///{folder / 'two.db'}")
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
    queue_writers()
    assert asyncio.run(_written_by_two(tmp_path)) == 2


def test_prefect_alone_refuses_it(tmp_path: Path) -> None:
    """Where this fails, Prefect does by itself what ``queue_writers`` is for."""
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(_written_by_two(tmp_path))
