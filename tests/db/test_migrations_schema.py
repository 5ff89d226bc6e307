"""What each context's schema refuses by itself, whatever a service does: the protocol's constraints, by name."""

import uuid
from collections.abc import Iterator, Mapping

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import CheckViolation, ForeignKeyViolation, UniqueViolation

from migrations.heads import CONTEXTS
from tests.databases import Database

DIGEST = bytes(32)
SEALED = {"sealed": True, "sealed_at": "now"}
Row = Mapping[str, object]


@pytest.fixture
def history(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.dsns["history"], autocommit=True) as connection:
        yield connection


def insert(connection: psycopg.Connection, table: str, row: Row) -> None:
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(*table.split(".")),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Placeholder, row)),
    )
    connection.execute(statement, row)


def stream(**changes: object) -> dict[str, object]:
    return {
        "session_id": uuid.uuid4(),
        "owner_id": "alice",
        "kind": "interview",
        "facts": b"{}",
        "max_turns": 100,
        "min_interval_ms": 3000,
        "lease_ms": 4000,
        "head_digest": DIGEST,
        **changes,
    }


def turn(session_id: object, **changes: object) -> dict[str, object]:
    return {
        "session_id": session_id,
        "turn_id": uuid.uuid4(),
        "request_id": uuid.uuid4(),
        "state": "RUNNING",
        "fence": 1,
        "base_seq": 0,
        **changes,
    }


def committed(session_id: object, seq: int, **changes: object) -> dict[str, object]:
    row = turn(session_id, state="COMMITTED", base_seq=seq - 1, seq=seq, content=DIGEST, digest=DIGEST)
    return {**row, "reply_text": "Why?", "committed_at": "now", **changes}


def open_stream(history: psycopg.Connection) -> object:
    row = stream()
    insert(history, "history.streams", row)
    return row["session_id"]


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"kind": "seance"}, "streams_kind_known"),
        ({"acked_rev": 2}, "streams_counters_ordered"),
        ({"max_turns": 0}, "streams_limits_positive"),
        ({"active_turn": uuid.uuid4()}, "streams_active_turn_leased"),
        (
            {**SEALED, "active_turn": uuid.uuid4(), "claim_id": uuid.uuid4(), "lease_until": "now"},
            "streams_sealed_is_quiet",
        ),
        ({"erased": True}, "streams_erased_is_empty"),
        ({**SEALED, "erased": True, "salt": DIGEST}, "streams_erased_is_empty"),
        ({"head_digest": b"short"}, "streams_head_digest_length"),
    ],
)
def test_a_stream_that_breaks_a_rule_is_refused(history: psycopg.Connection, changes: Row, constraint: str) -> None:
    with pytest.raises(CheckViolation) as refused:
        insert(history, "history.streams", stream(**changes))

    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"state": "PONDERING"}, "turns_state_known"),
        ({"state": "COMMITTED"}, "turns_committed_has_seq"),
        ({"seq": 1}, "turns_committed_has_seq"),
        ({"state": "COMMITTED", "seq": 2, "committed_at": "now"}, "turns_seq_follows_base"),
        ({"state": "FAILED"}, "turns_failed_has_reason"),
    ],
)
def test_a_turn_that_breaks_a_rule_is_refused(history: psycopg.Connection, changes: Row, constraint: str) -> None:
    session_id = open_stream(history)

    with pytest.raises(CheckViolation) as refused:
        insert(history, "history.turns", turn(session_id, **changes))

    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("column", "constraint"),
    [
        ("turn_id", "turns_pkey"),
        ("request_id", "turns_request_key"),
        ("seq", "turns_seq_key"),
        ("item_asked", "turns_item_asked_key"),
    ],
)
def test_no_two_turns_of_a_session_share_it(history: psycopg.Connection, column: str, constraint: str) -> None:
    session_id = open_stream(history)
    first = committed(session_id, 1, item_asked="python-gil")
    insert(history, "history.turns", first)
    second = committed(session_id, 1 if column == "seq" else 2, item_asked="sql-join")

    with pytest.raises(UniqueViolation) as refused:
        insert(history, "history.turns", {**second, column: first[column]})

    assert refused.value.diag.constraint_name == constraint


def test_turns_that_are_not_committed_have_no_seq_to_share(history: psycopg.Connection) -> None:
    session_id = open_stream(history)

    for state in ("ABANDONED", "ABANDONED", "RUNNING"):
        insert(history, "history.turns", turn(session_id, state=state))


def test_a_turn_without_a_stream_is_refused(history: psycopg.Connection) -> None:
    with pytest.raises(ForeignKeyViolation):
        insert(history, "history.turns", turn(uuid.uuid4()))


@pytest.mark.parametrize(
    ("context", "table", "constraint"),
    [
        ("session", "session.sessions", "sessions_whole_unless_erased"),
        ("assessment", "assessment.interviews", "interviews_whole_unless_erased"),
    ],
)
def test_a_tombstone_needs_nothing_but_its_key_and_a_live_row_needs_more(
    database: Database, context: str, table: str, constraint: str
) -> None:
    with psycopg.connect(database.dsns[context], autocommit=True) as connection:
        insert(connection, table, {"session_id": uuid.uuid4(), "erased": True})

        with pytest.raises(CheckViolation) as refused:
            insert(connection, table, {"session_id": uuid.uuid4()})

    assert refused.value.diag.constraint_name == constraint


def test_every_key_starts_with_the_session_so_that_one_shard_serves_a_turn(database: Database) -> None:
    keys = """
        SELECT conrelid::regclass::text, conname, attname
        FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
        WHERE contype IN ('p', 'u', 'f') AND connamespace::regnamespace::text = ANY (%s) AND conname !~ '^alembic_'
    """
    with psycopg.connect(database.owner_dsn) as connection:
        found = connection.execute(keys, (list(CONTEXTS),)).fetchall()

    assert len(found) > len(CONTEXTS)
    assert [key for key in found if key[2] != "session_id"] == []


def test_no_foreign_key_leaves_its_schema(database: Database) -> None:
    crossing = """
        SELECT conname FROM pg_constraint JOIN pg_class AS there ON there.oid = confrelid
        WHERE contype = 'f' AND there.relnamespace <> connamespace
    """
    with psycopg.connect(database.owner_dsn) as connection:
        assert connection.execute(crossing).fetchall() == []


def test_the_sweep_reads_an_index_of_unsettled_streams_only(history: psycopg.Connection) -> None:
    with history.transaction():
        history.execute("SET LOCAL enable_seqscan = off")
        history.execute("SET LOCAL enable_bitmapscan = off")
        plan = history.execute(
            "EXPLAIN SELECT session_id FROM history.streams WHERE acked_rev < rev AND session_id > %s"
            " ORDER BY session_id LIMIT 100",
            (uuid.UUID(int=0),),
        ).fetchall()

    assert "streams_unsettled" in str(plan)
