"""The call ledger on a real PostgreSQL: what its statements write, what they do to each other, what the money says."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from libs.runtime import db
from libs.runtime.errors import NotFound
from services.llm_gateway import statements, store
from services.llm_gateway.domain import (
    AttemptEnd,
    AttemptState,
    Call,
    CallKey,
    CallState,
    Completion,
    Failure,
    Fence,
    Message,
    NanoUsd,
    Offer,
    Prompt,
    Purpose,
    Role,
    SessionId,
    TurnId,
    Usage,
)
from services.llm_gateway.store import Held, Intent, Store
from tests.conftest import FreshDatabase
from tests.databases import Database

CEILING, COST = NanoUsd(75_000), NanoUsd(21_000)
SETTLED = AttemptEnd(AttemptState.SETTLED, Usage(100, 10, COST), 200)
UNUSABLE = replace(SETTLED, failure=Failure.NOT_JSON)
RELEASED = AttemptEnd(AttemptState.RELEASED, Usage(), 429, Failure.RATE_LIMITED)
UNKNOWN = AttemptEnd(AttemptState.UNKNOWN, Usage(cost_nano_usd=CEILING), 500, Failure.SERVER_ERROR)
RESULT = Completion("And then?", "stop", "gpt-4o-mini-2024-07-18")


class Ledger:
    """A store, and the tables behind it as the database has them."""

    def __init__(self, store: Store, dsn: str) -> None:
        self.store, self.dsn = store, dsn

    def rows(self, table: str, key: CallKey) -> list[dict[str, Any]]:
        order = "ORDER BY fence, attempt" if table == "attempts" else ""
        with psycopg.connect(self.dsn, row_factory=dict_row) as connection:
            query = f"SELECT * FROM llm.{table} WHERE session_id = %s {order}".encode()
            return connection.execute(query, [key.session_id]).fetchall()

    def spent(self, key: CallKey) -> int:
        """The session's account; that its calls and its attempts add up to it is checked each time."""
        spent: int = self.rows("sessions", key)[0]["spent_nano_usd"]
        for table in ("calls", "attempts"):
            assert sum(row["cost_nano_usd"] for row in self.rows(table, key)) == spent
        return spent

    def execute(self, statement: str, key: CallKey) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement.encode(), {"session_id": key.session_id})

    def expire(self, key: CallKey) -> None:
        self.execute("UPDATE llm.calls SET lease_until = now() WHERE session_id = %(session_id)s", key)

    def erase(self, key: CallKey) -> None:
        """What an erase does: the tombstone first, then what stands under it."""
        self.execute(
            """INSERT INTO llm.sessions (session_id, erased) VALUES (%(session_id)s, true)
               ON CONFLICT (session_id) DO UPDATE SET erased = true""",
            key,
        )
        self.execute("UPDATE llm.calls SET result = NULL, context = NULL WHERE session_id = %(session_id)s", key)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    pool = db.Database(database.dsns["llm"], "llm", pool_size=12, statement_timeout_ms=10_000)
    yield Ledger(Store(pool), database.dsns["llm"])
    await pool.close()


def intent(session_id: SessionId | None = None, context: bytes = b"item-7", lease_ms: int = 60_000) -> Intent:
    key = CallKey(session_id or SessionId(uuid4()), TurnId(uuid4()), Purpose("question"))
    offer = Offer(key, Prompt((Message(Role.USER, "Hello"),), "question/v1", 100), context)
    return Intent(offer, "127.0.0.1", "gpt-4o-mini", b"{}", 100, CEILING, lease_ms)


async def opened(ledger: Ledger, what: Intent) -> Held:
    held = await ledger.store.open(what)
    assert isinstance(held, Held)
    return held


async def test_an_intent_is_written_with_its_first_attempt_and_its_ceiling(ledger: Ledger) -> None:
    what = intent()

    held = await opened(ledger, what)

    assert held == Held(what, Fence(1), 1)
    (call,) = ledger.rows("calls", what.offer.key)
    (attempt,) = ledger.rows("attempts", what.offer.key)
    assert (call["state"], call["fence"], call["context"], call["prompt_version"]) == (
        "INFLIGHT",
        1,
        b"item-7",
        "question/v1",
    )
    assert (attempt["state"], attempt["provider"], attempt["model"]) == ("dispatched", "127.0.0.1", "gpt-4o-mini")
    assert ledger.spent(what.offer.key) == CEILING


async def test_an_intent_that_finds_its_call_changes_nothing_and_is_shown_it(ledger: Ledger) -> None:
    first = intent()
    await opened(ledger, first)

    found = await ledger.store.open(replace(first, offer=replace(first.offer, context=b"another item")))

    assert isinstance(found, Call)
    assert (found.state, found.context, found.usage.cost_nano_usd) == (CallState.INFLIGHT, b"item-7", CEILING)
    assert 0 < found.lease_left_ms <= 60_000
    assert ledger.spent(first.offer.key) == CEILING


async def test_of_many_intents_at_once_one_is_written_and_charged(ledger: Ledger) -> None:
    what = intent()

    outcomes = await asyncio.gather(*(ledger.store.open(what) for _ in range(12)))

    assert sum(isinstance(outcome, Held) for outcome in outcomes) == 1
    assert all(isinstance(outcome, Held) or outcome.state is CallState.INFLIGHT for outcome in outcomes)
    assert ledger.spent(what.offer.key) == CEILING


async def test_calls_of_one_session_at_once_are_all_written_and_charged(ledger: Ledger) -> None:
    session_id = SessionId(uuid4())
    intents = [intent(session_id) for _ in range(12)]

    held = await asyncio.gather(*(opened(ledger, what) for what in intents))
    await asyncio.gather(*(ledger.store.finish(one, SETTLED, CallState.DONE, RESULT) for one in held))

    assert ledger.spent(intents[0].offer.key) == 12 * COST


async def test_a_result_is_recorded_with_what_it_cost(ledger: Ledger) -> None:
    held = await opened(ledger, intent())

    call = await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)

    assert call == await ledger.store.read(held.intent.offer.key)
    assert call is not None
    assert (call.state, call.text, call.context, call.finish_reason, call.model) == (
        CallState.DONE,
        "And then?",
        b"item-7",
        "stop",
        "gpt-4o-mini-2024-07-18",
    )
    assert call.usage == Usage(100, 10, COST)
    assert call.failure is None
    (attempt,) = ledger.rows("attempts", held.intent.offer.key)
    assert (attempt["state"], attempt["status"], attempt["prompt_tokens"], attempt["completion_tokens"]) == (
        "settled",
        200,
        100,
        10,
    )
    assert ledger.spent(held.intent.offer.key) == COST


async def test_a_second_attempt_stands_beside_the_first_under_the_same_fence(ledger: Ledger) -> None:
    first = await opened(ledger, intent())

    second = await ledger.store.retry(first, UNUSABLE)
    while_it_runs = ledger.spent(first.intent.offer.key)
    assert second is not None
    call = await ledger.store.finish(second, SETTLED, CallState.DONE, RESULT)

    assert (second.fence, second.attempt) == (Fence(1), 2)
    assert while_it_runs == COST + CEILING
    assert call is not None
    assert call.usage == Usage(200, 20, NanoUsd(2 * COST))
    assert [row["state"] for row in ledger.rows("attempts", first.intent.offer.key)] == ["settled", "settled"]
    assert ledger.spent(first.intent.offer.key) == 2 * COST


async def test_an_attempt_ends_once_though_the_answer_was_lost_and_it_is_said_again(ledger: Ledger) -> None:
    first = await opened(ledger, intent())
    second = await ledger.store.retry(first, UNUSABLE)

    assert second is not None
    assert await ledger.store.retry(first, UNUSABLE) is None
    assert await ledger.store.finish(first, UNUSABLE, CallState.FAILED, None) is None
    assert ledger.spent(first.intent.offer.key) == COST + CEILING


async def test_after_its_lease_a_call_gets_no_second_attempt(ledger: Ledger) -> None:
    held = await opened(ledger, intent())
    ledger.expire(held.intent.offer.key)

    assert await ledger.store.retry(held, RELEASED) is None
    assert len(ledger.rows("attempts", held.intent.offer.key)) == 1


async def test_a_released_attempt_costs_nothing_and_an_unknown_one_its_ceiling(ledger: Ledger) -> None:
    released, unknown = await opened(ledger, intent()), await opened(ledger, intent())

    failed = await ledger.store.finish(released, RELEASED, CallState.FAILED, None)
    lost = await ledger.store.finish(unknown, UNKNOWN, CallState.UNKNOWN, None)

    assert failed is not None
    assert (failed.state, failed.failure, failed.usage) == (CallState.FAILED, Failure.RATE_LIMITED, Usage())
    assert lost is not None
    assert (lost.state, lost.failure) == (CallState.UNKNOWN, Failure.SERVER_ERROR)
    assert (ledger.spent(released.intent.offer.key), ledger.spent(unknown.intent.offer.key)) == (0, CEILING)


async def test_a_lease_that_ends_without_a_word_reads_as_unknown_and_is_counted_at_its_ceiling(ledger: Ledger) -> None:
    held = await opened(ledger, intent())

    ledger.expire(held.intent.offer.key)
    call = await ledger.store.read(held.intent.offer.key)

    assert (call.state, call.failure, call.lease_left_ms) == (CallState.UNKNOWN, None, 0)
    assert ledger.spent(held.intent.offer.key) == CEILING


async def test_a_repeat_has_a_fence_and_a_context_of_its_own_and_the_lost_attempt_stays_paid(ledger: Ledger) -> None:
    held = await opened(ledger, intent())
    ledger.expire(held.intent.offer.key)

    again = replace(held.intent, offer=replace(held.intent.offer, context=b"item-9"))
    repeated = await ledger.store.repeat(again)

    assert repeated == Held(again, Fence(2), 1)
    call = await ledger.store.read(again.offer.key)
    assert (call.state, call.context, call.repeats) == (CallState.INFLIGHT, b"item-9", 1)
    attempts = ledger.rows("attempts", again.offer.key)
    assert [(row["fence"], row["state"], row["error"]) for row in attempts] == [
        (1, "unknown", "lost"),
        (2, "dispatched", None),
    ]
    assert ledger.spent(again.offer.key) == 2 * CEILING


async def test_a_late_writer_of_an_old_fence_writes_nothing(ledger: Ledger) -> None:
    old = await opened(ledger, intent())
    ledger.expire(old.intent.offer.key)
    new = await ledger.store.repeat(old.intent)
    assert new is not None

    assert await ledger.store.retry(old, RELEASED) is None
    assert await ledger.store.finish(old, SETTLED, CallState.DONE, Completion("Late.", "stop", "m")) is None
    assert (await ledger.store.read(old.intent.offer.key)).state is CallState.INFLIGHT
    assert ledger.spent(old.intent.offer.key) == 2 * CEILING
    call = await ledger.store.finish(new, SETTLED, CallState.DONE, RESULT)
    assert await ledger.store.finish(old, SETTLED, CallState.DONE, Completion("Late.", "stop", "m")) is None

    assert call is not None
    assert (await ledger.store.read(old.intent.offer.key)).text == "And then?"
    assert ledger.spent(old.intent.offer.key) == CEILING + COST


async def test_a_paused_owner_that_nobody_overtook_still_writes(ledger: Ledger) -> None:
    held = await opened(ledger, intent())
    ledger.expire(held.intent.offer.key)

    call = await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)

    assert call is not None
    assert call.state is CallState.DONE
    assert ledger.spent(held.intent.offer.key) == COST


async def test_of_many_repeats_and_a_late_result_at_once_one_wins(ledger: Ledger) -> None:
    for _ in range(10):
        held = await opened(ledger, intent())
        ledger.expire(held.intent.offer.key)

        late, *repeats = await asyncio.gather(
            ledger.store.finish(held, SETTLED, CallState.DONE, RESULT),
            *(ledger.store.repeat(held.intent) for _ in range(6)),
        )

        assert [late, *repeats].count(None) == 6
        assert ledger.spent(held.intent.offer.key) == (COST if late else 2 * CEILING)


async def test_a_call_that_is_live_or_done_is_not_repeated(ledger: Ledger) -> None:
    live, done = await opened(ledger, intent()), await opened(ledger, intent())
    await ledger.store.finish(done, SETTLED, CallState.DONE, RESULT)

    assert await ledger.store.repeat(live.intent) is None
    assert await ledger.store.repeat(done.intent) is None
    assert ledger.spent(live.intent.offer.key) == CEILING
    assert ledger.spent(done.intent.offer.key) == COST


async def test_a_cleared_result_reads_as_unknown_and_may_be_repeated(ledger: Ledger) -> None:
    held = await opened(ledger, intent())
    await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)
    ledger.execute(
        "UPDATE llm.calls SET result = NULL, context = NULL WHERE session_id = %(session_id)s", held.intent.offer.key
    )

    cleared = await ledger.store.open(held.intent)
    repeated = await ledger.store.repeat(held.intent)

    assert isinstance(cleared, Call)
    assert (cleared.state, cleared.text, cleared.context) == (CallState.UNKNOWN, "", b"")
    assert repeated is not None
    assert ledger.spent(held.intent.offer.key) == COST + CEILING


async def test_under_a_tombstone_nothing_is_opened_repeated_or_retried(ledger: Ledger) -> None:
    failed, live, never = await opened(ledger, intent()), await opened(ledger, intent()), intent()
    await ledger.store.finish(failed, RELEASED, CallState.FAILED, None)
    for what in (failed.intent, live.intent, never):
        ledger.erase(what.offer.key)

    with pytest.raises(NotFound):
        await ledger.store.open(never)
    with pytest.raises(NotFound):
        await ledger.store.open(failed.intent)
    with pytest.raises(NotFound):
        await ledger.store.read(failed.intent.offer.key)
    assert await ledger.store.repeat(failed.intent) is None
    assert await ledger.store.retry(live, RELEASED) is None
    assert ledger.rows("calls", never.offer.key) == []
    assert ledger.spent(failed.intent.offer.key) == 0


async def test_a_result_that_comes_after_the_erase_leaves_its_cost_and_no_word(ledger: Ledger) -> None:
    held = await opened(ledger, intent())
    ledger.erase(held.intent.offer.key)

    with pytest.raises(NotFound):
        await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)

    (call,) = ledger.rows("calls", held.intent.offer.key)
    assert (call["result"], call["context"]) == (None, None)
    assert ledger.spent(held.intent.offer.key) == COST


@pytest.mark.parametrize("step", ["open", "repeat", "retry", "finish"])
async def test_a_write_that_waits_for_an_erase_sees_its_tombstone(ledger: Ledger, step: str) -> None:
    held = await opened(ledger, intent())
    key = held.intent.offer.key
    if step == "repeat":
        await ledger.store.finish(held, RELEASED, CallState.FAILED, None)
    other = intent(key.session_id)
    writes: Mapping[str, Any] = {
        "open": lambda: ledger.store.open(other),
        "repeat": lambda: ledger.store.repeat(held.intent),
        "retry": lambda: ledger.store.retry(held, RELEASED),
        "finish": lambda: ledger.store.finish(held, SETTLED, CallState.DONE, RESULT),
    }

    async with await psycopg.AsyncConnection.connect(ledger.dsn) as eraser:
        await eraser.execute("UPDATE llm.sessions SET erased = true WHERE session_id = %s", [key.session_id])
        writing = asyncio.create_task(writes[step]())
        await somebody_waits_for(eraser, ledger.dsn)
        await eraser.commit()
        await asyncio.wait([writing])

    assert isinstance(writing.exception(), NotFound) or writing.result() is None
    assert [row["result"] for row in ledger.rows("calls", key)] == [None]
    ledger.spent(key)


async def test_an_intent_that_waits_for_its_sessions_first_call_is_written_too(ledger: Ledger) -> None:
    first = intent()
    second = intent(first.offer.key.session_id)

    async with await psycopg.AsyncConnection.connect(ledger.dsn) as other:
        insert = "INSERT INTO llm.sessions (session_id, spent_nano_usd) VALUES (%s, 0)"
        await other.execute(insert, [first.offer.key.session_id])
        opening = [asyncio.create_task(ledger.store.open(what)) for what in (first, second)]
        await somebody_waits_for(other, ledger.dsn)
        await other.commit()
        outcomes = await asyncio.gather(*opening)

    assert all(isinstance(outcome, Held) for outcome in outcomes)
    assert ledger.spent(first.offer.key) == 2 * CEILING


async def somebody_waits_for(holder: "psycopg.AsyncConnection[Any]", dsn: str) -> None:
    """Return once a statement waits for a lock that this connection holds; each look is a round trip."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND %s = ANY(pg_blocking_pids(pid))"
    async with asyncio.timeout(10), await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher:
        while True:
            row = await (await watcher.execute(query, [holder.info.backend_pid])).fetchone()
            if row and row[0]:
                return


async def test_every_statement_finds_its_rows_by_index_among_ten_thousand(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    every = (statements.OPEN, statements.REPEAT, statements.RETRY, statements.FINISH, statements.READ)
    held = Held(intent(), Fence(1))
    key = store._key(held.intent.offer.key)
    everything = store._intent(held.intent) | store._end(held, SETTLED)
    everything |= {"state": "DONE", "error": None, "result": "x", "finish_reason": "stop", "model": "m"} | key
    with psycopg.connect(own.dsns["llm"], autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO llm.sessions (session_id)
            SELECT %(session_id)s UNION SELECT gen_random_uuid() FROM generate_series(1, 10000)
            """,
            key,
        )
        connection.execute(
            """
            INSERT INTO llm.calls (session_id, turn_id, purpose, state, fence, lease_until, cost_nano_usd,
                                   prompt_version, prompt_hash)
            SELECT %(session_id)s, gen_random_uuid(), 'question', 'INFLIGHT', 1, now(), 0, 'question/v1',
                   sha256('') FROM generate_series(1, 10000)
            """,
            key,
        )
        connection.execute(
            """
            INSERT INTO llm.attempts (session_id, turn_id, purpose, fence, attempt, state, provider, model,
                                      cost_nano_usd)
            SELECT session_id, turn_id, purpose, fence, 1, 'dispatched', '', '', 0 FROM llm.calls
            """
        )
        connection.execute("ANALYZE")
        connection.execute("SET plan_cache_mode = force_generic_plan")  # as once they have been prepared
        for statement in every:
            row = connection.execute(b"EXPLAIN (FORMAT JSON) " + statement.sql.encode(), everything).fetchone()

            assert row is not None
            plan = json.dumps(row[0])
            assert "Index Scan" in plan, statement.name
            assert "Seq Scan" not in plan, statement.name
