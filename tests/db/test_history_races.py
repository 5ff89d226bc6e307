"""Writers at the same moment: who wins, what the others are told, and what the tables hold afterwards.

Some tests let many tasks loose on many connections. The others force one order of events: a transaction holds the
stream's lock with a write that is not committed yet, and the use case under test waits for it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from functools import partial
from uuid import uuid4

import pytest

from libs.runtime.errors import SessionClosed, Unavailable
from services.history import statements
from services.history.admission import InProgress, OtherTurn, Replay
from services.history.domain import ClaimId, TurnState
from services.history.usecases import Begun, CommitOutcome, Opened, Owner
from tests.databases import Database
from tests.db.history_world import ABANDON, ALICE, World, interview, ledger, message, owner, reply
from tests.db.history_writes import claiming, committing, from_another_gateway, head_of, insist, sealing, taking_over


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with ledger(database.dsns["history"]) as world:
        yield world


# Let loose


async def test_a_hundred_identical_messages_have_one_owner(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)

    def ask() -> Awaitable[Begun]:
        sent = from_another_gateway(new)
        return insist(lambda: world.history.begin_turn(sent))

    answers = await asyncio.gather(*(ask() for _ in range(100)))
    [held] = [answer for answer in answers if isinstance(answer, Owner)]
    done = await world.commit(held)
    replays = await asyncio.gather(*(ask() for _ in range(100)))

    assert Counter(type(answer) for answer in answers) == {Owner: 1, InProgress: 99}
    assert all(answer.turn.turn_id == held.turn_id for answer in answers if isinstance(answer, InProgress))
    assert done.turn is not None
    assert replays == [Replay(done.turn)] * 100
    await world.check(session_id)


async def test_a_hundred_identical_openings_make_one_stream_and_one_owner(world: World) -> None:
    new = interview()

    def ask() -> Awaitable[Opened]:
        sent = replace(new, claim_id=ClaimId(uuid4()))
        return insist(lambda: world.history.open_stream(sent))

    opened = await asyncio.gather(*(ask() for _ in range(100)))

    assert Counter(type(it.opening) for it in opened) == {Owner: 1, InProgress: 99}
    assert len(await world.rows("turns", new.session_id)) == 1
    await world.check(new.session_id)


@pytest.mark.parametrize("attempt", range(10))
async def test_of_two_messages_at_once_one_is_answered_and_one_is_told(world: World, attempt: int) -> None:
    session_id = await world.opened()

    answers = await asyncio.gather(*(world.history.begin_turn(message(session_id, text)) for text in ("a", "b")))
    [held] = [answer for answer in answers if isinstance(answer, Owner)]
    [other] = [answer for answer in answers if isinstance(answer, OtherTurn)]

    assert other.turn.turn_id == held.turn_id
    assert len(await world.rows("turns", session_id)) == 1
    await world.check(session_id)


async def test_the_same_claim_sent_many_times_at_once_is_one_claim(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)

    answers = await asyncio.gather(*(insist(lambda: world.history.begin_turn(new)) for _ in range(20)))

    assert {(owner(answer).turn_id, owner(answer).head.fence) for answer in answers} == {(owner(answers[0]).turn_id, 1)}
    await world.check(session_id)


async def test_an_expired_turn_is_taken_over_once(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)
    await world.history.begin_turn(new)
    await world.lapse(session_id)

    asked = [partial(world.history.begin_turn, from_another_gateway(new)) for _ in range(20)]
    answers = await asyncio.gather(*map(insist, asked))

    assert Counter(type(answer) for answer in answers) == {Owner: 1, InProgress: 19}
    [held] = [answer for answer in answers if isinstance(answer, Owner)]
    assert (held.takeover, held.head.fence) == (True, 2)
    await world.check(session_id)


async def test_a_commit_sent_many_times_at_once_commits_once(world: World) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))

    asked = [partial(world.commit, held, reply(f"version {number}")) for number in range(20)]
    results = await asyncio.gather(*map(insist, asked))

    assert Counter(result.outcome for result in results) == {CommitOutcome.COMMITTED: 1, CommitOutcome.DUPLICATE: 19}
    assert len({result.turn for result in results}) == 1
    await world.check(session_id)


@pytest.mark.parametrize("attempt", range(10))
async def test_a_commit_and_a_seal_at_once_agree_on_who_was_first(world: World, attempt: int) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))

    result, head = await asyncio.gather(world.commit(held), world.history.seal_stream(session_id, ALICE))

    assert head.sealed
    assert (result.outcome, head.last_seq) in {(CommitOutcome.COMMITTED, 1), (CommitOutcome.FENCED, 0)}
    assert (await head_of(world, session_id)).last_seq == head.last_seq
    await world.check(session_id)


async def test_a_crowd_in_one_session_keeps_every_invariant(world: World) -> None:
    """Messages, answers, releases, takeovers, stale commits, acknowledgements and at last a seal, all at once."""
    session_id = await world.opened(lease_ms=20)
    answered: dict[object, Replay] = {}

    async def converse(number: int) -> None:
        for step in range(6):
            new = message(session_id, f"{number}/{step}")
            for _ in range(20):
                try:
                    begun: Begun = await world.history.begin_turn(from_another_gateway(new))
                except Unavailable:
                    continue
                if isinstance(begun, Replay):
                    assert answered.setdefault(new.request_id, begun) == begun, "I3"
                    break
                if isinstance(begun, Owner):
                    await act(begun, (number + step) % 4)
                elif isinstance(begun, OtherTurn) and begun.lease_left_ms == 0:
                    await repair(begun)

    async def repair(ripe: OtherTurn) -> None:
        await insist(
            lambda: world.history.commit_turn(session_id, ripe.turn.turn_id, ripe.turn.fence, reply("repaired"))
        )

    async def act(held: Owner, what: int) -> None:
        if what == 0:
            await insist(lambda: world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON))
            return
        if what == 1:
            await world.lease_over(session_id)
        result = await insist(lambda: world.commit(held))
        settled = [(session_id, result.rev)] if result.rev else []
        await insist(lambda: world.history.acknowledge_streams(settled))

    await asyncio.gather(*(converse(number) for number in range(8)))
    sealed = await insist(lambda: world.history.seal_stream(session_id, ALICE))

    assert sealed.last_seq > 3
    assert answered
    await world.check(session_id)


# One order of events


async def test_a_message_that_waited_for_another_ones_claim_sees_that_claim(world: World) -> None:
    session_id = await world.opened()
    first, second = message(session_id, "first"), message(session_id, "second")

    params = claiming(await head_of(world, session_id), first)
    async with world.holding(statements.CLAIM, params) as holder:
        waiting = asyncio.create_task(world.history.begin_turn(second))
        await holder.waited_for()
    answer = await waiting

    assert isinstance(answer, OtherTurn)
    assert answer.turn.turn_id == params["turn_id"]
    await world.check(session_id)


async def test_a_message_that_waited_for_its_own_twins_claim_sees_that_it_is_in_progress(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)
    held = owner(await world.history.begin_turn(new))
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    given_back = await head_of(world, session_id)

    async with world.holding(statements.TAKE_OVER, taking_over(replace(held, head=given_back))) as holder:
        waiting = asyncio.create_task(world.history.begin_turn(from_another_gateway(new)))
        await holder.waited_for()
    answer = await waiting

    assert isinstance(answer, InProgress)
    await world.check(session_id)


async def test_a_stale_turn_that_waited_to_fail_leaves_the_claim_of_another_alone(world: World) -> None:
    session_id = await world.opened()
    stale, other = message(session_id, "stale"), message(session_id, "other")
    held = owner(await world.history.begin_turn(stale))
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    await world.exchange(session_id)

    params = claiming(await head_of(world, session_id), other)
    async with world.holding(statements.CLAIM, params) as holder:
        waiting = asyncio.create_task(world.history.begin_turn(stale))
        await holder.waited_for()
    answer = await waiting

    assert isinstance(answer, OtherTurn)
    assert answer.turn.turn_id == params["turn_id"]
    await world.check(session_id)


async def test_a_message_that_waited_for_a_seal_is_refused(world: World) -> None:
    session_id = await world.opened()

    async with world.holding(statements.SEAL, sealing(await head_of(world, session_id))) as holder:
        waiting = asyncio.create_task(world.history.begin_turn(message(session_id)))
        await holder.waited_for()
    with pytest.raises(SessionClosed):
        await waiting

    assert await world.rows("turns", session_id) == []
    await world.check(session_id)


async def test_a_seal_that_waited_for_a_commit_closes_the_session_after_it(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    held = owner(await world.history.begin_turn(message(session_id, "first")))
    await world.lease_over(session_id)

    async with world.holding(statements.COMMIT, committing(held)) as holder:
        waiting = asyncio.create_task(world.history.seal_stream(session_id, ALICE))
        await holder.waited_for()
    head = await waiting

    assert (head.sealed, head.last_seq) == (True, 1)
    await world.check(session_id)


async def test_a_seal_that_waited_for_a_claim_fails_the_turn_it_had_not_seen(world: World) -> None:
    """The trap of one statement: the rows beside the locked one are older than the wait."""
    session_id = await world.opened()
    new = message(session_id)

    async with world.holding(statements.CLAIM, claiming(await head_of(world, session_id), new)) as holder:
        waiting = asyncio.create_task(world.history.seal_stream(session_id, ALICE))
        await holder.waited_for()
    head = await waiting
    [row] = await world.rows("turns", session_id)

    assert head.sealed
    assert (row["state"], row["reason"]) == ("FAILED", "SESSION_CLOSED")
    await world.check(session_id)


async def test_a_commit_that_waited_for_a_seal_is_fenced(world: World) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))

    async with world.holding(statements.SEAL, sealing(held.head)) as holder:
        waiting = asyncio.create_task(world.commit(held))
        await holder.waited_for()
    result = await waiting

    assert (result.outcome, result.sealed) == (CommitOutcome.FENCED, True)
    assert result.turn is not None
    assert (result.turn.state, result.turn.reason) == (TurnState.FAILED, "SESSION_CLOSED")
    await world.check(session_id)


async def test_a_commit_that_waited_for_a_takeover_is_fenced(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    held = owner(await world.history.begin_turn(message(session_id)))

    async with world.holding(statements.TAKE_OVER, taking_over(held)) as holder:
        waiting = asyncio.create_task(world.commit(held))
        await holder.waited_for()
    result = await waiting

    assert result.outcome is CommitOutcome.FENCED
    await world.check(session_id)


async def test_a_takeover_that_waited_for_the_commit_is_a_replay_of_it(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    new = message(session_id)
    held = owner(await world.history.begin_turn(new))
    await world.lease_over(session_id)

    async with world.holding(statements.COMMIT, committing(held)) as holder:
        waiting = asyncio.create_task(world.history.begin_turn(from_another_gateway(new)))
        await holder.waited_for()
    answer = await waiting

    assert isinstance(answer, Replay)
    assert (answer.turn.state, answer.turn.reply_text) == (TurnState.COMMITTED, "from the holder")
    await world.check(session_id)


async def test_an_owner_and_a_repair_that_commit_at_once_leave_one_reply(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    held = owner(await world.history.begin_turn(message(session_id)))

    async with world.holding(statements.COMMIT, committing(held)) as holder:
        waiting = [asyncio.create_task(world.commit(held, reply(f"{n}"))) for n in range(3)]
        await holder.waited_for(3)
    results = await asyncio.gather(*waiting)

    assert {result.outcome for result in results} == {CommitOutcome.DUPLICATE}
    assert {result.turn.reply_text for result in results if result.turn} == {"from the holder"}
    await world.check(session_id)


async def test_a_stream_that_never_holds_still_is_unavailable_and_not_a_loop(world: World) -> None:
    session_id = await world.opened()
    stop = asyncio.Event()

    async def disturb() -> None:
        async with world.connected() as connection:
            while not stop.is_set():
                await connection.execute("UPDATE history.streams SET rev = rev + 1 WHERE session_id = %s", [session_id])

    disturbers = [asyncio.create_task(disturb()) for _ in range(3)]
    outcomes: set[type[object]] = set()
    for _ in range(10):
        try:
            begun = await world.history.begin_turn(message(session_id))
        except Unavailable:
            outcomes.add(Unavailable)
        else:
            outcomes.add(type(begun))
    stop.set()
    await asyncio.gather(*disturbers)

    assert outcomes <= {Unavailable, Owner, OtherTurn}
    assert len(await world.rows("turns", session_id)) <= 1
