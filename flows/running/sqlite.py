"""Prefect's server, so that on SQLite whoever wants to write waits for the one that writes.

    python -m flows.running.sqlite server start ...     takes what ``prefect`` takes

Prefect begins nearly every transaction as a reader (BEGIN DEFERRED). SQLite lets none become a
writer that another one overtook since it read: it fails at once with "database is locked", no
time-out helps (https://www.sqlite.org/isolation.html), and the server answers 503.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class QueuedWriters(AioSqliteConfiguration):
    """Every transaction is one of a writer (BEGIN IMMEDIATE)."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = True
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def queue_writers() -> None:
    """A server of this process uses the database so, where that is SQLite."""
    url = get_current_settings().server.database.connection_url
    if url is not None and url.get_secret_value().startswith("sqlite"):
        set_database_config(QueuedWriters(connection_url=url.get_secret_value()))


if __name__ == "__main__":
    from prefect.cli import app

    queue_writers()
    app()
