"""Migrations: forward, back, at once, and what each context's schema refuses."""

import psycopg

from migrations.heads import CONTEXTS, head
from tests.databases import Database


def test_every_context_is_at_its_head(database: Database) -> None:
    for context in CONTEXTS:
        with psycopg.connect(database.dsns[context]) as connection:
            applied = connection.execute(f"SELECT version_num FROM {context}.alembic_version").fetchall()

        assert applied == [(head(context),)]
