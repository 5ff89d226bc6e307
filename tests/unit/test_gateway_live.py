"""Turns that are being answered in this process."""

import asyncio

import pytest

from colloquy.history.v1 import history_pb2
from libs.runtime.errors import Unavailable
from services.gateway.live import LiveTurn, LiveTurns, Superseded

KEY = ("session", "request")


def live_turn() -> LiveTurn:
    return LiveTurn("turn", history_pb2.KIND_CHAT, lease_ms=4000)


async def draft_of(live: LiveTurn) -> str:
    return "".join([piece async for piece in live.draft()])


async def test_everybody_hears_the_whole_draft_whenever_they_came() -> None:
    live = live_turn()
    early = asyncio.create_task(draft_of(live))
    await asyncio.sleep(0)
    live.write("Good ")
    await asyncio.sleep(0)
    late = asyncio.create_task(draft_of(live))
    live.write("morning.")
    live.complete(history_pb2.Turn(turn_id="turn"))

    assert await early == await late == "Good morning."


async def test_a_waiter_who_leaves_does_not_end_the_turn_for_the_others() -> None:
    live = live_turn()
    leaving, staying = asyncio.create_task(live.outcome()), asyncio.create_task(live.outcome())
    await asyncio.sleep(0)

    leaving.cancel()
    await asyncio.wait({leaving})
    live.complete(history_pb2.Turn(turn_id="turn"))

    assert (await staying).turn_id == "turn"


async def test_the_first_outcome_counts() -> None:
    live = live_turn()

    live.fail(Unavailable())
    live.complete(history_pb2.Turn(turn_id="turn"))

    with pytest.raises(Unavailable):
        await live.outcome()


async def test_a_later_claim_of_the_same_request_is_the_one_that_is_found() -> None:
    turns, first, second = LiveTurns(), live_turn(), live_turn()
    turns.enter(KEY, first)
    turns.enter(KEY, second)

    turns.leave(KEY, first)

    assert turns.find(KEY) is second
    first.fail(Superseded())
