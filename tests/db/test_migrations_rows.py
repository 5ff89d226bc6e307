"""Revisions over tables that have rows: what was there before is there afterwards, and means the same."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from libs.runtime import db
from migrations import migrator
from services.assessment import store as assessment
from services.assessment.evidence import UnscoredRequest
from services.llm_gateway import store as llm
from tests.conftest import FreshDatabase
from tests.databases import Database
from tests.db.assessment_world import ITEMS, begun, interviews_on, key, ledger
from tests.db.llm_world import Ledger, intent


@asynccontextmanager
async def opened(own: Database, context: str) -> AsyncIterator[db.Database]:
    """A context's database, as its service has it; closed before the schema is changed under it."""
    pool = db.Database(own.dsns[context], context)
    yield pool
    await pool.close()


async def test_calls_of_an_erased_session_go_back_a_revision_and_forward_again(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    async with opened(own, "llm") as pool:
        calls = Ledger(llm.Store(pool), own)
        kept, erased = await calls.made(intent()), await calls.made(intent())
        await calls.store.erase(erased.intent.offer.key.session_id)
        before = calls.rows("calls", kept.intent.offer.key)

    migrator.downgrade("llm", own.dsns["llm"], "0001")
    migrator.migrate({"llm": own.dsns["llm"]})

    assert calls.rows("calls", kept.intent.offer.key) == before
    [row] = calls.rows("calls", erased.intent.offer.key)
    assert (row["result"], row["context"]) == (None, None)
    assert row["prompt_hash"] != before[0]["prompt_hash"]


async def test_answers_that_waited_before_there_was_a_pause_wait_on(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    async with opened(own, "assessment") as pool:
        interviews = interviews_on(assessment.Store(pool))
        session_id = await begun(interviews)
    turns = ledger(session_id, 2)
    migrator.downgrade("assessment", own.dsns["assessment"], "0001")
    with psycopg.connect(own.dsns["assessment"]) as connection:
        connection.execute(
            """
            INSERT INTO assessment.answers (session_id, turn_id, seq, folded_at, item_id, failed_calls)
            VALUES (%s, %s, 2, now() - interval '1 hour', %s, 2)
            """,
            [session_id, turns[1].turn_id, ITEMS[0]],
        )

    migrator.migrate({"assessment": own.dsns["assessment"]})

    async with opened(own, "assessment") as pool:
        page = await assessment.Store(pool).unscored(UnscoredRequest(10, 60_000))
    assert [answer.key for answer in page.answers] == [key(session_id, turns[1])]
