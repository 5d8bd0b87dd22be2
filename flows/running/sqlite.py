"""Prefect's server, so that on SQLite whoever wants to write waits for the one that writes.

    python -m flows.running.sqlite server start ...     takes what ``prefect`` takes

Prefect begins nearly every transaction as a reader (BEGIN DEFERRED). SQLite lets none become a
writer that another one overtook since it read: it fails at once with "database is locked", no
time-out helps (https://www.sqlite.org/isolation.html), and the server answers 503.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

_begin = AioSqliteConfiguration.begin_transaction


def queue_writers() -> None:
    """From now on every transaction in this process is one of a writer (BEGIN IMMEDIATE)."""

    @asynccontextmanager
    async def begin(
        self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = True
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        async with _begin(self, session, with_for_update=True) as transaction:
            yield transaction

    AioSqliteConfiguration.begin_transaction = begin  # type: ignore[method-assign]


if __name__ == "__main__":
    from prefect.cli import app

    queue_writers()
    app()
