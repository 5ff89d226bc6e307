"""PostgreSQL for one context: a pool, statements as single autocommit transactions, and whole transactions where one
statement does not do.

Nothing here holds a connection while anything but the database is awaited. A statement is never sent twice; only
whole transactions are, after SQLSTATE 40001 or 40P01, which say that nothing of them was kept. Errors leave this
module without what PostgreSQL quotes from rows.

SQLAlchemy's async engine opens the connections; statements go to them through psycopg's own cursors. A statement of
seven columns costs 0.07 ms of CPU in this process so, 0.20 ms through `exec_driver_sql` and 0.24 ms through `text()`
of an AsyncConnection; all three bind the same parameters on the server.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias, TypeVar

import psycopg
from prometheus_client import Histogram
from psycopg.rows import namedtuple_row

from libs.runtime import failpoints, telemetry
from libs.runtime.errors import Unavailable
from libs.runtime.pool import Connection, Pool, cut

STATEMENT_SECONDS = telemetry.histogram(
    "db_statement_seconds", "From a statement's dispatch to its rows.", telemetry.STATEMENT_EDGES, ("statement",)
)
POOL_CONNECTIONS = telemetry.gauge("db_pool_connections", "Connections of a pool.", ("service", "state"))

SILENCE_SECONDS = 1.0
"""How long after its statement timeout a server may take to say so, before its connection is given up."""
RETRY_ATTEMPTS = 5
RETRY_BASE_SECONDS = 0.005

_T = TypeVar("_T")
Parameters = Mapping[str, object]
Row: TypeAlias = Any
"""A named tuple with the statement's columns (`row.seq`); `store` modules, the edge, give its values their types."""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with psycopg's named parameters (`%(session_id)s`; where there are any, a percent sign is `%%`) and the
    label of its metric."""

    name: str
    sql: str


class DatabaseError(Exception):
    """A statement was refused. Branch on `sqlstate`; `constraint` may carry a shard's suffix."""

    def __init__(self, sqlstate: str, constraint: str, text: str) -> None:
        self.sqlstate, self.constraint = sqlstate, constraint
        super().__init__(f"{sqlstate}: {text}" if sqlstate else text)


class UniqueViolation(DatabaseError):  # noqa: N818 (PostgreSQL's name for it)
    """23505: another row has the key."""


class SerializationFailure(Unavailable):
    """40001 or 40P01: nothing of the transaction was kept, and running the whole of it again may succeed."""


class Session:
    """What one connection can be asked; `params` are bound by name."""

    async def one(self, statement: Statement, params: Parameters | None = None) -> Row | None:
        """The first row, or None where there is none."""
        cursor = await self._send(statement, params)
        return await cursor.fetchone()

    async def all(self, statement: Statement, params: Parameters | None = None) -> Sequence[Row]:
        """All rows."""
        cursor = await self._send(statement, params)
        return await cursor.fetchall()

    async def execute(self, statement: Statement, params: Parameters | None = None) -> int:
        """The number of rows that the statement changed."""
        cursor = await self._send(statement, params)
        return cursor.rowcount

    async def _send(self, statement: Statement, params: Parameters | None) -> psycopg.AsyncCursor[Row]:
        raise NotImplementedError


class Transaction(Session):
    """A transaction under way, from `Database.transaction`."""

    def __init__(self, connection: Connection, patience_seconds: float) -> None:
        self._connection, self._patience_seconds = connection, patience_seconds

    async def _send(self, statement: Statement, params: Parameters | None) -> psycopg.AsyncCursor[Row]:
        return await _execute(self._patience_seconds, self._connection, statement, params)


class Database(Session):
    """A pool of connections; each statement asked of it is a transaction of its own.

    Args:
        dsn: a libpq URL, `postgresql://user:password@host:port/name`.
        name: the context, which becomes `application_name` and the metric's `service`.
        pool_size: how many connections are opened at most, and kept.
        statement_timeout_ms: after which PostgreSQL ends a statement, and the caller gets Unavailable. Where it says
            nothing, its host gone or the network, the connection is given up a second later.

    Statements raise Unavailable (no connection, timeout, outage), SerializationFailure, UniqueViolation or
    DatabaseError.
    """

    def __init__(self, dsn: str, name: str, pool_size: int = 8, statement_timeout_ms: int = 2000) -> None:
        self._pool = Pool(dsn, pool_size, f"colloquy-{name}", statement_timeout_ms)
        self._patience_seconds = statement_timeout_ms / 1000 + SILENCE_SECONDS
        self._execute = failpoints.between(_execute, _label, _outage)
        POOL_CONNECTIONS.labels(name, "in_use").set_function(self._pool.lent)
        POOL_CONNECTIONS.labels(name, "idle").set_function(self._pool.idle)

    async def close(self) -> None:
        """Close the connections; call it when no statement runs any more."""
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self, name: str = "") -> AsyncIterator[Transaction]:
        """Several statements, READ COMMITTED: committed when the block ends, rolled back when it raises.

        Args:
            name: by which failpoints know it, as they know a single statement by its own.
        """
        async with failpoints.around(name, _outage):
            connection = await self._take()
            transaction = Transaction(connection, self._patience_seconds)
            try:
                await transaction.execute(_BEGIN)
                try:
                    yield transaction
                except Exception:
                    with suppress(Unavailable):  # then the connection is lost, and the transaction with it
                        await transaction.execute(_ROLLBACK)
                    raise
                await transaction.execute(_COMMIT)
            finally:
                await self._pool.give_back(connection)

    async def retrying(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run `work`, one whole transaction, again where PostgreSQL undid it for a conflict: five times at most.

        Raises:
            SerializationFailure: the last attempt failed too.
        """
        for attempt in range(RETRY_ATTEMPTS - 1):
            try:
                return await work()
            except SerializationFailure:
                await asyncio.sleep(random.uniform(0.5, 1.5) * RETRY_BASE_SECONDS * 2**attempt)
        return await work()

    async def _send(self, statement: Statement, params: Parameters | None) -> psycopg.AsyncCursor[Row]:
        connection = await self._take()
        try:
            return await self._execute(self._patience_seconds, connection, statement, params)
        finally:
            await self._pool.give_back(connection)

    async def _take(self) -> Connection:
        try:
            return await self._pool.take()
        except TimeoutError:
            raise Unavailable from DatabaseError("", "", "no connection became free in time")
        except psycopg.Error as error:  # which names host, port and user, and of the password nothing: see Env
            failure = _typed(error, otherwise=str(error).partition("\n")[0])
            raise failure from failure.__cause__


_BEGIN = Statement("begin", "BEGIN ISOLATION LEVEL READ COMMITTED")
_COMMIT = Statement("commit", "COMMIT")
_ROLLBACK = Statement("rollback", "ROLLBACK")
_children: dict[str, Histogram] = {}


async def _execute(
    patience_seconds: float, connection: Connection, statement: Statement, params: Parameters | None
) -> psycopg.AsyncCursor[Row]:
    """Send a statement and receive all its rows; give the connection up where nothing comes for so long.

    The statement timeout is kept by the server, which may not be there any more: without a reset from the network,
    whoever waits for it detached from a deadline would wait until TCP gives up, a quarter of an hour.
    """
    started = perf_counter()
    patience = asyncio.get_running_loop().call_later(patience_seconds, cut, connection)
    try:
        cursor: psycopg.AsyncCursor[Row] = connection.cursor(row_factory=namedtuple_row)
        return await cursor.execute(statement.sql, params)
    except psycopg.Error as error:
        failure = _typed(error)
        raise failure from failure.__cause__
    finally:
        patience.cancel()
        telemetry.later(_observe, statement.name, perf_counter() - started)


def _label(_: float, __: Connection, statement: Statement, params: Parameters | None) -> str:  # noqa: ARG001 (as of `_execute`)
    return statement.name


def _outage(_: bool) -> Exception:
    return _caused(Unavailable(), DatabaseError("", "", "failpoint"))


def _observe(statement: str, seconds: float) -> None:
    child = _children.get(statement)
    if child is None:
        child = _children[statement] = STATEMENT_SECONDS.labels(statement)
    child.observe(seconds)


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNDONE = frozenset({"40001", "40P01"})
_OUTAGE = frozenset({"08", "53", "57"})  # connection, resources, and operator intervention with statement_timeout
_READ_ONLY = "25006"  # a standby, in a failover
_UNIQUE = "23505"


def _typed(error: psycopg.Error, otherwise: str = "") -> Exception:
    """The error to raise, with the server's primary message only: its detail quotes rows. `otherwise` stands for a
    server that said nothing."""
    sqlstate, constraint = error.sqlstate or "", error.diag.constraint_name or ""
    text = error.diag.message_primary or otherwise or type(error).__name__
    if sqlstate == _UNIQUE:
        return UniqueViolation(sqlstate, constraint, text)
    refused = DatabaseError(sqlstate, constraint, text)
    if sqlstate in _UNDONE:
        return _caused(SerializationFailure(), refused)
    if sqlstate[:2] in _OUTAGE or sqlstate == _READ_ONLY or isinstance(error, psycopg.OperationalError):
        return _caused(Unavailable(), refused)
    return refused


def _caused(failure: Unavailable, cause: DatabaseError) -> Unavailable:
    failure.__cause__ = cause
    return failure
