"""The ledger's later revisions, on databases that were in use before them."""

import uuid

import psycopg
from psycopg.rows import dict_row

from migrations import migrator
from tests.conftest import FreshDatabase

OPENED = """
    INSERT INTO history.streams (session_id, owner_id, kind, facts, max_turns, min_interval_ms, lease_ms, head_digest)
    VALUES (%s, 'alice', 'chat', 'f', 100, 0, 5000, %s)
"""


def test_streams_of_before_have_rested_since_the_migration(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    migrator.downgrade("history", own.dsns["history"], "0001")
    with psycopg.connect(own.dsns["history"], autocommit=True, row_factory=dict_row) as connection:
        connection.execute(OPENED, [uuid.uuid4(), bytes(32)])
        before = connection.execute("SELECT *, clock_timestamp() AS now FROM history.streams").fetchone()

        migrator.migrate({"history": own.dsns["history"]})
        after = connection.execute("SELECT *, clock_timestamp() AS now FROM history.streams").fetchone()

    assert before is not None
    assert after is not None
    assert before["now"] <= after["changed_at"] <= after["now"]
    assert {name: after[name] for name in before if name != "now"} == {
        name: before[name] for name in before if name != "now"
    }
