"""What the ledger keeps of calls: entries for operators, results until they are cleared, and which turns to clear."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from libs.runtime import db
from services.llm_gateway import statements
from services.llm_gateway.clearing import OLDEST, Clearable, ClearableRequest, Cursor, Settled, TurnKey
from services.llm_gateway.domain import (
    AttemptState,
    Call,
    CallState,
    Completion,
    Failure,
    NanoUsd,
    SessionId,
    TurnId,
    Usage,
)
from services.llm_gateway.store import Intent, Store
from tests.conftest import FreshDatabase
from tests.databases import Database, Server
from tests.db.llm_world import CEILING, COST, RELEASED, RESULT, SETTLED, UNKNOWN, UNUSABLE, Ledger, intent, ledger
from tests.db.plans import plan_nodes

__all__ = ["ledger"]  # a fixture

HOUR_MS = 3_600_000


def turn_of(what: Intent) -> TurnKey:
    return TurnKey(what.offer.key.session_id, what.offer.key.turn_id)


def settled(*intents: Intent) -> Settled:
    return Settled(intents[0].offer.key.session_id, tuple(it.offer.key.turn_id for it in intents))


# Entries


async def test_a_turns_calls_are_told_with_their_attempts_and_without_their_texts(ledger: Ledger) -> None:
    question = intent()
    judge = intent(question.offer.key.session_id, turn_id=question.offer.key.turn_id, purpose="judge")
    await ledger.opened(intent(question.offer.key.session_id))  # of another turn
    first = await ledger.opened(question)
    await ledger.store.finish(first, UNKNOWN, CallState.UNKNOWN, None)
    second = await ledger.repeat(question)
    assert second is not None
    third = await ledger.store.retry(second, UNUSABLE)
    assert third is not None
    await ledger.store.finish(third, SETTLED, CallState.DONE, RESULT)
    await ledger.opened(judge)

    told_judge, told = await ledger.store.entries(turn_of(question))

    assert (told.purpose, told.state, told.fence, told.repeats, told.error) == ("question", CallState.DONE, 2, 1, None)
    assert told.usage == Usage(200, 20, NanoUsd(CEILING + 2 * COST))
    assert (told.finish_reason, told.prompt_version, told.model) == ("stop", "question/v1", RESULT.model)
    assert [(it.fence, it.number, it.state, it.status, it.error) for it in told.attempts] == [
        (1, 1, AttemptState.UNKNOWN, 500, Failure.SERVER_ERROR),
        (2, 1, AttemptState.SETTLED, 200, Failure.NOT_JSON),
        (2, 2, AttemptState.SETTLED, 200, None),
    ]
    assert [it.usage.cost_nano_usd for it in told.attempts] == [CEILING, COST, COST]
    assert all(it.finished_at and it.finished_at >= it.dispatched_at for it in told.attempts)
    assert (told_judge.state, told_judge.finished_at, told_judge.cleared) == (CallState.INFLIGHT, None, False)
    assert told_judge.lease_left_ms > 0
    assert told_judge.attempts[0].state is AttemptState.DISPATCHED
    assert RESULT.text not in repr([told, told_judge])


async def test_a_lease_that_ended_without_a_word_is_told_as_unknown_with_its_attempt(ledger: Ledger) -> None:
    held = await ledger.opened(intent())
    ledger.expire(held.intent.offer.key)

    [told] = await ledger.store.entries(turn_of(held.intent))

    assert (told.state, told.lease_left_ms, told.finished_at) == (CallState.UNKNOWN, 0, None)
    assert [(it.state, it.usage.cost_nano_usd) for it in told.attempts] == [(AttemptState.UNKNOWN, CEILING)]


async def test_a_turn_that_nothing_was_asked_for_has_no_calls(ledger: Ledger) -> None:
    assert await ledger.store.entries(TurnKey(SessionId(uuid4()), TurnId(uuid4()))) == []


# Clearing


async def test_clearing_leaves_what_a_call_cost_and_nothing_that_it_said(ledger: Ledger) -> None:
    held = await ledger.made(intent())
    key = held.intent.offer.key

    await ledger.store.clear(settled(held.intent))

    [row] = ledger.rows("calls", key)
    assert (row["state"], row["result"], row["context"]) == ("DONE", None, None)
    told = await ledger.store.read(key)
    assert (told.state, told.cleared, told.end) == (CallState.UNKNOWN, True, "cleared")
    assert (told.text, told.context) == ("", b"")
    assert told.usage == Usage(100, 10, COST)
    [entry] = await ledger.store.entries(turn_of(held.intent))
    assert (entry.state, entry.cleared) == (CallState.DONE, True)
    assert ledger.spent(key) == COST


async def test_a_cleared_call_asked_for_again_is_made_again_with_a_context_of_its_own(ledger: Ledger) -> None:
    held = await ledger.made(intent())
    await ledger.store.clear(settled(held.intent))
    anew = replace(held.intent, offer=replace(held.intent.offer, context=b"item-9"))

    found = await ledger.store.open(anew)
    assert isinstance(found, Call)
    again = await ledger.store.repeat(anew, found)
    assert again is not None
    made = await ledger.store.finish(again, SETTLED, CallState.DONE, Completion("Anew?", "stop", "m"))

    assert (found.state, found.cleared) == (CallState.UNKNOWN, True)
    assert made is not None
    assert (made.text, made.context, made.repeats, made.cleared) == ("Anew?", b"item-9", 1, False)
    assert ledger.spent(held.intent.offer.key) == 2 * COST


async def test_clearing_again_or_what_never_was_changes_nothing(ledger: Ledger) -> None:
    held = await ledger.made(intent())
    await ledger.store.clear(settled(held.intent))
    before = ledger.rows("calls", held.intent.offer.key)

    await ledger.store.clear(settled(held.intent))
    await ledger.store.clear(settled(intent()))

    assert ledger.rows("calls", held.intent.offer.key) == before


async def test_only_the_turns_that_are_named_are_cleared(ledger: Ledger) -> None:
    session_id = SessionId(uuid4())
    cleared, kept = await ledger.made(intent(session_id)), await ledger.made(intent(session_id))

    await ledger.store.clear(settled(cleared.intent))

    assert (await ledger.store.read(cleared.intent.offer.key)).cleared
    assert (await ledger.store.read(kept.intent.offer.key)).context == b"item-7"


async def test_a_call_under_a_live_lease_is_not_cleared(ledger: Ledger) -> None:
    held = await ledger.opened(intent())

    await ledger.store.clear(settled(held.intent))

    made = await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)
    assert made is not None
    assert (made.text, made.context) == (RESULT.text, b"item-7")


async def test_a_call_that_is_cleared_after_its_lease_has_ended_and_takes_no_late_result(ledger: Ledger) -> None:
    held = await ledger.opened(intent())
    key = held.intent.offer.key
    ledger.expire(key)

    await ledger.store.clear(settled(held.intent))
    late = await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)

    told = await ledger.store.read(key)
    assert late is None
    assert (told.state, told.failure, told.cleared, told.text) == (CallState.UNKNOWN, Failure.LOST, True, "")
    [row], [attempt] = ledger.rows("calls", key), ledger.rows("attempts", key)
    assert row["finished_at"] == row["lease_until"] == attempt["finished_at"]
    assert (attempt["state"], attempt["error"]) == ("unknown", "lost")
    assert ledger.spent(key) == CEILING


# Which turns hold something


@pytest.fixture
async def own(fresh_database: FreshDatabase) -> AsyncIterator[Ledger]:
    """A ledger that holds nothing else."""
    database = fresh_database()
    pool = db.Database(database.dsns["llm"], "llm")
    yield Ledger(Store(pool), database)
    await pool.close()


async def clearable(ledger: Ledger, max_turns: int = 500, after: Cursor = OLDEST) -> Clearable:
    return await ledger.store.clearable(ClearableRequest(max_turns, HOUR_MS, after))


async def test_turns_are_named_once_the_oldest_first_when_all_their_calls_ended_long_ago(own: Ledger) -> None:
    old, older, young = intent(), intent(), intent()
    judge = intent(old.offer.key.session_id, turn_id=old.offer.key.turn_id, purpose="judge")
    for what in (old, judge, older, young):
        await own.made(what)
    own.age(old.offer.key, hours=2)
    own.age(older.offer.key, hours=3)

    assert await clearable(own) == Clearable((turn_of(older), turn_of(old)), None)


async def test_a_turn_with_one_call_that_ended_lately_or_has_not_ended_is_not_named(own: Ledger) -> None:
    for late in ("ended", "under way"):
        what = intent()
        await own.made(what)
        own.age(what.offer.key, hours=2)
        judge = intent(what.offer.key.session_id, turn_id=what.offer.key.turn_id, purpose="judge")
        await (own.made(judge) if late == "ended" else own.opened(judge))

    assert await clearable(own) == Clearable((), None)


async def test_failed_and_lost_calls_hold_their_contexts_until_they_are_cleared(own: Ledger) -> None:
    failed, lost = await own.opened(intent()), await own.opened(intent())
    await own.store.finish(failed, RELEASED, CallState.FAILED, None)
    for hours, held in ((3, failed), (2, lost)):
        own.age(held.intent.offer.key, hours)

    before = await clearable(own)
    for held in (failed, lost):
        await own.store.clear(settled(held.intent))

    assert before.turns == (turn_of(failed.intent), turn_of(lost.intent))
    assert await clearable(own) == Clearable((), None)


async def test_an_erased_session_holds_nothing_to_clear(own: Ledger) -> None:
    held = await own.made(intent())
    own.age(held.intent.offer.key, hours=2)

    await own.store.erase(held.intent.offer.key.session_id)

    assert await clearable(own) == Clearable((), None)


async def test_pages_come_to_every_turn_though_nothing_is_cleared_meanwhile(own: Ledger) -> None:
    intents = [intent() for _ in range(7)]
    for hours, what in enumerate(intents):
        await own.made(what)
        own.age(what.offer.key, 2 + hours)
    # Of one instant: then the ids decide.
    own.execute(
        "UPDATE llm.calls SET dispatched_at = date_trunc('day', now() - interval '9 days')", intents[0].offer.key
    )

    seen, pages, after = list[TurnKey](), 0, OLDEST
    while True:
        page = await clearable(own, 2, after)
        seen += page.turns
        pages += 1
        if page.next is None:
            break
        after = page.next

    assert pages == 4
    assert seen == sorted(map(turn_of, intents), key=lambda turn: (turn.session_id, turn.turn_id))


# What the statements read


@pytest.fixture(scope="module")
def crowded(database_server: Server) -> Iterator[Database]:
    """A hundred thousand calls of a month; those of the last two hours, one in 360, still hold their contexts."""
    own = database_server.create()
    with psycopg.connect(own.owner_dsn, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO llm.calls (session_id, turn_id, purpose, state, fence, lease_until, context, result,
                                   cost_nano_usd, prompt_version, prompt_hash, dispatched_at, finished_at)
            SELECT gen_random_uuid(), gen_random_uuid(), 'question', 'DONE', 1, at,
                   CASE WHEN number <= 280 THEN ''::bytea END, CASE WHEN number <= 280 THEN 'Why?' END,
                   0, 'question/v1', sha256(''), at, at
            FROM generate_series(1, 100000) AS number,
                 LATERAL (SELECT now() - number * interval '30 days' / 100000) AS moment(at)
            """
        )
        connection.execute("VACUUM ANALYZE llm.calls")
    yield own
    database_server.drop(own.name)


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("max_calls", [10, 500])
def test_what_holds_something_is_read_from_an_index_of_nothing_else(
    crowded: Database, max_calls: int, mode: str
) -> None:
    params = {
        "min_age_ms": HOUR_MS,
        "after": OLDEST.dispatched_at + timedelta(days=1),
        "after_session_id": uuid4(),
        "after_turn_id": uuid4(),
        "max_calls": max_calls,
    }

    nodes = plan_nodes(crowded.dsns["llm"], statements.CLEARABLE, params, mode)

    scans = [node for node in nodes if "Scan" in node["Node Type"]]
    assert {(node["Node Type"], node["Index Name"]) for node in scans} == {
        ("Index Scan", "calls_holding"),
        ("Index Scan", "calls_pkey"),
    }
    [holding] = [node for node in scans if node["Index Name"] == "calls_holding"]
    assert "dispatched_at <=" in holding["Index Cond"]
    assert holding["Actual Rows"] <= 150
    assert holding.get("Rows Removed by Filter", 0) == 0


async def test_recording_an_attempt_or_an_end_touches_no_index(own: Ledger) -> None:
    for _ in range(10):
        held = await own.store.retry(await own.opened(intent()), UNUSABLE)
        assert held is not None
        await own.store.finish(held, SETTLED, CallState.DONE, RESULT)

    flush = db.Statement("flush", "SELECT pg_stat_force_next_flush()")  # by the one connection that wrote
    await own.store._db.one(flush)
    with psycopg.connect(own.dsn) as connection:
        query = (
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = 'llm' AND relname = 'calls'"
        )
        assert connection.execute(query).fetchone() == (20, 20)
