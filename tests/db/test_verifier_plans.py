"""What the verifier's statements read of large tables: sessions by their key, whatever PostgreSQL knows of them."""

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID, uuid4

import psycopg
import pytest

from libs.runtime.db import Statement
from services.verifier import statements
from tests.databases import Database, Server
from tests.db.plans import plan_nodes

SESSIONS, TURNS, BATCH = 5_000, 8, 50

# Sessions in all contexts, each with so many turns; nearly all are settled.
FILL = """
INSERT INTO history.streams (session_id, owner_id, kind, facts, max_turns, min_interval_ms, lease_ms, last_seq, rev,
    acked_rev, head_digest)
SELECT gen_random_uuid(), 'alice', 'chat', 'f', 100, 0, 5000, %(turns)s, 2, CASE n WHEN 1 THEN 1 ELSE 2 END, sha256('')
FROM generate_series(1, %(sessions)s) n;
INSERT INTO history.turns (session_id, turn_id, request_id, state, fence, base_seq, seq, committed_at)
SELECT session_id, gen_random_uuid(), gen_random_uuid(), 'COMMITTED', n, n - 1, n, now()
FROM history.streams, generate_series(1, %(turns)s) n;
INSERT INTO session.sessions (session_id, owner_id, kind, max_turns, head_digest)
SELECT session_id, 'alice', 'chat', 100, sha256('') FROM history.streams;
INSERT INTO assessment.interviews (session_id, plan, bank_version, head_digest)
SELECT session_id, 'p', 'b', sha256('') FROM history.streams;
INSERT INTO assessment.answers (session_id, turn_id, item_id) SELECT session_id, turn_id, 'i' FROM history.turns;
INSERT INTO llm.sessions (session_id) SELECT session_id FROM history.streams;
INSERT INTO llm.calls (session_id, turn_id, purpose, state, fence, lease_until, cost_nano_usd, prompt_version,
    finished_at)
SELECT session_id, turn_id, 'question', 'DONE', 1, now(), 1, 'v', now() FROM history.turns;
INSERT INTO llm.attempts (session_id, turn_id, purpose, fence, attempt, state, provider, model, cost_nano_usd,
    finished_at)
SELECT session_id, turn_id, 'question', 1, 1, 'settled', 'p', 'm', 1, now() FROM history.turns
"""
READING = {name: it for name, it in vars(statements).items() if isinstance(it, Statement) and name != "SNAPSHOT"}
BY_ID = {name: it for name, it in READING.items() if name != "UNSETTLED"}


@pytest.fixture(scope="module", params=["young", "analyzed"])
def crowded(request: pytest.FixtureRequest, database_server: Server) -> Iterator[tuple[Database, Sequence[UUID]]]:
    """Five thousand sessions, and the ids of a batch of them."""
    own = database_server.create()
    with psycopg.connect(own.owner_dsn, autocommit=True) as connection:
        for statement in FILL.split(";"):
            connection.execute(statement.encode(), {"sessions": SESSIONS, "turns": TURNS})
        if request.param == "analyzed":
            connection.execute("ANALYZE")
        rows = connection.execute("SELECT session_id FROM history.streams LIMIT %s", [BATCH]).fetchall()
    yield own, [row[0] for row in rows]
    database_server.drop(own.name)


def rows_read(own: Database, statement: Statement, params: Mapping[str, object]) -> int:
    """How many rows its scans looked at, also those that they then left out."""
    return sum(
        int(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)))
        for node in plan_nodes(own.owner_dsn, statement, params, "generic")
        if "Scan" in node["Node Type"] and node["Node Type"] != "Bitmap Index Scan"
    )


@pytest.mark.parametrize("name", BY_ID)
def test_a_batch_of_sessions_is_all_that_is_read(name: str, crowded: tuple[Database, Sequence[UUID]]) -> None:
    own, session_ids = crowded

    assert 1 <= rows_read(own, BY_ID[name], {"session_ids": session_ids}) <= BATCH * TURNS


@pytest.mark.parametrize("context", statements.PAGES)
def test_a_page_of_ids_is_all_that_is_read(context: str, crowded: tuple[Database, Sequence[UUID]]) -> None:
    own, _ = crowded

    assert rows_read(own, statements.PAGES[context], {"after": uuid4(), "limit": 5}) <= 5


def test_sessions_that_are_settled_are_not_read_to_find_those_that_are_not(
    crowded: tuple[Database, Sequence[UUID]],
) -> None:
    own, _ = crowded

    assert rows_read(own, statements.UNSETTLED, {"after": UUID(int=0), "limit": 5}) == 1
