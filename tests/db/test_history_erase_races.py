"""An erase and every other write of the ledger, at the same moment: whoever is first, nothing that was said is left,
and the chain verifies (`World.check` computes it again from the content digests).

Each write meets the erase in three ways: it waits for the erase's lock, the erase waits for its, and both let loose.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from libs.runtime.db import Statement
from libs.runtime.errors import NotFound, SessionClosed
from libs.tokens.counting import count
from services.history import statements
from services.history.admission import OtherTurn
from services.history.commands import TurnRange, Viewer
from services.history.domain import ClaimId, SessionId
from services.history.store import Sight, Store
from services.history.usecases import CommitOutcome, CommitResult, History, Owner
from tests.databases import Database
from tests.db.history_world import ABANDON, ALICE, OPERATOR, World, interview, ledger, message, owner, reply
from tests.db.history_writes import (
    claiming,
    committing,
    erasing,
    from_another_gateway,
    head_of,
    insist,
    sealing,
    taking_over,
)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with ledger(database.dsns["history"]) as world:
        yield world


@dataclass(frozen=True, slots=True)
class Write:
    """A write that is about to happen in a session: as the statement that carries it out, and as what a caller asks."""

    session_id: SessionId
    statement: Statement
    params: Mapping[str, object]
    ask: Callable[[], Awaitable[object]]


async def claim(world: World) -> Write:
    session_id = await world.opened()
    await world.exchange(session_id)
    new = message(session_id)
    params = claiming(await head_of(world, session_id), new)
    return Write(session_id, statements.CLAIM, params, lambda: world.history.begin_turn(new))


async def take_over(world: World) -> Write:
    session_id = await world.opened()
    await world.exchange(session_id)
    new = message(session_id)
    held = owner(await world.history.begin_turn(new))
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    params = taking_over(replace(held, head=await head_of(world, session_id)))
    again = from_another_gateway(new)
    return Write(session_id, statements.TAKE_OVER, params, lambda: world.history.begin_turn(again))


async def supersede(world: World) -> Write:
    session_id = await world.opened()
    stale = message(session_id)
    held = owner(await world.history.begin_turn(stale))
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    await world.exchange(session_id)
    params = {**erasing(await head_of(world, session_id)), "turn_id": held.turn_id}
    return Write(session_id, statements.SUPERSEDE, params, lambda: world.history.begin_turn(stale))


async def _held(world: World) -> Owner:
    session_id = await world.opened()
    await world.exchange(session_id)
    return owner(await world.history.begin_turn(message(session_id)))


async def commit(world: World) -> Write:
    held = await _held(world)
    return Write(held.head.session_id, statements.COMMIT, committing(held), lambda: world.commit(held))


async def commit_the_last(world: World) -> Write:
    held, last = await _held(world), reply(final=True)
    params = committing(held, final=True)
    return Write(held.head.session_id, statements.COMMIT, params, lambda: world.commit(held, last))


async def commit_the_opening(world: World) -> Write:
    held = owner(await world.history.open_stream(interview()))
    return Write(held.head.session_id, statements.COMMIT, committing(held), lambda: world.commit(held))


async def release(world: World) -> Write:
    held = await _held(world)
    session_id, turn_id, fence = held.head.session_id, held.turn_id, held.head.fence
    params = {
        "session_id": session_id,
        "turn_id": turn_id,
        "fence": fence,
        "state": ABANDON.state,
        "reason": ABANDON.reason,
    }
    return Write(
        session_id, statements.RELEASE, params, lambda: world.history.release_turn(session_id, turn_id, fence, ABANDON)
    )


async def seal(world: World) -> Write:
    held = await _held(world)
    session_id = held.head.session_id
    return Write(
        session_id, statements.SEAL, sealing(held.head), lambda: world.history.seal_stream(session_id, OPERATOR)
    )


async def acknowledge(world: World) -> Write:
    session_id = await world.opened()
    done = await world.exchange(session_id)
    assert done.rev is not None
    settled = [(session_id, done.rev)]
    params = {"session_ids": [session_id], "revs": [done.rev]}
    return Write(session_id, statements.ACKNOWLEDGE, params, lambda: world.history.acknowledge_streams(settled))


async def erase(world: World) -> Write:
    held = await _held(world)
    session_id = held.head.session_id
    return Write(
        session_id, statements.ERASE, erasing(held.head), lambda: world.history.erase_stream(session_id, OPERATOR)
    )


CLIENTS_WRITES = [claim, take_over, supersede, commit, commit_the_last, commit_the_opening, release, seal]
WRITES = [*CLIENTS_WRITES, acknowledge, erase]
Preparation = Callable[[World], Awaitable[Write]]


async def erased_whole(world: World, session_id: SessionId) -> None:
    [stream] = await world.rows("streams", session_id)
    assert stream["erased"]
    await world.check(session_id)


@pytest.mark.parametrize("prepare", CLIENTS_WRITES)
async def test_a_write_that_waited_for_an_erase_finds_nothing_and_brings_nothing_back(
    world: World, prepare: Preparation
) -> None:
    write = await prepare(world)
    turns = len(await world.rows("turns", write.session_id))
    [before] = await world.rows("streams", write.session_id)

    async with world.holding(statements.ERASE, {"session_id": write.session_id, "rev": before["rev"]}) as holder:
        waiting = asyncio.ensure_future(write.ask())
        await holder.waited_for()
    with pytest.raises(NotFound):
        await waiting

    [left] = await world.rows("streams", write.session_id)
    assert (len(await world.rows("turns", write.session_id)), left["rev"]) == (turns, before["rev"] + 1)
    assert left["last_seq"] == before["last_seq"], "I8"
    await erased_whole(world, write.session_id)


@pytest.mark.parametrize("prepare", WRITES)
async def test_an_erase_that_waited_for_a_write_clears_that_too(world: World, prepare: Preparation) -> None:
    """The trap of one statement: the rows beside the locked one are older than the wait."""
    write = await prepare(world)

    async with world.holding(write.statement, write.params) as holder:
        waiting = asyncio.create_task(world.history.erase_stream(write.session_id, ALICE))
        await holder.waited_for()
    head = await waiting

    assert head.erased
    await erased_whole(world, write.session_id)


async def test_turns_that_are_erased_after_their_head_was_read_are_not_found(world: World) -> None:
    session_id = await world.opened()
    await world.exchange(session_id)

    class Interrupted(Store):
        """Somebody erases the session once its head was read."""

        async def stream(self, session_id: SessionId, viewer: Viewer) -> Sight | None:
            sight = await super().stream(session_id, viewer)
            await world.history.erase_stream(session_id, ALICE)
            return sight

    for span in (TurnRange(0, 0, 200, newest=False), TurnRange(0, 0, 1, newest=True)):
        with pytest.raises(NotFound):
            await History(Interrupted(world.database), count).list_turns(session_id, ALICE, span)
        session_id = await world.opened()
        await world.exchange(session_id)


async def test_an_acknowledgement_that_waited_for_an_erase_leaves_it_to_be_settled(world: World) -> None:
    write = await acknowledge(world)
    head = await head_of(world, write.session_id)

    async with world.holding(statements.ERASE, erasing(head)) as holder:
        waiting = asyncio.ensure_future(write.ask())
        await holder.waited_for()

    assert await waiting == 0
    [stream] = await world.rows("streams", write.session_id)
    assert stream["acked_rev"] < stream["rev"]
    await erased_whole(world, write.session_id)


async def test_two_erases_at_once_are_one(world: World) -> None:
    write = await erase(world)

    heads = await asyncio.gather(
        *(insist(lambda: world.history.erase_stream(write.session_id, OPERATOR)) for _ in range(20))
    )

    [stream] = await world.rows("streams", write.session_id)
    assert all(head == heads[0] for head in heads)
    assert heads[0].rev == stream["rev"]
    await erased_whole(world, write.session_id)


@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize("prepare", WRITES)
async def test_an_erase_and_a_write_let_loose_leave_nothing(world: World, prepare: Preparation, attempt: int) -> None:
    write = await prepare(world)

    async def ask() -> object:
        with suppress(NotFound, SessionClosed):
            return await insist(write.ask)
        return None

    await asyncio.gather(ask(), insist(lambda: world.history.erase_stream(write.session_id, OPERATOR)))

    await erased_whole(world, write.session_id)


async def test_a_crowd_in_one_session_says_nothing_more_once_it_is_erased(world: World) -> None:
    """Messages, answers, releases, takeovers, stale commits and acknowledgements, and an erase in their midst."""
    session_id = await world.opened(lease_ms=20)
    committed: list[CommitResult] = []
    answered_enough = asyncio.Event()

    async def converse(number: int) -> None:
        with suppress(NotFound):
            step = 0
            while True:
                step += 1
                await say(f"{number}/{step}", (number + step) % 4)

    async def say(text: str, what: int) -> None:
        new = message(session_id, text)
        begun = await insist(lambda: world.history.begin_turn(replace(new, claim_id=ClaimId(uuid4()))))
        if isinstance(begun, OtherTurn) and begun.lease_left_ms == 0:
            turn_id, fence = begun.turn.turn_id, begun.turn.fence
            await insist(lambda: world.history.commit_turn(session_id, turn_id, fence, reply("repaired")))
        elif isinstance(begun, Owner):
            await answer(begun, what)

    async def answer(held: Owner, what: int) -> None:
        if what == 0:
            await insist(lambda: world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON))
            return
        if what == 1:
            await world.lease_over(session_id)
        result = await insist(lambda: world.commit(held))
        committed.append(result)
        if len(committed) > 10:
            answered_enough.set()
        settled = [(session_id, result.rev)] if result.rev else []
        await insist(lambda: world.history.acknowledge_streams(settled))

    async with asyncio.timeout(30), asyncio.TaskGroup() as crowd:
        for number in range(8):
            crowd.create_task(converse(number))
        await answered_enough.wait()
        head = await insist(lambda: world.history.erase_stream(session_id, ALICE))

    [stream] = await world.rows("streams", session_id)
    assert (stream["rev"], stream["last_seq"]) == (head.rev, head.last_seq)
    assert head.last_seq >= len([result for result in committed if result.outcome is CommitOutcome.COMMITTED])
    await erased_whole(world, session_id)
