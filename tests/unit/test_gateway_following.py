"""Waiting for a turn that somebody else answers; the ledger is a script of what BeginTurn says."""

import asyncio
import uuid
from collections.abc import Callable

import pytest

from colloquy.history.v1 import history_pb2
from libs.runtime.errors import TurnInProgress
from services.gateway.claim import Message
from services.gateway.following import Following
from services.gateway.live import LiveTurn, LiveTurns

MESSAGE = Message("session", "ada", history_pb2.KIND_CHAT, "request", "Hello.", None)
IN_PROGRESS = history_pb2.BeginTurnResponse(in_progress=history_pb2.InProgress(turn_id="turn", lease_left_ms=4000))
EXPIRED = history_pb2.InProgress(turn_id="turn", lease_left_ms=0)
REPLAY = history_pb2.BeginTurnResponse(replay=history_pb2.Turn(turn_id="turn"))
OWNER = history_pb2.BeginTurnResponse(owner=history_pb2.Owner(turn_id="turn", takeover=True))


class Ledger:
    """Answers BeginTurn from a script, the last line again and again."""

    def __init__(self, *script: history_pb2.BeginTurnResponse) -> None:
        self._script = list(script)
        self.asked = 0
        self.was_asked = asyncio.Event()

    async def begin(self, _: Message, __: uuid.UUID) -> history_pb2.BeginTurnResponse:
        self.asked += 1
        self.was_asked.set()
        return self._script.pop(0) if len(self._script) > 1 else self._script[0]


def take_over(owner: history_pb2.Owner, _: Message) -> LiveTurn:
    return LiveTurn(owner.turn_id, history_pb2.KIND_CHAT, 4000)


def following(ledger: Ledger, own: Callable[[history_pb2.Owner, Message], LiveTurn] = take_over) -> Following:
    return Following(ledger.begin, own, LiveTurns())


async def test_however_many_wait_one_poller_asks() -> None:
    ledger = Ledger(IN_PROGRESS, REPLAY)
    waiting = following(ledger)

    heard = await asyncio.gather(*(waiting.follow(MESSAGE, IN_PROGRESS.in_progress, 2000) for _ in range(50)))

    assert {turn.turn_id for turn in heard} == {"turn"}
    assert ledger.asked == 2


async def test_who_waits_too_long_hears_what_is_left_of_the_lease() -> None:
    waiting = following(Ledger(IN_PROGRESS))

    with pytest.raises(TurnInProgress) as caught:
        await waiting.follow(MESSAGE, IN_PROGRESS.in_progress, 250)

    assert caught.value.retry_after_ms is not None
    assert 3500 < caught.value.retry_after_ms <= 4000


async def test_an_expired_turn_is_taken_over_while_there_is_time_to_answer() -> None:
    waiting = following(Ledger(OWNER))

    attended = await waiting.follow(MESSAGE, EXPIRED, 1000)

    assert isinstance(attended, LiveTurn)


async def test_with_too_little_time_left_an_expired_turn_is_left_alone() -> None:
    ledger = Ledger(OWNER)

    with pytest.raises(TurnInProgress):
        await following(ledger).follow(MESSAGE, EXPIRED, 250)

    assert ledger.asked == 0


async def test_a_poller_ends_with_its_last_waiter() -> None:
    ledger = Ledger(IN_PROGRESS)
    waiting = following(ledger)
    follower = asyncio.create_task(waiting.follow(MESSAGE, IN_PROGRESS.in_progress, 10_000))
    await ledger.was_asked.wait()

    follower.cancel()
    await asyncio.wait({follower})

    assert [task for task in asyncio.all_tasks() if task.get_name() == "follow" and not task.cancelling()] == []
