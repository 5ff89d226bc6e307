"""Turns that this process is answering now, so that everybody who asked for one hears the same answer.

A live turn is a draft that grows and an outcome that comes once. Nothing here is needed for safety: whoever finds no
live turn asks the ledger.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from colloquy.history.v1 import history_pb2
from libs.runtime.errors import ColloquyError

TurnKey = tuple[str, str]  # session id, request id


class Superseded(Exception):  # noqa: N818 - an outcome, not a failure
    """Somebody else answers this turn now: ask the ledger again."""


class LiveTurn:
    """One turn on its way. `draft` may be read from its beginning at any time."""

    def __init__(self, turn_id: str, kind: history_pb2.Kind.ValueType, lease_ms: int) -> None:
        self.turn_id = turn_id
        self.kind = kind
        self._lease_ends = time.monotonic() + lease_ms / 1000
        self._pieces: list[str] = []
        self._changed = asyncio.Event()
        self._outcome: asyncio.Future[history_pb2.Turn] = asyncio.get_running_loop().create_future()
        self._outcome.add_done_callback(lambda outcome: outcome.cancelled() or outcome.exception())

    def lease_left_ms(self) -> int:
        """How long the claim still lives: when another attempt makes sense at the latest."""
        return max(0, int((self._lease_ends - time.monotonic()) * 1000))

    def write(self, piece: str) -> None:
        """More of the draft."""
        self._pieces.append(piece)
        self._wake()

    def complete(self, turn: history_pb2.Turn) -> None:
        """The ledger holds the turn: COMMITTED, or FAILED for good."""
        if not self._outcome.done():
            self._outcome.set_result(turn)
            self._wake()

    def fail(self, error: ColloquyError | Superseded) -> None:
        """Nobody will answer it now."""
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._wake()

    async def outcome(self) -> history_pb2.Turn:
        """Wait for the outcome; leaving early changes nothing for the others.

        Raises:
            ColloquyError: the turn could not be answered now.
            Superseded: ask the ledger again.
        """
        return await asyncio.shield(self._outcome)

    async def draft(self) -> AsyncIterator[str]:
        """What there is of the draft, in one piece, then the rest as it comes, until there is an outcome."""
        sent = 0
        while True:
            changed, pieces = self._changed, self._pieces[sent:]
            if pieces:
                sent += len(pieces)
                yield "".join(pieces)
            elif self._outcome.done():
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class LiveTurns:
    """The live turns of this process, by session and request."""

    def __init__(self) -> None:
        self._turns: dict[TurnKey, LiveTurn] = {}

    def find(self, key: TurnKey) -> LiveTurn | None:
        return self._turns.get(key)

    def enter(self, key: TurnKey, live: LiveTurn) -> None:
        """The turn can be found from now on, instead of an earlier claim of the same request."""
        self._turns[key] = live

    def leave(self, key: TurnKey, live: LiveTurn) -> None:
        """The turn has its outcome: the ledger tells it from now on."""
        if self._turns.get(key) is live:
            del self._turns[key]
