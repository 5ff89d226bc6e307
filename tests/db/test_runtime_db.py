"""The database layer on a real PostgreSQL: statements, transactions, errors, and a server that goes away."""

import asyncio
import os
import signal
import tempfile
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY

from libs.postgres.launcher import EmbeddedPostgres
from libs.runtime import pool, telemetry
from libs.runtime.config import ConfigError
from libs.runtime.db import Database, DatabaseError, SerializationFailure, Session, Statement, UniqueViolation
from libs.runtime.errors import Unavailable
from tests.chaos.proxy import Proxy, Side
from tests.conftest import FreshDatabase

POOL_SIZE = 4
SECRET = "what the candidate said"
CREATE = Statement(
    "create", "CREATE TABLE history.notes (id int PRIMARY KEY, body text NOT NULL CHECK (body <> 'refused'))"
)
INSERT = Statement("insert", "INSERT INTO history.notes (id, body) VALUES (%(id)s, %(body)s)")
UPDATE = Statement("update", "UPDATE history.notes SET body = body || %(more)s WHERE id = %(id)s")
BODIES = Statement("bodies", "SELECT id, body FROM history.notes ORDER BY id")
SLEEP = Statement("sleep", "SELECT pg_sleep(%(seconds)s)")
ONE = Statement("one", "SELECT 1 AS one")
HANG_UP = Statement(
    "hang_up",
    "SELECT count(pg_terminate_backend(pid, 5000)) AS ended FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = %(name)s",
)

SLEEPING = Statement(
    "sleeping",
    "SELECT count(*) AS sleeping FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'colloquy-notes' AND wait_event = 'PgSleep'",
)


@pytest.fixture
def dsn(fresh_database: FreshDatabase) -> str:
    return fresh_database().dsns["history"]


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn, "notes", pool_size=POOL_SIZE, statement_timeout_ms=30_000)
    await database.execute(CREATE)
    yield database
    await database.close()


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[Database]:
    """Somebody else's connections to the same database."""
    database = Database(dsn, "other")
    yield database
    await database.close()


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of this test's own, to be killed."""
    directory = Path(tempfile.mkdtemp(prefix="colloquy-test-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory)
    server.start()
    yield server
    server.destroy()


@asynccontextmanager
async def linked(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A link to the server that can be made to fail, and the DSN that leads over it."""
    url = urlsplit(dsn)
    assert url.hostname
    assert url.port
    async with Proxy((url.hostname, url.port)) as link:
        yield link, url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{link.port}").geturl()


async def only(session: Session, statement: Statement, params: Mapping[str, object] | None = None) -> Any:
    """The row of a statement that has one."""
    row = await session.one(statement, params)
    assert row is not None
    return row


async def one_of(db: Database) -> int:
    number: int = (await only(db, ONE)).one
    return number


async def sleeping_of(watcher: Database) -> int:
    """How many statements of `db` sleep at the server; `watcher` is on the same database."""
    sleeping: int = (await only(watcher, SLEEPING)).sleeping
    return sleeping


async def until(count: Callable[[], Awaitable[int]], expected: int) -> None:
    async with asyncio.timeout(30):
        while await count() != expected:  # noqa: ASYNC110 (the server has no event to wait for)
            await asyncio.sleep(0.01)


async def bodies(db: Database) -> dict[int, str]:
    return {row.id: row.body for row in await db.all(BODIES)}


async def test_a_statement_is_a_transaction_and_binds_by_name(db: Database) -> None:
    hostile = "'; DROP TABLE history.notes; -- %s {} \\ \u202e 👩‍👩‍👧"

    assert await db.execute(INSERT, {"id": 1, "body": hostile}) == 1
    row = await only(db, Statement("get", "SELECT id, body FROM history.notes WHERE id = %(id)s"), {"id": 1})

    assert (row.id, row.body) == (1, hostile)
    assert tuple(row) == (1, hostile)


async def test_no_row_is_none_and_no_rows_are_an_empty_sequence(db: Database) -> None:
    assert await db.one(BODIES) is None
    assert list(await db.all(BODIES)) == []


async def test_a_connection_is_named_times_statements_out_and_commits_durably(db: Database) -> None:
    row = await only(
        db,
        Statement(
            "settings",
            "SELECT current_setting('application_name') AS name, current_setting('statement_timeout') AS timeout, "
            "current_setting('synchronous_commit') AS durable",
        ),
    )

    assert tuple(row) == ("colloquy-notes", "30s", "on")


async def test_a_transaction_commits_at_its_end_and_rolls_back_on_an_exception(db: Database) -> None:
    async with db.transaction() as tx:
        await tx.execute(INSERT, {"id": 1, "body": "kept"})
        assert (await only(tx, BODIES)).body == "kept"
        assert await bodies(db) == {}

    async def fail() -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, {"id": 2, "body": "undone"})
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await bodies(db) == {1: "kept"}


async def test_a_transaction_is_read_committed(db: Database) -> None:
    async with db.transaction() as tx:
        row = await only(tx, Statement("isolation", "SHOW transaction_isolation"))

    assert row.transaction_isolation == "read committed"


async def test_a_refused_statement_leaves_its_transaction_undone_and_the_pool_whole(db: Database) -> None:
    await db.execute(INSERT, {"id": 1, "body": "first"})

    async def write() -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, {"id": 2, "body": "undone"})
            await tx.execute(INSERT, {"id": 1, "body": "again"})

    with pytest.raises(UniqueViolation):
        await write()
    assert await bodies(db) == {1: "first"}


async def test_refusals_are_told_by_sqlstate_and_quote_no_row(db: Database) -> None:
    await db.execute(INSERT, {"id": 1, "body": "first"})

    with pytest.raises(UniqueViolation) as unique:
        await db.execute(INSERT, {"id": 1, "body": SECRET})
    with pytest.raises(DatabaseError) as missing:
        await db.execute(Statement("bad", "INSERT INTO history.notes (body) VALUES (%(body)s)"), {"body": SECRET})
    with pytest.raises(DatabaseError) as check:
        await db.execute(INSERT, {"id": 2, "body": "refused"})
    with pytest.raises(DatabaseError) as syntax:
        await db.execute(Statement("nonsense", "SELEKT 1"))

    assert (unique.value.sqlstate, unique.value.constraint) == ("23505", "notes_pkey")
    assert [raised.value.sqlstate for raised in (missing, check, syntax)] == ["23502", "23514", "42601"]
    assert SECRET not in "".join(traceback.format_exception(unique.value) + traceback.format_exception(missing.value))


async def test_a_statement_that_takes_too_long_is_unavailable(dsn: str) -> None:
    db = Database(dsn, "impatient", statement_timeout_ms=1000)

    with pytest.raises(Unavailable) as raised:
        await db.one(SLEEP, {"seconds": 10})

    assert isinstance(raised.value.__cause__, DatabaseError)
    assert raised.value.__cause__.sqlstate == "57014"
    assert await one_of(db) == 1
    await db.close()


async def test_a_cancelled_statement_is_ended_at_the_server_and_its_connection_stays_sound(
    db: Database, other: Database
) -> None:
    sleeping = [asyncio.create_task(db.one(SLEEP, {"seconds": 60})) for _ in range(POOL_SIZE)]
    await until(lambda: sleeping_of(other), POOL_SIZE)

    for task in sleeping:
        task.cancel()
    ended = await asyncio.gather(*sleeping, return_exceptions=True)

    assert all(isinstance(it, asyncio.CancelledError) for it in ended)
    assert await asyncio.gather(*(one_of(db) for _ in range(2 * POOL_SIZE))) == [1] * (2 * POOL_SIZE)
    assert await sleeping_of(other) == 0


async def test_a_cancelled_transaction_is_undone(db: Database) -> None:
    inserted = asyncio.Event()

    async def write() -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, {"id": 1, "body": "undone"})
            inserted.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await inserted.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    await db.execute(INSERT, {"id": 1, "body": "free"})
    assert await bodies(db) == {1: "free"}


async def test_a_deadlock_undoes_one_transaction_which_is_run_again_whole(db: Database) -> None:
    for number in (1, 2):
        await db.execute(INSERT, {"id": number, "body": ""})
    both_hold_one = asyncio.Barrier(2)
    one_is_done = asyncio.Event()
    attempts: list[str] = []

    def crossing(name: str, first: int, second: int) -> asyncio.Task[None]:
        async def write() -> None:
            attempts.append(name)
            if attempts.count(name) > 1:  # else it could take its row before the other wakes, and cross it once more
                await one_is_done.wait()
            async with db.transaction() as tx:
                await tx.execute(UPDATE, {"id": first, "more": name})
                if attempts.count(name) == 1:
                    await both_hold_one.wait()
                await tx.execute(UPDATE, {"id": second, "more": name})
            one_is_done.set()

        return asyncio.create_task(db.retrying(write))

    await asyncio.gather(crossing("a", 1, 2), crossing("b", 2, 1))

    assert len(attempts) == 3
    assert {"".join(sorted(body)) for body in (await bodies(db)).values()} == {"ab"}


async def test_a_transaction_that_always_conflicts_is_given_up(db: Database) -> None:
    attempts = 0

    async def conflict() -> None:
        nonlocal attempts
        attempts += 1
        await db.execute(Statement("conflict", "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))

    with pytest.raises(SerializationFailure):
        await db.retrying(conflict)

    assert attempts == 5


async def test_other_failures_are_not_run_again(db: Database) -> None:
    attempts = 0

    async def refused() -> None:
        nonlocal attempts
        attempts += 1
        await db.execute(INSERT, {"id": 1, "body": "refused"})

    with pytest.raises(DatabaseError):
        await db.retrying(refused)

    assert attempts == 1


async def test_many_callers_share_a_few_connections_in_turn(dsn: str) -> None:
    db = Database(dsn, "small", pool_size=1)
    served: list[int] = []

    async def ask(number: int) -> None:
        await db.one(ONE)
        served.append(number)

    await asyncio.gather(*(ask(number) for number in range(30)))

    assert served == list(range(30))
    await db.close()


async def test_who_waits_a_second_for_a_connection_is_told_that_there_is_none(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAIT_SECONDS", 1.0)  # as in production
    db = Database(dsn, "full", pool_size=1)

    async with db.transaction():
        with pytest.raises(Unavailable):
            await db.one(ONE)

    assert await one_of(db) == 1
    await db.close()


async def test_connections_that_the_server_closed_are_replaced_before_anything_is_sent(
    db: Database, other: Database
) -> None:
    await asyncio.gather(*(db.one(SLEEP, {"seconds": 0.05}) for _ in range(POOL_SIZE)))
    assert (await only(other, HANG_UP, {"name": "colloquy-notes"})).ended == POOL_SIZE

    assert await asyncio.gather(*(one_of(db) for _ in range(2 * POOL_SIZE))) == [1] * (2 * POOL_SIZE)


async def test_a_connection_lost_under_a_statement_is_unavailable_and_the_statement_is_not_sent_again(
    db: Database, other: Database
) -> None:
    write = Statement("write", "WITH slept AS (SELECT pg_sleep(60)) INSERT INTO history.notes SELECT 1, 'x' FROM slept")
    writing = asyncio.create_task(db.execute(write))
    await until(lambda: sleeping_of(other), 1)

    await other.one(HANG_UP, {"name": "colloquy-notes"})

    with pytest.raises(Unavailable):
        await writing
    assert await bodies(db) == {}


async def test_a_server_that_says_nothing_more_is_given_up_and_new_connections_serve(dsn: str) -> None:
    async with linked(dsn) as (link, through):
        db = Database(through, "silent", pool_size=POOL_SIZE, statement_timeout_ms=1000)
        await asyncio.gather(*(db.one(SLEEP, {"seconds": 0.05}) for _ in range(POOL_SIZE)))

        with link.swallowing():  # all connections that there are, for as long as the block lasts
            async with asyncio.timeout(60):
                waited = await asyncio.gather(*(db.one(ONE) for _ in range(POOL_SIZE)), return_exceptions=True)
                served = await asyncio.gather(*(one_of(db) for _ in range(2 * POOL_SIZE)))

        assert [type(it) for it in waited] == [Unavailable] * POOL_SIZE
        assert served == [1] * (2 * POOL_SIZE)
        await db.close()


async def test_a_transaction_whose_server_says_nothing_more_is_given_up(dsn: str) -> None:
    async with linked(dsn) as (link, through):
        db = Database(through, "silent", pool_size=1, statement_timeout_ms=1000)

        async def ask() -> None:
            async with asyncio.timeout(60), db.transaction() as transaction:
                with link.swallowing():
                    await transaction.one(ONE)

        with pytest.raises(Unavailable):
            await ask()
        assert await one_of(db) == 1
        await db.close()


async def test_the_pool_recovers_by_itself_when_postgresql_was_killed_and_started_again(
    postgres: EmbeddedPostgres,
) -> None:
    db = Database(postgres.dsn(), "killed", pool_size=POOL_SIZE)
    await asyncio.gather(*(db.one(SLEEP, {"seconds": 0.05}) for _ in range(POOL_SIZE)))
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, postgres.pid, os.WEXITED | os.WNOWAIT)

    async def ask_on() -> None:
        while True:  # a backend may outlive its postmaster by a moment
            await db.one(ONE)

    with pytest.raises(Unavailable):
        await asyncio.wait_for(ask_on(), 60)
    postgres.start()

    assert await asyncio.gather(*(one_of(db) for _ in range(2 * POOL_SIZE))) == [1] * (2 * POOL_SIZE)
    await db.close()


def when_asked(faulty: pytest.MonkeyPatch, asked: bytes, do: Callable[[Side], None]) -> None:
    """Have something else done with what asks for it than pass it on."""
    received = Side.data_received
    faulty.setattr(Side, "data_received", lambda side, data: do(side) if asked in data else received(side, data))


@pytest.mark.parametrize("asked", [b"pg_catalog.version", b"current_schema", b"pg_type"])
async def test_a_first_connection_that_is_lost_while_sqlalchemy_asks_about_the_server_is_unavailable(
    dsn: str, monkeypatch: pytest.MonkeyPatch, asked: bytes
) -> None:
    async with linked(dsn) as (_, through):
        db = Database(through, "new", pool_size=1)
        with monkeypatch.context() as faulty:
            when_asked(faulty, asked, lambda side: side._connection.cut())
            with pytest.raises(Unavailable):
                await db.one(ONE)

        assert await one_of(db) == 1
        await db.close()


async def test_a_server_that_falls_silent_right_after_the_login_is_given_up(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 2)  # as in production

    async with linked(dsn) as (_, through):
        db = Database(through, "new", pool_size=1)
        with monkeypatch.context() as faulty:
            when_asked(faulty, b"pg_catalog.version", lambda _: None)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(db.one(ONE), 60)

        assert await one_of(db) == 1
        await db.close()


async def test_a_server_that_is_not_there_is_unavailable_and_the_password_is_not_told() -> None:
    db = Database("postgresql://colloquy:pa55word@127.0.0.1:1/nowhere", "absent")

    with pytest.raises(Unavailable) as raised:
        await db.one(ONE)

    told = "".join(traceback.format_exception(raised.value))
    assert 'connection to server at "127.0.0.1", port 1 failed: Connection refused' in told
    assert "pa55word" not in told


async def test_a_url_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="postgresql://"):
        Database("mysql://localhost/x", "wrong")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://colloquy:s3cr@et:secret@127.0.0.1:5432/x",
        "postgresql://colloquy:p@secret@localhost:1/x",
        "postgresql://colloquy:pa/secret@localhost:1/x",
    ],
)
async def test_a_url_that_is_not_encoded_is_refused_without_a_word_of_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="colloquy-wrong must be postgresql://") as raised:
        Database(url, "wrong")

    assert "secret" not in "".join(traceback.format_exception(raised.value))


async def test_statements_and_connections_are_measured(dsn: str) -> None:
    name = f"measured-{uuid.uuid4()}"
    db = Database(dsn, name)

    def sample(metric: str, labels: dict[str, str]) -> float | None:
        telemetry.flush()
        return REGISTRY.get_sample_value(f"colloquy_{metric}", labels)

    await db.one(Statement(name, "SELECT 1"))
    async with db.transaction():
        in_use = sample("db_pool_connections", {"service": name, "state": "in_use"})

    assert sample("db_statement_seconds_count", {"statement": name}) == 1
    assert in_use == 1
    assert sample("db_pool_connections", {"service": name, "state": "idle"}) == 1
    await db.close()
    assert sample("db_pool_connections", {"service": name, "state": "idle"}) == 0
