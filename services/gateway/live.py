"""A message on its way to its answer in this process: everybody who sent it hears the same.

Nothing here is needed for safety: whoever finds no live turn asks the ledger.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from colloquy.history.v1 import history_pb2
from libs.runtime.errors import ColloquyError


@dataclass(frozen=True, slots=True)
class Accepted:
    """The message is saved as this turn.

    `followed` is whether another claim than ours answers it, or has done so, as was heard first: one that is left
    behind may be taken over later.
    """

    turn_id: str
    kind: history_pb2.Kind.ValueType
    followed: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the ledger holds of the turn, and whether this process made it so."""

    turn: history_pb2.Turn
    made_here: bool


class LiveTurn:
    """One message's turn, from its arrival to its outcome. Its draft may be read from the beginning at any time."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[Accepted] = loop.create_future()
        self._outcome: asyncio.Future[Outcome] = loop.create_future()
        for future in (self._accepted, self._outcome):
            future.add_done_callback(_heard)
        self._pieces: list[str] = []
        self._changed = asyncio.Event()
        self._lease_ends = 0.0  # on the monotonic clock, like `_wanted`
        self._wanted: list[float] = []
        self.is_followed = False

    # -- whoever answers

    def accept(self, turn_id: str, kind: history_pb2.Kind.ValueType, lease_left_ms: int, *, followed: bool) -> None:
        """The ledger has the message, and a claim on it lives for so long: ours, or one that is followed (to its reply,
        where that is there already)."""
        self.is_followed = followed
        self._lease_ends = time.monotonic() + lease_left_ms / 1000
        if not self._accepted.done():
            self._accepted.set_result(Accepted(turn_id, kind, followed))

    def write(self, piece: str) -> None:
        """More of the draft."""
        self._pieces.append(piece)
        self._wake()

    def complete(self, outcome: Outcome) -> None:
        """The ledger holds the turn: COMMITTED, or FAILED for good."""
        self._outcome.set_result(outcome)
        self._wake()

    def fail(self, error: ColloquyError) -> None:
        """Nobody will answer it now."""
        if not self._accepted.done():
            self._accepted.set_exception(error)
        if not self._outcome.done():
            self._outcome.set_exception(error)
        self._wake()

    @property
    def is_accepted(self) -> bool:
        return self._accepted.done()

    def wanted_ms(self) -> float:
        """How long somebody still waits for the outcome; not positive where nobody does."""
        return (max(self._wanted, default=0.0) - time.monotonic()) * 1000

    def lease_left_ms(self) -> int:
        """How long the claim still lives: when another attempt makes sense at the latest."""
        return max(0, int((self._lease_ends - time.monotonic()) * 1000))

    # -- whoever waits; leaving early changes nothing for the others

    @contextmanager
    def wanted(self, left_ms: float) -> Iterator[None]:
        """Somebody waits, inside the block and for so long."""
        until = time.monotonic() + left_ms / 1000
        self._wanted.append(until)
        try:
            yield
        finally:
            self._wanted.remove(until)

    async def accepted(self) -> Accepted:
        """Wait until the message is saved.

        Raises:
            ColloquyError: it was refused, or that could not be found out.
        """
        return await asyncio.shield(self._accepted)

    async def outcome(self) -> Outcome:
        """Wait for the outcome.

        Raises:
            ColloquyError: the turn could not be answered now.
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


def _heard(future: "asyncio.Future[Accepted] | asyncio.Future[Outcome]") -> None:
    """An error that nobody waits for any more is no news: the ledger tells it to whoever asks again."""
    if not future.cancelled():
        future.exception()
