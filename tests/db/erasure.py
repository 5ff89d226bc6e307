"""What it takes to try an erasure against writes on real PostgreSQL: a store whose transaction stays open until the
test ends it, a look at who waits for it, and everything that the tables still have of a session.

    async with open_transaction(dsn) as (erasing, transaction):
        await Store(erasing).erase(session_id)
        writing = asyncio.create_task(store.score(...))
        await transaction.is_waited_for()
        await transaction.commit()
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, Self, TypeVar, cast
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from libs.runtime import db
from tests.databases import Database

PATIENCE_SECONDS = 60.0
_T = TypeVar("_T")


class OpenTransaction(db.Transaction):
    """Stands where a store expects its database: whatever the store does is one transaction, and goes on until
    `commit`."""

    def __init__(self, connection: "psycopg.AsyncConnection[Any]") -> None:
        super().__init__(connection, PATIENCE_SECONDS)
        self._open = connection

    @asynccontextmanager
    async def transaction(self, _: str = "") -> AsyncIterator[Self]:
        yield self

    async def retrying(self, work: Callable[[], Awaitable[_T]]) -> _T:
        return await work()

    async def commit(self) -> None:
        await self._open.commit()

    async def is_waited_for(self) -> None:
        """Return once another transaction waits for a lock that this one holds; each look is a round trip."""
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        async with asyncio.timeout(10):
            while True:
                row = await (await self._open.execute(query)).fetchone()
                if row and row[0]:
                    return


@asynccontextmanager
async def open_transaction(dsn: str) -> AsyncIterator[tuple[db.Database, OpenTransaction]]:
    """A transaction as the database of a store, and as itself; undone at the end where it was not committed."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        transaction = OpenTransaction(connection)
        yield cast(db.Database, transaction), transaction
        await connection.rollback()


def writing(module: ModuleType) -> set[str]:
    """The labels of a module's statements that write: each is to be tried against an erasure."""
    statements = [each for each in vars(module).values() if isinstance(each, db.Statement)]
    return {each.name for each in statements if re.search(r"\b(INSERT INTO|UPDATE|DELETE FROM) [a-z]+\.", each.sql)}


def remains(database: Database, context: str, session_id: UUID) -> list[dict[str, Any]]:
    """Every row that the tables of a context have of a session, in the order of their keys."""
    with psycopg.connect(database.owner_dsn, row_factory=dict_row) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = %s AND column_name = 'session_id' ORDER BY table_name",
            [context],
        ).fetchall()
        assert tables
        queries = [
            sql.SQL("SELECT * FROM {} AS kept WHERE session_id = %s ORDER BY kept").format(
                sql.Identifier(context, table["table_name"])
            )
            for table in tables
        ]
        return [row for query in queries for row in connection.execute(query, [session_id]).fetchall()]
