"""Repairs by hand: what each of them does, that it is on record with who and why or not done at all, and races."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from libs.runtime.db import DatabaseError
from libs.runtime.errors import InvalidField, NotFound, RequestIdReused
from services.history import statements
from services.history.admission import Replay
from services.history.domain import SessionId, TurnState
from services.history.interventions import Action, InterventionId, NewIntervention, Standing
from services.history.usecases import CommitOutcome
from tests.conftest import FreshDatabase
from tests.databases import Database
from tests.db.history_world import ABANDON, ALICE, World, interview, ledger, message, owner, reply
from tests.db.history_writes import committing, erasing, from_another_gateway, head_of, insist


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with ledger(database.dsns["history"]) as world:
        yield world


def repair(session_id: SessionId, action: Action = Action.RESET, **changes: Any) -> NewIntervention:
    new = NewIntervention(session_id, InterventionId(uuid4()), action, "olga", "its owner has been asleep for a minute")
    return replace(new, **changes)


# Reset


async def test_a_reset_ends_a_claim_so_that_its_own_request_goes_on_and_its_owner_does_not(world: World) -> None:
    session_id = await world.opened(lease_ms=60_000)
    new = message(session_id)
    asleep = owner(await world.history.begin_turn(new))

    head, made = await world.operations.intervene(repair(session_id))
    pending = (await world.history.get_stream(session_id, ALICE)).pending
    late = await world.commit(asleep)
    awake = owner(await world.history.begin_turn(from_another_gateway(new)))
    done = await world.commit(awake)

    assert pending is not None
    assert (pending.turn_id, pending.state, pending.reason) == (asleep.turn_id, TurnState.ABANDONED, "UNAVAILABLE")
    assert late.outcome is CommitOutcome.FENCED
    assert (awake.turn_id, awake.takeover, done.outcome) == (asleep.turn_id, True, CommitOutcome.COMMITTED)
    assert (made.action, made.actor, made.turn_id) == (Action.RESET, "olga", asleep.turn_id)
    assert 0 < made.before.lease_left_ms <= 60_000
    assert replace(made.before, lease_left_ms=0) == Standing(1, 2, 0, False, asleep.turn_id, 0)
    assert made.after == Standing(2, 3, 0, False, None, 0)
    assert (head.fence, head.rev, head.active_turn) == (2, 3, None)
    await world.check(session_id)


async def test_after_a_reset_another_message_may_come_first(world: World) -> None:
    session_id = await world.opened(lease_ms=60_000)
    stuck = message(session_id)
    await world.history.begin_turn(stuck)

    await world.operations.intervene(repair(session_id))
    await world.exchange(session_id)
    answer = await world.history.begin_turn(stuck)

    assert isinstance(answer, Replay)
    assert (answer.turn.state, answer.turn.reason) == (TurnState.FAILED, "CONFLICT")
    await world.check(session_id)


@pytest.mark.parametrize("lease_ms", [1, 60_000])
async def test_an_opening_is_not_reset_for_no_message_may_come_before_it(world: World, lease_ms: int) -> None:
    new = interview(lease_ms=lease_ms)
    held = owner(await world.history.open_stream(new))
    before = await world.rows("streams", new.session_id), await world.rows("turns", new.session_id)
    asked = repair(new.session_id)

    with pytest.raises(InvalidField) as refused:
        await world.operations.intervene(asked)
    left = await world.rows("streams", new.session_id), await world.rows("turns", new.session_id)
    done = await world.commit(held)
    head, made = await world.operations.intervene(asked)

    assert [violation.field for violation in refused.value.violations] == ["action"]
    assert left == before
    assert done.outcome is CommitOutcome.COMMITTED
    assert (head.last_seq, made.turn_id) == (1, None), "once it was said there is nothing to be refused"
    await world.check(new.session_id)


async def test_the_answer_to_an_opening_is_reset_like_any_message(world: World) -> None:
    new = interview(lease_ms=60_000)
    await world.commit(owner(await world.history.open_stream(new)))
    held = owner(await world.history.begin_turn(message(new.session_id)))

    _, made = await world.operations.intervene(repair(new.session_id))

    assert made.turn_id == held.turn_id


# Complete


async def test_an_opening_that_nobody_says_can_be_closed(world: World) -> None:
    new = interview(lease_ms=60_000)
    held = owner(await world.history.open_stream(new))

    head, made = await world.operations.intervene(repair(new.session_id, Action.COMPLETE))

    assert (head.sealed, made.turn_id) == (True, held.turn_id)
    await world.check(new.session_id)


async def test_a_completed_session_is_closed_and_what_waited_there_has_failed(world: World) -> None:
    session_id = await world.opened()
    await world.exchange(session_id)
    given_back, running = message(session_id), message(session_id)
    held = owner(await world.history.begin_turn(given_back))
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    held = owner(await world.history.begin_turn(running))

    head, made = await world.operations.intervene(repair(session_id, Action.COMPLETE))
    late = await world.commit(held)

    assert (head.sealed, made.turn_id, made.before.sealed, made.after.sealed) == (True, held.turn_id, False, True)
    assert (late.outcome, late.sealed) == (CommitOutcome.FENCED, True)
    ends = sorted((turn["state"], turn["reason"]) for turn in await world.rows("turns", session_id))
    assert ends == [("COMMITTED", None), ("FAILED", "SESSION_CLOSED"), ("FAILED", "SESSION_CLOSED")]
    await world.check(session_id)


@pytest.mark.parametrize("action", Action)
async def test_what_was_done_already_is_on_record_too_and_the_stream_is_looked_at_again(
    world: World, action: Action
) -> None:
    session_id = await world.opened()
    ended = await world.history.seal_stream(session_id, ALICE)
    await world.history.acknowledge_streams([(session_id, ended.rev)])

    head, made = await world.operations.intervene(repair(session_id, action))

    assert (head.sealed_at, made.turn_id) == (ended.sealed_at, None)
    assert (made.after.fence, made.after.rev) == (made.before.fence + 1, made.before.rev + 1)
    assert head.acked_rev < head.rev
    assert await world.operations.interventions(session_id) == [made]
    await world.check(session_id)


# On record


async def test_a_repair_that_is_sent_again_is_not_made_again(world: World) -> None:
    session_id = await world.opened(lease_ms=60_000)
    new = message(session_id)
    await world.history.begin_turn(new)
    asked = repair(session_id)

    _, first = await world.operations.intervene(asked)
    awake = owner(await world.history.begin_turn(new))
    _, again = await world.operations.intervene(asked)
    done = await world.commit(awake)

    assert again == first
    assert done.outcome is CommitOutcome.COMMITTED, "the claim that came after the repair was left alone"
    assert await world.operations.interventions(session_id) == [first]


@pytest.mark.parametrize(
    "change", [{"action": Action.COMPLETE}, {"actor": "oscar"}, {"reason": "something else"}], ids=str
)
async def test_the_id_of_a_repair_means_one_repair(world: World, change: dict[str, Any]) -> None:
    session_id = await world.opened()
    asked = repair(session_id)
    await world.operations.intervene(asked)

    with pytest.raises(RequestIdReused):
        await world.operations.intervene(replace(asked, **change))

    assert not (await head_of(world, session_id)).sealed


async def test_repairs_are_listed_in_their_order_and_outlive_an_erase(world: World) -> None:
    session_id = await world.opened()
    made = [(await world.operations.intervene(repair(session_id, action)))[1] for action in Action]
    await world.history.erase_stream(session_id, ALICE)

    assert await world.operations.interventions(session_id) == made
    assert await world.operations.interventions(SessionId(uuid4())) == []


async def test_nothing_is_repaired_that_is_not_there(world: World) -> None:
    erased = await world.opened()
    await world.history.erase_stream(erased, ALICE)

    for session_id in (SessionId(uuid4()), erased):
        with pytest.raises(NotFound):
            await world.operations.intervene(repair(session_id))
        assert await world.operations.interventions(session_id) == []


async def test_a_repair_that_cannot_be_put_on_record_is_not_made(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    async with ledger(own.dsns["history"]) as world:
        session_id = await world.opened(lease_ms=60_000)
        await world.history.begin_turn(message(session_id))
        before = await world.rows("streams", session_id), await world.rows("turns", session_id)
        async with world.connected() as connection:
            await connection.execute("ALTER TABLE history.interventions ADD CONSTRAINT full_up CHECK (false) NOT VALID")

        for action in Action:
            with pytest.raises(DatabaseError):
                await world.operations.intervene(repair(session_id, action))

        assert (await world.rows("streams", session_id), await world.rows("turns", session_id)) == before


def test_a_repair_needs_an_action_somebody_and_a_reason() -> None:
    session_id, intervention_id = SessionId(uuid4()), InterventionId(uuid4())

    with pytest.raises(InvalidField) as refused:
        NewIntervention(session_id, intervention_id, None, "", "")
    with pytest.raises(InvalidField) as long:
        NewIntervention(session_id, intervention_id, Action.RESET, "a" * 257, "r" * 501)

    assert [violation.field for violation in refused.value.violations] == ["action", "actor", "reason"]
    assert [violation.field for violation in long.value.violations] == ["actor", "reason"]


# Races


async def test_the_same_repair_sent_many_times_at_once_is_made_once(world: World) -> None:
    session_id = await world.opened(lease_ms=60_000)
    await world.history.begin_turn(message(session_id))
    asked = repair(session_id)

    answers = await asyncio.gather(*(insist(lambda: world.operations.intervene(asked)) for _ in range(20)))

    assert len({made.at for _, made in answers}) == 1
    assert [head.fence for head, _ in answers] == [2] * 20
    assert len(await world.rows("interventions", session_id)) == 1
    await world.check(session_id)


async def test_repairs_of_two_operators_follow_one_another(world: World) -> None:
    session_id = await world.opened(lease_ms=60_000)
    await world.history.begin_turn(message(session_id))
    asked = [repair(session_id, action) for action in Action for _ in range(2)]

    await asyncio.gather(*(world.operations.intervene(new) for new in asked))
    made = await world.operations.interventions(session_id)

    assert [(it.before.rev, it.after.rev) for it in made] == [(2, 3), (3, 4), (4, 5), (5, 6)]
    assert [it.turn_id is not None for it in made] == [True, False, False, False]
    await world.check(session_id)


@pytest.mark.parametrize("action", Action)
async def test_a_repair_that_waited_for_the_commit_leaves_what_was_committed(world: World, action: Action) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))

    async with world.holding(statements.COMMIT, committing(held)) as holder:
        waiting = asyncio.create_task(world.operations.intervene(repair(session_id, action)))
        await holder.waited_for()
    head, made = await waiting

    assert (head.last_seq, made.turn_id, made.before.last_seq) == (1, None, 1)
    await world.check(session_id)


async def test_a_repair_that_waited_for_an_erase_finds_nothing(world: World) -> None:
    session_id = await world.opened()
    await world.history.begin_turn(message(session_id))

    async with world.holding(statements.ERASE, erasing(await head_of(world, session_id))) as holder:
        waiting = asyncio.create_task(world.operations.intervene(repair(session_id)))
        await holder.waited_for()
    with pytest.raises(NotFound):
        await waiting

    assert await world.operations.interventions(session_id) == []
    await world.check(session_id)


# One turn whole


async def test_a_turn_is_found_by_its_id_and_by_its_requests(world: World) -> None:
    session_id = await world.opened(lease_ms=60_000)
    new = message(session_id, "one two three")
    held = owner(await world.history.begin_turn(new))

    running = await world.operations.turn(session_id, held.turn_id)
    await world.commit(held, reply("four five"))
    done = await world.operations.turn(session_id, new.request_id)

    assert (running.turn.turn_id, running.turn.state, running.turn.fence) == (held.turn_id, TurnState.RUNNING, 1)
    assert 0 < running.lease_left_ms <= 60_000
    assert (done.turn.turn_id, done.turn.seq, done.lease_left_ms, done.head.last_seq) == (held.turn_id, 1, 0, 1)
    assert (done.user_tokens, done.reply_tokens) == (3, 2)


async def test_the_lease_of_another_turn_is_not_that_of_one_that_ended(world: World) -> None:
    session_id = await world.opened(lease_ms=60_000)
    done = await world.exchange(session_id)
    await world.history.begin_turn(message(session_id))
    assert done.turn is not None

    inspection = await world.operations.turn(session_id, done.turn.turn_id)

    assert (inspection.head.active_turn is not None, inspection.lease_left_ms) == (True, 0)


async def test_a_turn_of_an_erased_session_shows_what_is_left_of_it(world: World) -> None:
    session_id = await world.opened()
    done = await world.exchange(session_id)
    assert done.turn is not None
    await world.history.erase_stream(session_id, ALICE)

    left = await world.operations.turn(session_id, done.turn.turn_id)

    assert (left.head.erased, left.turn.seq, left.turn.digest) == (True, 1, done.turn.digest)
    assert (left.turn.user_text, left.turn.reply_text, left.turn.record) == (None, "", b"")


async def test_a_turn_of_another_session_is_not_found(world: World) -> None:
    session_id, elsewhere = await world.opened(), await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))

    for session, turn in [(elsewhere, held.turn_id), (session_id, uuid4()), (SessionId(uuid4()), held.turn_id)]:
        with pytest.raises(NotFound):
            await world.operations.turn(session, turn)
