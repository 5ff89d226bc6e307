"""The connections of one database: opened by SQLAlchemy's async engine, kept and lent here.

SQLAlchemy's own pool answers only inside a greenlet, which costs 0.03 ms of CPU a statement, and lets a newcomer
overtake a waiter until that times out. This one is a stack and a fair semaphore.
"""

import asyncio
import os
import select
import socket
from contextlib import suppress
from typing import Any, TypeAlias, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from libs.runtime.config import Env

WAIT_SECONDS = 1.0
CONNECT_SECONDS = 2

Connection: TypeAlias = psycopg.AsyncConnection[Any]


class Pool:
    """At most `size` connections in autocommit, the most recently used lent first.

    Args:
        dsn: a libpq URL, `postgresql://user:password@host:port/name`.
        application_name, statement_timeout_ms: set on each connection.

    Raises:
        ConfigError: not such a URL.
    """

    def __init__(self, dsn: str, size: int, application_name: str, statement_timeout_ms: int) -> None:
        env = Env({application_name: dsn})
        env.database_url(application_name, otherwise="")
        env.check()
        self._engine = create_async_engine(
            f"postgresql+psycopg://{dsn.partition('://')[2]}",
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
            connect_args={
                "async_creator_fn": self._log_in,
                "application_name": application_name,
                "connect_timeout": CONNECT_SECONDS,
                # Every statement finds its rows by whole keys, so planning for its values anew gains nothing.
                "options": f"-c statement_timeout={statement_timeout_ms} -c plan_cache_mode=force_generic_plan",
            },
        )
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._new: set[Connection] = set()
        self._lent = 0

    def idle(self) -> int:
        return len(self._idle)

    def lent(self) -> int:
        return self._lent

    async def take(self) -> Connection:
        """A connection that was alive a moment ago; give it back with `give_back`.

        Raises:
            TimeoutError: all were in use for a second.
            psycopg.Error: the server cannot be reached.
        """
        if self._free.locked():
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        else:
            await self._free.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                if not _has_something_to_say(connection):
                    break
                await connection.close()
            else:
                connection = await self._open()
        except BaseException:
            self._free.release()
            raise
        self._lent += 1
        return connection

    async def give_back(self, connection: Connection) -> None:
        """Keep the connection, if it is between two transactions; whatever else went wrong, it is sound then.

        Any other is closed: the server rolls back as its client goes.
        """
        self._lent -= 1
        self._free.release()
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            await connection.close()

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._idle.pop().close()

    async def _open(self) -> Connection:
        try:
            opened = await self._engine.raw_connection()
        except DBAPIError as error:  # of what SQLAlchemy asks a server first
            raise (error.orig or error) from None
        connection = cast(Connection, opened.driver_connection)
        opened.detach()
        self._new.discard(connection)
        return connection

    async def _log_in(self, *args: Any, **options: Any) -> Connection:
        connection = await psycopg.AsyncConnection.connect(*args, **options)
        self._new.add(connection)
        asyncio.get_running_loop().call_later(CONNECT_SECONDS, self._give_up, connection)
        return connection

    def _give_up(self, connection: Connection) -> None:
        """Cut it if SQLAlchemy still asks it first things: libpq's timeout of a connection ends with the login."""
        if connection in self._new:
            self._new.discard(connection)
            cut(connection)


def cut(connection: Connection) -> None:
    """End a connection as a network does that resets it: whoever waits for its server is told that it was lost."""
    with suppress(OSError, psycopg.OperationalError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def _has_something_to_say(connection: Connection) -> bool:
    """An idle connection with bytes to read has, as a rule, been closed by its server.

    Seen before a statement is sent, so nothing is asked twice; one poll(2) where a ping would cost a round trip.
    """
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))
