"""Brings a context's schema to a revision, in one transaction and under one lock, however many migrators there are.

`colloquy migrate`, `make run` and the tests call it; a service never does.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, NullPool, create_engine, text

_INI = Path(__file__).with_name("alembic.ini")


def migrate(dsns: Mapping[str, str]) -> None:
    """Bring the schema of every context in `dsns` (connection URIs by context) forward to its head; safe to repeat.

    Raises sqlalchemy.exc.OperationalError where a database cannot be reached. A migration that fails leaves its context
    as it was, and those that came before it migrated.
    """
    for context, dsn in dsns.items():
        with _exclusively(context, dsn) as connection:
            _ensure_schema(context, connection)
            command.upgrade(_bound(context, connection), "head")


def configuration(context: str) -> Config:
    """Alembic's view of one context: where its revisions are, and the name of its schema."""
    return Config(_INI, ini_section=context)


def current(context: str, dsn: str) -> str | None:
    """The revision that `context`'s schema has, None where it was never migrated."""
    with _connected(dsn) as connection:
        options = {"version_table_schema": context}
        return MigrationContext.configure(connection, opts=options).get_current_revision()


def downgrade(context: str, dsn: str, revision: str = "base") -> None:
    """Take one context back to `revision`. At `base` its tables are gone, with all that was in them."""
    with _exclusively(context, dsn) as connection:
        command.downgrade(_bound(context, connection), revision)


@contextmanager
def _exclusively(context: str, dsn: str) -> Iterator[Connection]:
    """A transaction that no other migrator of this context runs beside; committed at the end of the block."""
    with _connected(dsn) as connection:
        connection.execute(text("SELECT pg_catalog.pg_advisory_xact_lock(:key)"), {"key": _lock_key(context)})
        yield connection


@contextmanager
def _connected(dsn: str) -> Iterator[Connection]:
    # psycopg reads the DSN itself, so whatever libpq understands will do; no prepared statements, for PgBouncer's sake.
    engine = create_engine(
        "postgresql+psycopg://",
        poolclass=NullPool,
        creator=lambda: psycopg.connect(dsn, prepare_threshold=None, connect_timeout=10),
    )
    with engine.begin() as connection:
        yield connection


def _lock_key(context: str) -> int:
    digest = hashlib.sha256(f"colloquy/migrations/{context}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _ensure_schema(context: str, connection: Connection) -> None:
    # IF NOT EXISTS would not do: it asks for the right to create schemas even where there is one already.
    exists = connection.scalar(text("SELECT pg_catalog.to_regnamespace(:name) IS NOT NULL"), {"name": context})
    if not exists:
        connection.execute(text(f"CREATE SCHEMA {context}"))


def _bound(context: str, connection: Connection) -> Config:
    config = configuration(context)
    config.attributes["connection"] = connection
    return config
