"""Waiting for a turn that somebody else answers: another process, or a claim whose owner died.

The ledger is asked every 100 ms or so, by one poller for each request and process however many wait. A poll is a
BeginTurn like any other: it ends in a replay, in a live turn of this process, or in taking the turn over.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable

from colloquy.history.v1 import history_pb2
from libs.runtime.errors import Conflict, TurnInProgress
from services.gateway.claim import Message
from services.gateway.live import LiveTurn, LiveTurns, TurnKey

POLL_MS = 100
TAKEOVER_NEEDS_MS = 300  # with less, taking a turn over could not answer whoever waits

Attended = LiveTurn | history_pb2.Turn
Begin = Callable[[Message, uuid.UUID], Awaitable[history_pb2.BeginTurnResponse]]
Own = Callable[[history_pb2.Owner, Message], LiveTurn]


class _Poller:
    """One request's poller: its task, who waits for it until when, and what is left of the lease."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Attended]
        self.waiters = 0
        self.wanted_until = 0.0  # on the monotonic clock
        self.lease_ends = 0.0

    def saw_lease(self, lease_left_ms: int) -> None:
        self.lease_ends = time.monotonic() + lease_left_ms / 1000

    def lease_left_ms(self) -> int:
        return max(0, int((self.lease_ends - time.monotonic()) * 1000))


class Following:
    """The pollers of this process.

    Args:
        begin: BeginTurn for a message, under a claim id.
        own: starts answering a turn that a poll has taken over.
        live: the turns that this process answers.
    """

    def __init__(self, begin: Begin, own: Own, live: LiveTurns) -> None:
        self._begin, self._own, self._live = begin, own, live
        self._pollers: dict[TurnKey, _Poller] = {}

    async def follow(self, message: Message, seen: history_pb2.InProgress, left_ms: float) -> Attended:
        """Wait until the turn is replayed, live in this process, or taken over.

        Raises:
            TurnInProgress: not within `left_ms`; it carries what is left of the lease.
            ColloquyError: the ledger refused meanwhile.
        """
        poller = self._pollers.get(message.key)
        if poller is None:
            poller = self._pollers[message.key] = _Poller()
            poller.task = asyncio.create_task(self._poll(message, poller), name="follow")
        poller.saw_lease(seen.lease_left_ms)
        poller.wanted_until = max(poller.wanted_until, time.monotonic() + left_ms / 1000)
        poller.waiters += 1
        try:
            async with asyncio.timeout(max(0.0, left_ms / 1000)):
                return await asyncio.shield(poller.task)
        except TimeoutError:
            raise TurnInProgress(poller.lease_left_ms()) from None
        finally:
            poller.waiters -= 1
            if poller.waiters == 0:
                poller.task.cancel()
                if self._pollers.get(message.key) is poller:
                    del self._pollers[message.key]

    async def _poll(self, message: Message, poller: _Poller) -> Attended:
        claim_id = uuid.uuid4()
        while True:
            await asyncio.sleep(POLL_MS * random.uniform(0.75, 1.25) / 1000)
            if live := self._live.find(message.key):
                return live
            wanted_ms = (poller.wanted_until - time.monotonic()) * 1000
            if poller.lease_left_ms() == 0 and wanted_ms < TAKEOVER_NEEDS_MS:
                raise TurnInProgress(0)
            begun = await self._begin(message, claim_id)
            match begun.WhichOneof("outcome"):
                case "replay":
                    return begun.replay
                case "owner":
                    return self._own(begun.owner, message)
                case "in_progress":
                    poller.saw_lease(begun.in_progress.lease_left_ms)
                case _:  # the turn was abandoned, and another message has the session now
                    raise Conflict
