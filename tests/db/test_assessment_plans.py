"""What the assessment's statements read: index scans by session, however many interviews there are."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from libs.runtime.db import Statement
from services.assessment import statements
from services.assessment.evidence import LONGEST
from tests.conftest import FreshDatabase
from tests.databases import Database, Server
from tests.db.plans import plan_nodes

INTERVIEWS = 20_000
ITEMS = 8
TABLES = {"interviews", "answers"}


@pytest.fixture(scope="module")
def crowded(database_server: Server) -> Iterator[Database]:
    """Twenty thousand interviews of eight items; one answer in a hundred waits for its score."""
    own = database_server.create()
    with psycopg.connect(own.owner_dsn, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO assessment.interviews (session_id, plan, bank_version, head_digest, applied_seq, asked)
            SELECT gen_random_uuid(), 'backend-engineer', 'backend-engineer/1', sha256(''), %(items)s,
                   array_fill('some-item-or-other'::text, ARRAY[%(items)s])
            FROM generate_series(1, %(interviews)s)
            """,
            {"items": ITEMS, "interviews": INTERVIEWS},
        )
        connection.execute(
            """
            INSERT INTO assessment.answers (session_id, turn_id, seq, folded_at, item_id, state, level, standard_error,
                                            scored_at)
            SELECT session_id, gen_random_uuid(), seq, now() - random() * interval '30 days', 'item-' || seq,
                   CASE WHEN waits THEN 'PENDING' ELSE 'SCORED' END, CASE WHEN NOT waits THEN 2 END,
                   CASE WHEN NOT waits THEN 0.5 END, CASE WHEN NOT waits THEN now() END
            FROM assessment.interviews, generate_series(2, %s) AS seq,
                 LATERAL (SELECT hashtext(session_id::text || seq) %% 100 = 0 AS waits) AS luck
            """,
            [ITEMS],
        )
        connection.execute("VACUUM ANALYZE assessment.interviews, assessment.answers")
    yield own
    database_server.drop(own.name)


def some_sessions(own: Database, number: int) -> list[UUID]:
    with psycopg.connect(own.owner_dsn) as connection:
        rows = connection.execute("SELECT session_id FROM assessment.interviews LIMIT %s", [number]).fetchall()
    return [row[0] for row in rows]


def scans(own: Database, statement: Statement, params: Mapping[str, object], mode: str) -> list[dict[str, Any]]:
    """How a statement reads the tables."""
    nodes = plan_nodes(own.dsns["assessment"], statement, params, mode)
    return [node for node in nodes if node.get("Relation Name") in TABLES and node["Node Type"] != "ModifyTable"]


@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_a_plan_reads_one_interview(crowded: Database, mode: str) -> None:
    (session_id,) = some_sessions(crowded, 1)

    read = scans(crowded, statements.READ, {"session_id": session_id, "turn_id": uuid4()}, mode)

    assert {node["Node Type"] for node in read} <= {"Index Scan", "Bitmap Heap Scan"}
    assert max(node["Actual Rows"] for node in read) < ITEMS


@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_a_score_is_set_by_its_key(crowded: Database, mode: str) -> None:
    (session_id,) = some_sessions(crowded, 1)
    params: dict[str, object] = {"session_id": session_id, "turn_id": uuid4(), "item_id": "item-9", "state": "SCORED"}
    params |= {"level": 2, "standard_error": 0.5, "confidence": 0.9, "misquotes": 0, "quotes": ["an index"]}
    params |= {
        "rationale": "It names one.",
        "judge_version": "judge/v1",
        "judge_model": "m",
        "failed_calls": 0,
        "pause_ms": None,
    }

    read = scans(crowded, statements.RECORD, params, mode)
    told = scans(crowded, statements.STANDING, {name: params[name] for name in ("session_id", "turn_id")}, mode)

    assert {node["Node Type"] for node in read + told} <= {"Index Scan"}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("size", [1, 200])
def test_a_batch_of_folds_finds_its_interviews_by_their_keys(crowded: Database, size: int, mode: str) -> None:
    ids = some_sessions(crowded, size)
    params: dict[str, object] = {
        "session_ids": ids,
        "step_ids": ids,
        "base_seqs": [ITEMS] * size,
        "base_digests": [sha256(b"").digest()] * size,
        "base_completed": [False] * size,
        "seqs": [ITEMS + 1] * size,
        "digests": [bytes(32)] * size,
        "completed": [False] * size,
        "refolded": [False] * size,
        "asked_from": list(range(1, size + 1)),
        "asked_to": list(range(1, size + 1)),
        "asked": ["another"] * size,
        "answer_ids": ids,
        "answer_turns": [uuid4() for _ in ids],
        "answer_seqs": [ITEMS + 1] * size,
        "answer_items": ["item-8"] * size,
    }

    read = scans(crowded, statements.ADVANCE, params, mode)

    assert {node["Node Type"] for node in read} <= {"Index Scan", "Bitmap Heap Scan"}
    assert not [node for node in read if node["Relation Name"] == "answers" and node["Actual Loops"]]


@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_unscored_answers_come_from_their_own_index_and_no_further_than_the_page(crowded: Database, mode: str) -> None:
    after = {"after": LONGEST.waits_from, "after_session_id": uuid4(), "after_turn_id": uuid4()}
    read = scans(crowded, statements.UNSCORED, {"min_age_ms": 1000, **after, "max_answers": 50}, mode)

    (answers,) = [node for node in read if node["Relation Name"] == "answers"]
    assert (answers["Node Type"], answers["Index Name"]) == ("Index Scan", "answers_unscored")
    assert answers["Actual Rows"] == 50
    assert {node["Node Type"] for node in read} == {"Index Scan"}


def test_a_fold_touches_no_index_of_its_interview(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    with psycopg.connect(own.owner_dsn, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO assessment.interviews (session_id, plan, bank_version, head_digest)
            SELECT gen_random_uuid(), 'backend-engineer', 'backend-engineer/1', sha256('') FROM generate_series(1, 10)
            """
        )
        for _ in range(8):
            connection.execute(
                "UPDATE assessment.interviews SET applied_seq = applied_seq + 1, asked = asked || 'some-item'::text"
            )
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'interviews'"
        ).fetchone()

    assert row == (80, 80)
