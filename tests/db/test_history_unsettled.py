"""What a sweep is told: which streams are not settled, how each of them stood at one moment, and page by page."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from services.history import usecases
from services.history.admission import lease_left_ms
from services.history.commands import UnsettledRange
from services.history.domain import ClaimId, Fence, SessionId, TurnState
from services.history.store import Sight
from tests.conftest import FreshDatabase
from tests.db.history_world import ABANDON, ALICE, World, ledger, message, owner

FIRST = SessionId(UUID(int=0))


@pytest.fixture
async def world(fresh_database: FreshDatabase) -> AsyncIterator[World]:
    """A ledger of its own, since all of its streams are listed."""
    async with ledger(fresh_database().dsns["history"]) as world:
        yield world


async def unsettled(world: World, min_age_ms: int = 0) -> dict[SessionId, Sight]:
    sights, more = await world.history.list_unsettled(UnsettledRange(FIRST, 500, min_age_ms))
    assert not more
    return {sight.head.session_id: sight for sight in sights}


async def acknowledge(world: World, session_id: SessionId) -> None:
    [stream] = await world.rows("streams", session_id)
    assert await world.history.acknowledge_streams([(session_id, stream["rev"])]) == 1


async def test_a_stream_is_listed_from_each_write_until_it_is_acknowledged(world: World) -> None:
    session_id = await world.opened()
    seen = [set(await unsettled(world))]

    await acknowledge(world, session_id)
    seen.append(set(await unsettled(world)))
    held = owner(await world.history.begin_turn(message(session_id)))
    seen.append(set(await unsettled(world)))
    await world.commit(held)
    await acknowledge(world, session_id)
    seen.append(set(await unsettled(world)))
    await world.history.seal_stream(session_id, ALICE)
    seen.append(set(await unsettled(world)))

    assert seen == [{session_id}, set(), {session_id}, set(), {session_id}]


async def test_a_turn_that_runs_is_listed_with_its_claim_and_one_given_back_is_not(world: World) -> None:
    running, given_back, expired = [await world.opened(lease_ms=lease) for lease in (60_000, 60_000, 1)]
    claims = {it: owner(await world.history.begin_turn(message(it, str(it)))) for it in (running, given_back, expired)}
    held = claims[given_back]
    await world.history.release_turn(given_back, held.turn_id, held.head.fence, ABANDON)
    await world.lease_over(expired)

    sights = await unsettled(world)

    active = {session_id: sight.pending for session_id, sight in sights.items()}
    left_ms = {session_id: lease_left_ms(sight.head, sight.now) for session_id, sight in sights.items()}
    assert active[given_back] is None
    for session_id in (running, expired):
        turn = active[session_id]
        assert turn is not None
        assert (turn.turn_id, turn.state, turn.user_text) == (
            claims[session_id].turn_id,
            TurnState.RUNNING,
            str(session_id),
        )
        assert turn.fence == sights[session_id].head.fence == claims[session_id].head.fence
    assert 0 < left_ms[running] <= 60_000
    assert (left_ms[given_back], left_ms[expired]) == (0, 0)


async def test_an_erased_stream_is_listed_until_it_is_acknowledged(world: World) -> None:
    session_id = await world.opened()
    await world.history.begin_turn(message(session_id))
    head = await world.history.erase_stream(session_id, ALICE)

    sights = await unsettled(world)
    await acknowledge(world, session_id)

    assert sights[session_id].head == head
    assert sights[session_id].head.erased
    assert sights[session_id].pending is None
    assert await unsettled(world) == {}


async def test_only_streams_that_have_rested_are_listed_if_so_asked(world: World) -> None:
    rested, busy = await world.opened(), await world.opened()
    async with world.connected() as connection:
        await connection.execute("UPDATE history.streams SET changed_at = changed_at - interval '1 hour'")
    await world.exchange(busy)

    sights = await unsettled(world, min_age_ms=60_000)

    assert set(sights) == {rested}
    assert 3_600_000 <= sights[rested].age_ms < 3_700_000


async def test_every_write_but_an_acknowledgement_ends_the_rest(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    first, second = message(session_id, "first"), message(session_id, "second")
    moments = [(await world.rows("streams", session_id))[0]["changed_at"]]

    async def note() -> None:
        [stream] = await world.rows("streams", session_id)
        moments.append(stream["changed_at"])

    held = owner(await world.history.begin_turn(first))
    await note()
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    await note()
    held = owner(await world.history.begin_turn(second))
    await note()
    await world.lease_over(session_id)
    held = owner(await world.history.begin_turn(replace(second, claim_id=ClaimId(uuid4()))))
    await note()
    await world.commit(held)
    await note()
    await world.history.begin_turn(first)  # FAILED(CONFLICT)
    await note()
    await world.history.seal_stream(session_id, ALICE)
    await note()
    await world.history.erase_stream(session_id, ALICE)
    await note()

    assert moments == sorted(set(moments))
    await acknowledge(world, session_id)
    await note()
    assert moments[-1] == moments[-2]


# Pages


async def test_pages_follow_one_another_until_there_is_no_more(world: World) -> None:
    sessions = sorted([await world.opened() for _ in range(5)])

    pages, after, more = [], FIRST, True
    while more:
        sights, more = await world.history.list_unsettled(UnsettledRange(after, 2, 0))
        pages.append([sight.head.session_id for sight in sights])
        after = pages[-1][-1]

    assert pages == [sessions[:2], sessions[2:4], sessions[4:]]


async def test_a_page_of_large_streams_is_shorter_and_says_that_there_is_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usecases, "MAX_BYTES_LISTED", 25_000)
    sessions = sorted([await world.opened(facts=b"f" * 5_000, personal_facts=b"p" * 5_000) for _ in range(5)])

    first, more = await world.history.list_unsettled(UnsettledRange(FIRST, 500, 0))
    last, no_more = await world.history.list_unsettled(UnsettledRange(sessions[3], 500, 0))
    monkeypatch.setattr(usecases, "MAX_BYTES_LISTED", 1)
    least, _ = await world.history.list_unsettled(UnsettledRange(FIRST, 500, 0))

    assert [[sight.head.session_id for sight in page] for page in (first, last, least)] == [
        sessions[:2],
        sessions[4:],
        sessions[:1],
    ]
    assert (more, no_more) == (True, False)


# Races


async def test_head_turn_and_lease_are_of_one_moment_while_claims_change_hands(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    new = message(session_id)
    fences: set[Fence] = set()

    async def churn() -> None:
        for fence in itertools.count(1):
            await world.history.begin_turn(replace(new, claim_id=ClaimId(uuid4())))
            await world.lease_over(session_id)
            if fence >= 60 and len(fences) > 1:  # however slow the looks are
                return

    async with asyncio.TaskGroup() as group:
        churning = group.create_task(churn())
        while not churning.done():
            for sight in (await unsettled(world)).values():
                if sight.pending is not None:
                    assert sight.pending.turn_id == sight.head.active_turn
                    assert sight.pending.fence == sight.head.fence
                    assert (sight.head.rev, sight.head.claim_id is None) == (sight.head.fence + 1, False)
                    fences.add(sight.head.fence)

    assert len(fences) > 1, "the claim has changed hands while it was looked at"
    await world.check(session_id)
