"""Migrating: forward, back, again, two at once, from anywhere, and what a service is told about it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from libs.runtime import db
from migrations import migrator
from migrations.heads import CONTEXTS, head
from migrations.readiness import is_migrated
from tests.conftest import FreshDatabase
from tests.databases import Database

MIGRATE = "import sys; from migrations.migrator import migrate; migrate(dict.fromkeys(sys.argv[2:], sys.argv[1]))"
CATALOG = """
    SELECT 'column', table_schema || '.' || table_name, column_name, data_type, concat(is_nullable, column_default)
    FROM information_schema.columns WHERE table_schema = ANY (%(schemas)s)
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, '', pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace::regnamespace::text = ANY (%(schemas)s)
    UNION ALL
    SELECT 'index', schemaname, indexname, '', indexdef FROM pg_indexes WHERE schemaname = ANY (%(schemas)s)
    ORDER BY 1, 2, 3, 5
"""


def catalog(database: Database) -> list[tuple[object, ...]]:
    """Every column, constraint and index of the contexts' schemas."""
    with psycopg.connect(database.owner_dsn) as connection:
        return connection.execute(CATALOG, {"schemas": list(CONTEXTS)}).fetchall()


def tables(database: Database) -> set[str]:
    return {str(row[1]) for row in catalog(database) if row[0] == "column"}


@contextmanager
def migrators_waiting(dsn: str, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """So many migrators of the history context, all of them stopped at its lock when the block begins."""
    with psycopg.connect(dsn) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", (migrator._lock_key("history"),))
        processes = [
            subprocess.Popen([sys.executable, "-c", MIGRATE, dsn, "history"], stderr=subprocess.PIPE, text=True)
            for _ in range(number)
        ]
        deadline = time.monotonic() + 90
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with psycopg.connect(dsn, autocommit=True) as watcher:
            while watcher.execute(waiting).fetchone() != (number,):
                assert time.monotonic() < deadline, [process.poll() for process in processes]
                time.sleep(0.02)
        yield processes


def test_the_head_named_by_the_files_is_the_one_that_the_revisions_lead_to() -> None:
    for context in CONTEXTS:
        script = ScriptDirectory.from_config(migrator.configuration(context))

        assert script.get_heads() == [head(context)]


def test_migrating_again_changes_nothing(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    before = catalog(own)

    migrator.migrate(own.dsns)

    assert catalog(own) == before
    assert {context: migrator.current(context, own.dsns[context]) for context in CONTEXTS} == {
        context: head(context) for context in CONTEXTS
    }


def test_back_and_forward_again_gives_the_same_schema(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    before = catalog(own)

    for context in CONTEXTS:
        migrator.downgrade(context, own.dsns[context])
    assert tables(own) == {f"{context}.alembic_version" for context in CONTEXTS}
    migrator.migrate(own.dsns)

    assert catalog(own) == before


def test_one_login_makes_all_schemas_of_an_empty_database(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    before = catalog(own)
    with psycopg.connect(own.owner_dsn) as connection:
        for context in CONTEXTS:
            connection.execute(f"DROP SCHEMA {context} CASCADE")

    migrator.migrate(dict.fromkeys(CONTEXTS, own.owner_dsn))

    assert catalog(own) == before


def test_migrators_at_once_take_turns_and_all_succeed(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    before = catalog(own)
    with psycopg.connect(own.owner_dsn) as connection:
        connection.execute("DROP SCHEMA history CASCADE")

    with migrators_waiting(own.owner_dsn, 3) as processes:
        pass  # the lock that stopped them is released here
    errors = [process.communicate()[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert catalog(own) == before


def test_a_migration_that_fails_leaves_its_context_as_it_was(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    with psycopg.connect(own.owner_dsn) as connection:
        connection.execute("DROP SCHEMA history CASCADE; CREATE SCHEMA history; CREATE VIEW history.turns AS SELECT 1")

    with pytest.raises(Exception, match='relation "turns" already exists'):
        migrator.migrate({"history": own.owner_dsn})

    assert tables(own) & {"history.streams", "history.alembic_version"} == set()


def test_it_works_from_any_working_directory(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    migrator.downgrade("llm", own.dsns["llm"])

    subprocess.run([sys.executable, "-c", MIGRATE, own.dsns["llm"], "llm"], cwd="/", check=True)

    assert migrator.current("llm", own.dsns["llm"]) == head("llm")


def test_a_database_that_is_not_there_is_an_operational_error() -> None:
    with pytest.raises(OperationalError):
        migrator.migrate({"history": "postgresql://nobody:guess@127.0.0.1:1/nowhere"})


async def test_a_service_is_ready_at_its_head_and_not_below_it(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    history = db.Database(own.dsns["history"], "history", pool_size=1)
    try:
        assert await is_migrated(history, "history")

        migrator.downgrade("history", own.dsns["history"])
        assert not await is_migrated(history, "history")

        with psycopg.connect(own.owner_dsn) as connection:
            connection.execute("DROP TABLE history.alembic_version")
        assert not await is_migrated(history, "history")
    finally:
        await history.close()


async def test_an_older_service_stays_ready_when_the_schema_moves_on(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    with psycopg.connect(own.owner_dsn) as connection:
        connection.execute("UPDATE history.alembic_version SET version_num = '9999'")
    history = db.Database(own.dsns["history"], "history", pool_size=1)
    try:
        assert await is_migrated(history, "history")
    finally:
        await history.close()


def test_asking_for_the_head_does_not_load_alembic() -> None:
    check = "import sys, migrations.readiness; sys.exit('alembic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
