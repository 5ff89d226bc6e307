"""How PostgreSQL finds rows in a session of 10,000 turns: by whole keys, whatever it knows of the parameters."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from libs.runtime.db import Statement
from services.history import statements
from tests.conftest import FreshDatabase
from tests.databases import Database

TURNS = 10_000
YOUNG_SESSIONS = 12_000
SESSION, SHORT, RUNNING, ABANDONED, OTHER = uuid4(), uuid4(), uuid4(), uuid4(), uuid4()
MOST_ROWS_READ = 20  # more than a window's or a list's here, fewer than a session's

# One long session among many that have just been opened: what PostgreSQL sees of such a table tells it that a session
# has a turn or two, and that any index that begins with the session will do.
FILL = """
INSERT INTO history.streams (session_id, owner_id, kind, request_id, fingerprint, facts, max_turns, min_interval_ms,
    lease_ms, last_seq, fence, rev, salt, head_digest)
SELECT CASE n WHEN 0 THEN %(session)s WHEN 1 THEN %(short)s ELSE gen_random_uuid() END,
    'alice', 'chat', gen_random_uuid(), %(hash)s, 'f', 20000, 0, 5000,
    CASE n WHEN 0 THEN %(turns)s ELSE 1 END, 1, 1, %(hash)s, %(hash)s
FROM generate_series(0, %(young)s) n;
INSERT INTO history.turns (session_id, turn_id, request_id, fingerprint, state, fence, base_seq, seq, user_text,
    reply_text, reply_tokens, item_asked, record, content, digest, committed_at)
SELECT s.session_id, gen_random_uuid(), gen_random_uuid(), %(hash)s, 'COMMITTED', n, n - 1, n, 'hello',
    'Why?', 2, 'item-' || n, 'r', %(hash)s, %(hash)s, now()
FROM history.streams s, generate_series(1, s.last_seq) n
WHERE s.salt = %(hash)s;
INSERT INTO history.turns (session_id, turn_id, request_id, fingerprint, state, fence, base_seq, user_text)
VALUES (%(session)s, %(running)s, gen_random_uuid(), %(hash)s, 'RUNNING', 1, %(turns)s, 'hello'),
    (%(session)s, %(abandoned)s, gen_random_uuid(), %(hash)s, 'ABANDONED', 1, %(turns)s, 'hello');
INSERT INTO history.interventions (session_id, intervention_id, action, actor, reason, before, after)
SELECT session_id, session_id, 'RESET', 'olga', 'stuck', '{}', '{}' FROM history.streams;
UPDATE history.streams SET active_turn = %(running)s, claim_id = %(running)s, lease_until = now()
WHERE session_id = %(session)s;
ANALYZE history.streams, history.turns, history.interventions;
"""

VIEWER: Mapping[str, object] = {"owner_id": "alice", "any_owner": False, "kind": "chat"}
CLAIMED: Mapping[str, object] = {"session_id": SESSION, "rev": 1, "turn_id": RUNNING, "claim_id": uuid4()}
REPAIR: Mapping[str, object] = {
    "session_id": SESSION,
    "rev": 1,
    "active_turn": RUNNING,
    "intervention_id": uuid4(),
    "actor": "olga",
    "reason": "stuck",
    "before": "{}",
}
MESSAGE: Mapping[str, object] = {
    "turn_id": OTHER,
    "request_id": uuid4(),
    "fingerprint": b"x" * 32,
    "user_text": "hello",
    "user_tokens": 1,
    "item_answered": None,
}
PARAMETERS: Mapping[str, Mapping[str, object]] = {
    "OPEN": {
        **VIEWER,
        "session_id": uuid4(),
        "tenant_id": None,
        "request_id": uuid4(),
        "fingerprint": b"x" * 32,
        "facts": b"",
        "personal_facts": b"",
        "max_turns": 1,
        "min_interval_ms": 0,
        "lease_ms": 1,
        "salt": b"s" * 32,
        "head_digest": b"d" * 32,
        "fence": 1,
        "turn_id": OTHER,
        "claim_id": uuid4(),
        "lease_left_ms": 1,
    },
    "STANDING": {**VIEWER, "session_id": SESSION, "request_id": uuid4(), "window_turns": 6},
    "CLAIM": {**CLAIMED, **MESSAGE},
    "TAKE_OVER": CLAIMED,
    "SUPERSEDE": CLAIMED,
    "COMMIT": {
        "session_id": SESSION,
        "turn_id": RUNNING,
        "fence": 1,
        "reply_text": "Why?",
        "reply_tokens": 1,
        "record": b"r",
        "item_asked": None,
        "final": True,
    },
    "RELEASE": {"session_id": SESSION, "turn_id": RUNNING, "fence": 1, "state": "ABANDONED", "reason": "UNAVAILABLE"},
    "TURN_AND_HEAD": {"session_id": SESSION, "turn_id": RUNNING},
    "HEAD": {**VIEWER, "session_id": SESSION},
    "STREAM": {**VIEWER, "session_id": SESSION},
    "STREAMS": {**VIEWER, "session_ids": [SESSION, uuid4()]},
    "TURNS": {"session_id": SESSION, "first": TURNS - 4, "last": TURNS},
    "TURN_STATES": {"session_ids": [SESSION, uuid4()], "turn_ids": [RUNNING, OTHER]},
    "UNSETTLED": {"after_session_id": SESSION, "min_age_ms": 0, "limit": 5},
    "ACKNOWLEDGE": {"session_ids": [SESSION, uuid4()], "revs": [1, 1]},
    "SEAL": {"session_id": SESSION, "rev": 1, "active_turn": RUNNING},
    "RESET": REPAIR,
    "COMPLETE": REPAIR,
    "INTERVENTION": {"session_id": SESSION, "intervention_id": SESSION},
    "INTERVENTIONS": {"session_id": SESSION, "limit": 100},
    "INSPECTION": {"session_id": SESSION, "id": RUNNING},
    "ERASE": {"session_id": SHORT, "rev": 1},  # it reads its session whole
}
STATEMENTS = {name: it for name, it in vars(statements).items() if isinstance(it, Statement)}


@pytest.fixture(scope="module")
async def connection(database: Database) -> AsyncIterator[psycopg.AsyncConnection]:
    dsn = database.dsns["history"]
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        values = {
            "session": SESSION,
            "short": SHORT,
            "running": RUNNING,
            "abandoned": ABANDONED,
            "turns": TURNS,
            "young": YOUNG_SESSIONS,
            "hash": uuid4().bytes * 2,
        }
        for statement in FILL.split(";"):
            if statement.strip():
                await connection.execute(statement.encode(), values)
        yield connection


async def plan(
    connection: psycopg.AsyncConnection, statement: Statement, params: Mapping[str, object], mode: str
) -> dict[str, Any]:
    """The plan that ran, as JSON; what the statement did is undone."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement.sql)))
    text = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", statement.sql)
    types = sql.SQL(", ").join(sql.SQL(type_name(params[name])) for name in names)
    values = sql.SQL(", ").join(sql.Literal(params[name]) for name in names)
    async with connection.transaction(force_rollback=True):
        await connection.execute(sql.SQL("SET LOCAL plan_cache_mode = {}").format(sql.Literal(mode)))
        await connection.execute(sql.SQL("PREPARE it ({}) AS ").format(types).as_bytes(connection) + text.encode())
        try:
            cursor = await connection.execute(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE it ({})").format(values))
            row = await cursor.fetchone()
        finally:
            await connection.execute("DEALLOCATE it")
    assert row is not None
    found: dict[str, Any] = row[0][0]["Plan"]
    return found


def type_name(value: object) -> Any:
    if isinstance(value, list):
        return f"{type_name(value[0])}[]"
    return {UUID: "uuid", bytes: "bytea", bool: "boolean", int: "bigint"}.get(type(value), "unknown")


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


def test_every_statement_of_the_store_is_looked_at() -> None:
    assert set(PARAMETERS) == set(STATEMENTS)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", PARAMETERS)
async def test_rows_are_found_by_their_whole_key(connection: psycopg.AsyncConnection, name: str, mode: str) -> None:
    found = list(nodes(await plan(connection, STATEMENTS[name], PARAMETERS[name], mode)))

    shown = json.dumps(found[0], indent=1)
    assert not [node for node in found if node["Node Type"] == "Seq Scan"], shown
    for node in found:
        if "Scan" in node["Node Type"]:
            thrown_away = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            rows = (node["Actual Rows"] + thrown_away) * node["Actual Loops"]
            assert rows <= MOST_ROWS_READ, shown


@pytest.mark.parametrize(
    "name", ["CLAIM", "TAKE_OVER", "SUPERSEDE", "COMMIT", "RELEASE", "SEAL", "RESET", "COMPLETE", "ERASE"]
)
async def test_the_writes_that_were_looked_at_did_write(connection: psycopg.AsyncConnection, name: str) -> None:
    found = nodes(await plan(connection, STATEMENTS[name], PARAMETERS[name], "auto"))

    written = [node["Plans"][0]["Actual Rows"] for node in found if node["Node Type"] == "ModifyTable"]
    assert len(written) == (3 if name in ("COMMIT", "RESET", "COMPLETE") else 2)
    assert all(written)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_commit_looks_for_what_was_given_back_only_if_it_is_the_last(
    connection: psycopg.AsyncConnection, mode: str
) -> None:
    scans = {}
    for final in (True, False):
        found = nodes(await plan(connection, statements.COMMIT, {**PARAMETERS["COMMIT"], "final": final}, mode))
        scans[final] = sum(node["Actual Loops"] for node in found if node.get("Index Name") == "turns_abandoned")

    assert scans == {True: 1, False: 0}


# A table as it is in quiet hours, with the turns under way among many sessions that are settled.
SETTLED = """
INSERT INTO history.streams (session_id, owner_id, kind, facts, max_turns, min_interval_ms, lease_ms, head_digest, rev,
    acked_rev)
SELECT gen_random_uuid(), 'alice', 'chat', repeat('f', 100)::bytea, 100, 0, 5000, %(hash)s, 9,
    CASE WHEN n %% 2500 = 0 THEN 8 ELSE 9 END
FROM generate_series(1, 20000) n;
"""


@pytest.mark.parametrize("analyzed", [False, True], ids=["young", "analyzed"])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_sweep_reads_the_index_of_unsettled_streams_and_no_settled_one(
    fresh_database: FreshDatabase, mode: str, analyzed: bool
) -> None:
    dsn = fresh_database().dsns["history"]
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(SETTLED.encode(), {"hash": bytes(32)})
        if analyzed:
            await connection.execute("ANALYZE history.streams")

        asked = {"after_session_id": UUID(int=0), "min_age_ms": 1, "limit": 501}
        found = list(nodes(await plan(connection, statements.UNSETTLED, asked, mode)))

    shown = json.dumps(found[0], indent=1)
    [scan] = [node for node in found if node.get("Index Name") == "streams_unsettled"]
    assert not [node for node in found if node["Node Type"] == "Seq Scan"], shown
    assert (scan["Actual Rows"], scan.get("Rows Removed by Filter", 0)) == (8, 0), shown
