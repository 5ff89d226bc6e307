"""Turns that are being answered in this process."""

import asyncio

import pytest

from colloquy.history.v1 import history_pb2
from libs.runtime.errors import Conflict, Unavailable
from services.gateway.live import LiveTurn, Outcome

COMMITTED = Outcome(history_pb2.Turn(turn_id="turn"), made_here=True)


async def draft_of(live: LiveTurn) -> str:
    return "".join([piece async for piece in live.draft()])


async def test_everybody_hears_the_whole_draft_whenever_they_came() -> None:
    live = LiveTurn()
    early = asyncio.create_task(draft_of(live))
    await asyncio.sleep(0)
    live.write("Good ")
    await asyncio.sleep(0)
    late = asyncio.create_task(draft_of(live))
    live.write("morning.")
    live.complete(COMMITTED)

    assert await early == await late == "Good morning."


async def test_a_waiter_who_leaves_does_not_end_the_turn_for_the_others() -> None:
    live = LiveTurn()
    leaving, staying = asyncio.create_task(live.outcome()), asyncio.create_task(live.outcome())
    await asyncio.sleep(0)

    leaving.cancel()
    await asyncio.wait({leaving})
    live.complete(COMMITTED)

    assert await staying == COMMITTED


async def test_a_refusal_is_heard_by_who_waits_for_acceptance_and_by_who_waits_for_the_outcome() -> None:
    live = LiveTurn()

    live.fail(Conflict())

    for waited in (live.accepted(), live.outcome()):
        with pytest.raises(Conflict):
            await waited


async def test_what_was_accepted_stays_accepted_when_the_turn_fails() -> None:
    live = LiveTurn()
    live.accept("turn", history_pb2.KIND_CHAT, lease_left_ms=4000, followed=False)

    live.fail(Unavailable())

    assert (await live.accepted()).turn_id == "turn"


async def test_what_acceptance_said_of_another_claim_stays_said_when_that_is_taken_over() -> None:
    live = LiveTurn()
    live.accept("turn", history_pb2.KIND_CHAT, lease_left_ms=50, followed=True)

    live.accept("turn", history_pb2.KIND_CHAT, lease_left_ms=4000, followed=False)

    assert (await live.accepted()).followed
    assert not live.is_followed


async def test_it_is_wanted_for_as_long_as_the_most_patient_waits() -> None:
    live = LiveTurn()

    with live.wanted(60_000):
        with live.wanted(100):
            assert 59_000 < live.wanted_ms() <= 60_000
        assert live.wanted_ms() > 59_000

    assert live.wanted_ms() <= 0
