"""The call ledger on a real PostgreSQL: what its statements write, what they do to each other, what the money says."""

import asyncio
import json
import random
from dataclasses import replace
from uuid import uuid4

import psycopg

from libs.runtime.db import Statement
from services.llm_gateway import statements, store
from services.llm_gateway.clearing import Settled
from services.llm_gateway.domain import (
    Call,
    CallState,
    Completion,
    Failure,
    Fence,
    NanoUsd,
    SessionId,
    Usage,
)
from services.llm_gateway.store import Held, Intent, Store
from tests.conftest import FreshDatabase
from tests.db.erasure import open_transaction
from tests.db.llm_world import CEILING, COST, RELEASED, RESULT, SETTLED, UNKNOWN, UNUSABLE, Ledger, intent, ledger

__all__ = ["ledger"]  # a fixture


async def test_an_intent_is_written_with_its_first_attempt_and_its_ceiling(ledger: Ledger) -> None:
    what = intent()

    held = await ledger.opened(what)

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
    await ledger.opened(first)

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

    held = await asyncio.gather(*(ledger.opened(what) for what in intents))
    await asyncio.gather(*(ledger.store.finish(one, SETTLED, CallState.DONE, RESULT) for one in held))

    assert ledger.spent(intents[0].offer.key) == 12 * COST


async def test_a_result_is_recorded_with_what_it_cost(ledger: Ledger) -> None:
    held = await ledger.opened(intent())

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
    first = await ledger.opened(intent())

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
    first = await ledger.opened(intent())
    second = await ledger.store.retry(first, UNUSABLE)

    assert second is not None
    assert await ledger.store.retry(first, UNUSABLE) is None
    assert await ledger.store.finish(first, UNUSABLE, CallState.FAILED, None) is None
    assert ledger.spent(first.intent.offer.key) == COST + CEILING


async def test_after_its_lease_a_call_gets_no_second_attempt(ledger: Ledger) -> None:
    held = await ledger.opened(intent())
    ledger.expire(held.intent.offer.key)

    assert await ledger.store.retry(held, RELEASED) is None
    assert len(ledger.rows("attempts", held.intent.offer.key)) == 1


async def test_a_released_attempt_costs_nothing_and_an_unknown_one_its_ceiling(ledger: Ledger) -> None:
    released, unknown = await ledger.opened(intent()), await ledger.opened(intent())

    failed = await ledger.store.finish(released, RELEASED, CallState.FAILED, None)
    lost = await ledger.store.finish(unknown, UNKNOWN, CallState.UNKNOWN, None)

    assert failed is not None
    assert (failed.state, failed.failure, failed.usage) == (CallState.FAILED, Failure.RATE_LIMITED, Usage())
    assert lost is not None
    assert (lost.state, lost.failure) == (CallState.UNKNOWN, Failure.SERVER_ERROR)
    assert (ledger.spent(released.intent.offer.key), ledger.spent(unknown.intent.offer.key)) == (0, CEILING)


async def test_a_lease_that_ends_without_a_word_reads_as_unknown_and_is_counted_at_its_ceiling(ledger: Ledger) -> None:
    held = await ledger.opened(intent())

    ledger.expire(held.intent.offer.key)
    call = await ledger.store.read(held.intent.offer.key)

    assert (call.state, call.failure, call.lease_left_ms) == (CallState.UNKNOWN, None, 0)
    assert ledger.spent(held.intent.offer.key) == CEILING


async def test_a_repeat_has_a_fence_and_a_context_of_its_own_and_the_lost_attempt_stays_paid(ledger: Ledger) -> None:
    held = await ledger.opened(intent())
    ledger.expire(held.intent.offer.key)

    again = replace(held.intent, offer=replace(held.intent.offer, context=b"item-9"))
    repeated = await ledger.repeat(again)

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
    old = await ledger.opened(intent())
    ledger.expire(old.intent.offer.key)
    new = await ledger.repeat(old.intent)
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
    held = await ledger.opened(intent())
    ledger.expire(held.intent.offer.key)

    call = await ledger.store.finish(held, SETTLED, CallState.DONE, RESULT)

    assert call is not None
    assert call.state is CallState.DONE
    assert ledger.spent(held.intent.offer.key) == COST


async def test_of_many_repeats_and_a_late_result_at_once_one_wins(ledger: Ledger) -> None:
    for _ in range(10):
        held = await ledger.opened(intent())
        ledger.expire(held.intent.offer.key)

        late, *repeats = await asyncio.gather(
            ledger.store.finish(held, SETTLED, CallState.DONE, RESULT),
            *(ledger.repeat(held.intent) for _ in range(6)),
        )

        assert [late, *repeats].count(None) == 6
        assert ledger.spent(held.intent.offer.key) == (COST if late else 2 * CEILING)


async def test_a_call_that_is_live_or_done_is_not_repeated(ledger: Ledger) -> None:
    live, done = await ledger.opened(intent()), await ledger.opened(intent())
    await ledger.store.finish(done, SETTLED, CallState.DONE, RESULT)

    assert await ledger.repeat(live.intent) is None
    assert await ledger.repeat(done.intent) is None
    assert ledger.spent(live.intent.offer.key) == CEILING
    assert ledger.spent(done.intent.offer.key) == COST


async def test_an_end_is_followed_by_one_repeat_however_many_saw_it(ledger: Ledger) -> None:
    held = await ledger.opened(intent())
    await ledger.store.finish(held, RELEASED, CallState.FAILED, None)
    ended = await ledger.store.read(held.intent.offer.key)

    first = await ledger.store.repeat(held.intent, ended)
    assert first is not None
    await ledger.store.finish(first, RELEASED, CallState.FAILED, None)
    second = await ledger.store.repeat(held.intent, ended)

    assert second is None
    assert (await ledger.store.read(held.intent.offer.key)).repeats == 1


async def test_a_repeat_that_waited_for_another_attempt_leaves_it_under_no_older_fence(ledger: Ledger) -> None:
    leased = Statement(
        "leased",
        "UPDATE llm.calls SET lease_until = now() + %(hours)s * interval '1 hour' WHERE session_id = %(session_id)s",
    )
    first = await ledger.opened(intent())
    key = first.intent.offer.key
    ledger.expire(key)
    async with open_transaction(ledger.dsn) as (retrying, transaction):
        # To this transaction alone the lease lasts as long as it makes its attempt: to others it is over all the time.
        await transaction.execute(leased, {"hours": 1, "session_id": key.session_id})
        second = await Store(retrying).retry(first, UNUSABLE)
        await transaction.execute(leased, {"hours": -1, "session_id": key.session_id})
        ended = await ledger.store.read(key)

        repeating = asyncio.create_task(ledger.store.repeat(first.intent, ended))
        await transaction.is_waited_for()
        await transaction.commit()
        overtaken = await repeating
    repeated = await ledger.repeat(first.intent)

    assert second is not None
    assert ended.state is CallState.UNKNOWN
    assert overtaken is None
    assert repeated is not None
    assert [(row["fence"], row["attempt"], row["state"]) for row in ledger.rows("attempts", key)] == [
        (1, 1, "settled"),
        (1, 2, "unknown"),
        (2, 1, "dispatched"),
    ]
    assert ledger.spent(key) == COST + 2 * CEILING


async def test_whatever_processes_do_to_a_call_the_money_adds_up_and_nothing_dangles(ledger: Ledger) -> None:
    session_id = SessionId(uuid4())
    intents = [intent(session_id, lease_ms=20) for _ in range(3)]
    ended: set[tuple[str, int, int]] = set()

    async def process(what: Intent) -> None:
        """Offer the call, make it where one may, at a pace that may be too slow for its lease."""
        found: Held | Call = await ledger.store.open(what)
        for _ in range(4):
            if isinstance(found, Held):
                await asyncio.sleep(random.uniform(0, 0.04))
                last = await ledger.store.retry(found, random.choice((RELEASED, UNUSABLE))) or found
                end, state = random.choice(((SETTLED, CallState.DONE), (RELEASED, CallState.FAILED)))
                await ledger.store.finish(last, end, state, RESULT if state is CallState.DONE else None)
            elif found.state in (CallState.FAILED, CallState.UNKNOWN):
                repeated = await ledger.store.repeat(what, found)
                if repeated:
                    place = (str(what.offer.key), found.fence, found.attempt)
                    assert place not in ended, "one end, two repeats"
                    ended.add(place)
                    found = repeated
                    continue
            await ledger.store.clear(Settled(session_id, (what.offer.key.turn_id,)))
            found = await ledger.store.read(what.offer.key)

    await asyncio.gather(*(process(what) for what in intents for _ in range(4)))

    ledger.spent(intents[0].offer.key)
    assert len(ended) == sum(call["repeats"] for call in ledger.rows("calls", intents[0].offer.key))


async def test_an_intent_that_waits_for_its_sessions_first_call_is_written_too(ledger: Ledger) -> None:
    first = intent()
    waiting = [intent(first.offer.key.session_id) for _ in range(2)]

    async with open_transaction(ledger.dsn) as (opening, transaction):
        await Store(opening).open(first)
        others = [asyncio.create_task(ledger.store.open(what)) for what in waiting]
        await transaction.is_waited_for()
        await transaction.commit()
        outcomes = await asyncio.gather(*others)

    assert all(isinstance(outcome, Held) for outcome in outcomes)
    assert ledger.spent(first.offer.key) == 3 * CEILING


async def test_every_statement_finds_its_rows_by_index_among_ten_thousand(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    every = [statements.OPEN, statements.REPEAT, statements.RETRY, statements.FINISH, statements.READ]
    every += [statements.ENTRIES, statements.HOLD, statements.CLEAR]
    held = Held(intent(), Fence(1))
    key = store._key(held.intent.offer.key)
    everything = store._intent(held.intent) | store._end(held, SETTLED)
    everything |= {"state": "DONE", "error": None, "result": "x", "finish_reason": "stop", "model": "m"} | key
    everything |= {"turn_ids": [held.intent.offer.key.turn_id]}
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
