"""One call as this process sees it, whoever makes it: shared by all who ask for it here.

Identical requests join the flight that is there, so a call has one task, and one poller where another process makes it,
however many wait.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from libs.runtime import context
from libs.runtime.errors import ColloquyError, DeadlineExceeded
from services.llm_gateway.domain import Call, Offer

COALESCE_SECONDS: Final = 0.03
"""How long a piece of text may wait for more: a message to a caller wakes every process on its way."""


class Flight:
    """A call under way, its text so far, and in the end its outcome."""

    def __init__(self, offer: Offer, *, streamed: bool) -> None:
        self.offer, self.streamed = offer, streamed
        self.reused = True
        """Whether an earlier intent won; False once this flight's own has been written."""
        self.wanted_until = 0.0
        """The latest deadline of those who wait, on the loop's clock."""
        self.text = ""
        """What those who stream have been shown."""
        self._loop = asyncio.get_running_loop()
        self._pieces: list[str] = []
        self._published_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._landed = asyncio.Event()
        self._outcome: Call | ColloquyError | None = None

    def join(self) -> None:
        """Somebody waits: until the deadline of the call being served, or for ever."""
        left_ms = context.remaining_ms()
        until = float("inf") if left_ms is None else self._loop.time() + left_ms / 1000
        self.wanted_until = max(self.wanted_until, until)

    @property
    def wanted_ms(self) -> float:
        """How long anybody still waits."""
        return (self.wanted_until - self._loop.time()) * 1000

    @property
    def shown(self) -> bool:
        """Whether text of the attempt under way has been, or is about to be, passed on: it cannot be taken back."""
        return bool(self.text or self._pieces)

    def add(self, piece: str) -> None:
        """Text has arrived. The first piece is passed on at once, later ones together."""
        self._pieces.append(piece)
        if self._timer is None:
            self._timer = self._loop.call_at(self._published_at + COALESCE_SECONDS, self._publish)

    def land(self, outcome: Call | ColloquyError) -> None:
        """The flight is over: the call is DONE, or there is a reason why not."""
        if self._timer is not None:
            self._timer.cancel()
        self._outcome = outcome
        if isinstance(outcome, Call) and outcome.text.startswith(self.text):
            self._pieces = [outcome.text.removeprefix(self.text)]  # else another process's answer overtook the draft
        self._publish()
        self._landed.set()

    async def call(self) -> Call:
        """Wait for the call, DONE.

        Raises:
            DeadlineExceeded: the caller's time ended first; the flight goes on.
            ColloquyError: what the flight ended with.
        """
        await _within_deadline(self._landed)
        assert self._outcome is not None
        if isinstance(self._outcome, ColloquyError):
            raise self._outcome
        return self._outcome

    async def deltas(self) -> AsyncIterator[str]:
        """The text that there is, then the rest as it comes, until the flight is over whichever way.

        Raises:
            DeadlineExceeded: the caller's time ended first.
        """
        shown = 0
        while True:
            changed = self._changed
            if shown < len(self.text):
                delta, shown = self.text[shown:], len(self.text)
                yield delta
            elif self._outcome is not None:
                return
            else:
                await _within_deadline(changed)

    def _publish(self) -> None:
        self._timer = None
        self.text += "".join(self._pieces)
        self._pieces.clear()
        self._published_at = self._loop.time()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _within_deadline(event: asyncio.Event) -> None:
    if event.is_set():
        return
    left_ms = context.remaining_ms()
    try:
        async with asyncio.timeout(None if left_ms is None else left_ms / 1000):
            await event.wait()
    except TimeoutError:
        raise DeadlineExceeded from None
