"""PostgreSQL for one context: a pool, statements as single autocommit transactions, and whole transactions where one
statement does not do.

Nothing here holds a connection while anything but the database is awaited. A statement is never sent twice: only
whole transactions are, after SQLSTATE 40001 or 40P01, which say that nothing of them was kept. Errors leave this
module without what they quote from rows or parameters.

A row is a `sqlalchemy.Row`: a tuple that also has its columns as attributes (`row.seq`).
"""

import asyncio
import random
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import psycopg
from prometheus_client import Histogram
from sqlalchemy import Connection, CursorResult, Row, event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.util import greenlet_spawn

from libs.runtime import telemetry
from libs.runtime.errors import Unavailable

STATEMENT_SECONDS = telemetry.histogram(
    "db_statement_seconds", "From a statement's dispatch to its rows.", telemetry.STATEMENT_EDGES, ("statement",)
)
POOL_CONNECTIONS = telemetry.gauge("db_pool_connections", "Connections of a pool.", ("service", "state"))

POOL_WAIT_SECONDS = 1.0
CONNECT_SECONDS = 2
RETRY_ATTEMPTS = 5
RETRY_BASE_SECONDS = 0.005

_T = TypeVar("_T")
Parameters = Mapping[str, object]
_Take = Callable[[CursorResult[Any]], _T]
_NONE: Parameters = {}


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with psycopg's named parameters (`%(session_id)s`; a literal percent sign is `%%`) and its metric's label."""

    name: str
    sql: str


class DatabaseError(Exception):
    """A statement was refused. Branch on `sqlstate`; `constraint` may carry a shard's suffix."""

    def __init__(self, sqlstate: str, constraint: str, text: str) -> None:
        self.sqlstate, self.constraint = sqlstate, constraint
        super().__init__(f"{sqlstate or 'no SQLSTATE'} {text}")


class UniqueViolation(DatabaseError):  # noqa: N818 (PostgreSQL's name for it)
    """23505: another row has the key."""


class SerializationFailure(Unavailable):
    """40001 or 40P01: nothing of the transaction was kept, and running the whole of it again may succeed."""


class Database:
    """A pool of connections, in autocommit.

    Args:
        dsn: a libpq URL, `postgresql://user:password@host:port/name`.
        name: the context, which becomes `application_name` and the metric's `service`.
        pool_size: connections kept and at most opened.
        statement_timeout_ms: after which PostgreSQL ends a statement, and the caller gets Unavailable.
    """

    def __init__(self, dsn: str, name: str, pool_size: int = 8, statement_timeout_ms: int = 2000) -> None:
        self._name = name
        scheme, _, rest = dsn.partition("://")
        if not scheme.startswith("postgres") or not rest:
            raise ValueError("a database URL starts with postgresql://")
        self._engine = create_async_engine(
            f"postgresql+psycopg://{rest}",
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            pool_reset_on_return=None,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_SECONDS,
            pool_use_lifo=True,
            hide_parameters=True,
            connect_args={
                "application_name": f"colloquy-{name}",
                "connect_timeout": CONNECT_SECONDS,
                "options": f"-c statement_timeout={statement_timeout_ms}",
            },
        )
        self._connect = self._engine.sync_engine.connect
        event.listen(self._engine.sync_engine, "checkout", _refuse_dead)
        pool: Any = self._engine.sync_engine.pool
        POOL_CONNECTIONS.labels(name, "in_use").set_function(pool.checkedout)
        POOL_CONNECTIONS.labels(name, "idle").set_function(pool.checkedin)

    async def close(self) -> None:
        """Close the idle connections; call it when no statement runs any more."""
        await self._engine.dispose()

    async def one(self, statement: Statement, params: Parameters = _NONE) -> Row[Any] | None:
        """The first row, or None where there is none."""
        return await self._send(_first, statement, params)

    async def all(self, statement: Statement, params: Parameters = _NONE) -> Sequence[Row[Any]]:
        """All rows."""
        return await self._send(_every, statement, params)

    async def execute(self, statement: Statement, params: Parameters = _NONE) -> int:
        """The number of rows that the statement changed."""
        return await self._send(_count, statement, params)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Transaction"]:
        """Several statements, READ COMMITTED: committed when the block ends, rolled back when it raises."""
        try:
            connection = await self._engine.connect()
        except exc.SQLAlchemyError as error:
            failure, cause = _typed(error)
            raise failure from cause
        transaction, ended = Transaction(connection), False
        try:
            await transaction.execute(_BEGIN)
            try:
                yield transaction
            except Exception:
                with suppress(Unavailable):
                    await transaction.execute(_ROLLBACK)
                    ended = True
                raise
            await transaction.execute(_COMMIT)
            ended = True
        finally:
            if not ended:
                await connection.invalidate()  # cancelled, or cut off: the server rolls back as its client goes
            await connection.close()

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

    async def _send(self, take: _Take[_T], statement: Statement, params: Parameters) -> _T:
        return await _timed(statement.name, greenlet_spawn(self._run, take, statement.sql, params))

    def _run(self, take: _Take[_T], sql: str, params: Parameters) -> _T:
        # One greenlet for checkout, statement and return; AsyncConnection would start one for each.
        with self._connect() as connection:
            return take(connection.exec_driver_sql(sql, params or None))


class Transaction:
    """One transaction under way; see `Database` for its methods."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def one(self, statement: Statement, params: Parameters = _NONE) -> Row[Any] | None:
        return await self._send(_first, statement, params)

    async def all(self, statement: Statement, params: Parameters = _NONE) -> Sequence[Row[Any]]:
        return await self._send(_every, statement, params)

    async def execute(self, statement: Statement, params: Parameters = _NONE) -> int:
        return await self._send(_count, statement, params)

    async def _send(self, take: _Take[_T], statement: Statement, params: Parameters) -> _T:
        def run(connection: Connection) -> _T:
            return take(connection.exec_driver_sql(statement.sql, params or None))

        return await _timed(statement.name, self._connection.run_sync(run))


_BEGIN = Statement("begin", "BEGIN ISOLATION LEVEL READ COMMITTED")
_COMMIT = Statement("commit", "COMMIT")
_ROLLBACK = Statement("rollback", "ROLLBACK")
_children: dict[str, Histogram] = {}


def _first(result: CursorResult[Any]) -> Row[Any] | None:
    return result.first()


def _every(result: CursorResult[Any]) -> Sequence[Row[Any]]:
    return result.all()


def _count(result: CursorResult[Any]) -> int:
    return result.rowcount


async def _timed(name: str, run: Awaitable[_T]) -> _T:
    started = perf_counter()
    try:
        return await run
    except exc.SQLAlchemyError as error:
        failure, cause = _typed(error)
        raise failure from cause
    finally:
        child = _children.get(name)
        if child is None:
            child = _children[name] = STATEMENT_SECONDS.labels(name)
        child.observe(perf_counter() - started)


def _typed(error: exc.SQLAlchemyError) -> tuple[Exception, DatabaseError | None]:
    """The error to raise and its cause, with the server's primary message only: details quote rows."""
    if not isinstance(error, exc.DBAPIError) or not isinstance(error.orig, psycopg.Error):
        return Unavailable(), DatabaseError("", "", type(error).__name__)  # the pool's own: no connection in time
    orig = error.orig
    sqlstate, constraint = orig.sqlstate or "", orig.diag.constraint_name or ""
    text = orig.diag.message_primary or type(orig).__name__
    refused = DatabaseError(sqlstate, constraint, text)
    if sqlstate in _UNDONE:
        return SerializationFailure(), refused
    if error.connection_invalidated or not sqlstate or sqlstate[:2] in _OUTAGE or sqlstate == _READ_ONLY:
        return Unavailable(), refused
    if sqlstate == _UNIQUE:
        return UniqueViolation(sqlstate, constraint, text), None
    return refused, None


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNDONE = frozenset({"40001", "40P01"})
_OUTAGE = frozenset({"08", "53", "57"})  # connection, resources, and operator intervention with statement_timeout
_READ_ONLY = "25006"  # a standby, in a failover
_UNIQUE = "23505"


def _refuse_dead(connection: Any, _record: object, _proxy: object) -> None:
    """At checkout: an idle connection whose socket has something to say has, as a rule, been closed by the server.

    Found before a statement is sent, so the pool can open another one in its place without asking twice. It costs one
    poll(2) where a ping would cost a round trip.
    """
    driver: psycopg.AsyncConnection[Any] = connection.driver_connection
    poller = select.poll()
    poller.register(driver.fileno(), select.POLLIN)
    if poller.poll(0):
        try:
            driver.pgconn.consume_input()  # a notice, or a parameter's new value, leaves the connection usable
        except psycopg.Error as error:
            raise exc.DisconnectionError from error
        if driver.pgconn.status != psycopg.pq.ConnStatus.OK:
            raise exc.DisconnectionError
