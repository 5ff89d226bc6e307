"""What the gateway to models does: make a call once, answer everybody who asks for it, and tell how it stands."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from libs.runtime import context, telemetry
from libs.runtime.errors import ColloquyError, DeadlineExceeded, Internal, NotFound
from libs.runtime.server import Background
from services.llm_gateway.dispatch import Dispatcher
from services.llm_gateway.domain import Call, CallKey, CallState, Offer, error_of
from services.llm_gateway.flight import Flight
from services.llm_gateway.store import Held, Store

POLL_SECONDS: Final = (0.08, 0.12)
TAKEOVER_MS: Final = 300
"""What must be left of a caller's time for a call to be made anew under it."""

_REPEATS = telemetry.counter(
    "llm_repeats_total", "Calls made anew, by what the one before came to.", ("purpose", "after")
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The call that counts, and whether an earlier intent than the caller's own made it.

    It is DONE, or it is FAILED or UNKNOWN and has been repeated as often as the caller allows.
    """

    call: Call
    reused: bool


class Calls:
    """The use cases, on one ledger and one provider; `background` keeps calls going whose callers have left."""

    def __init__(self, store: Store, dispatcher: Dispatcher, background: Background) -> None:
        self._store, self._dispatcher, self._background = store, dispatcher, background
        self._flights: dict[tuple[CallKey, int | None], Flight] = {}

    async def generate(self, offer: Offer) -> Answer:
        """Make the call, or answer with the one that was made.

        Raises:
            DeadlineExceeded: the caller's time ended; the call goes on.
            NotFound: the session was erased.
            InvalidField: the provider refuses the prompt.
            Unavailable: it gave no usable answer, or the ledger cannot be reached.
        """
        flight, joined = self._board(offer, streamed=False)
        return Answer(await flight.call(), joined or flight.reused)

    async def stream(self, offer: Offer) -> AsyncIterator[str | Answer]:
        """Like `generate`, after the text as it comes."""
        flight, joined = self._board(offer, streamed=True)
        async for delta in flight.deltas():
            yield delta
        yield Answer(await flight.call(), joined or flight.reused)

    async def get(self, key: CallKey) -> Call:
        """The ledger's entry. Raises NotFound: there is none, or the session was erased."""
        if not key.well_formed:
            raise NotFound
        return await self._store.read(key)

    def _board(self, offer: Offer, *, streamed: bool) -> tuple[Flight, bool]:
        """The flight for this call, and whether it was there."""
        if context.remaining_ms() == 0:
            raise DeadlineExceeded
        flight = self._flights.get(_aim(offer))
        joined = flight is not None
        if flight is None:
            flight = self._flights[_aim(offer)] = Flight(offer, streamed=streamed)
            self._background.spawn(self._fly(flight), "llm call")
        flight.join()
        return flight, joined

    async def _fly(self, flight: Flight) -> None:
        outcome: Call | ColloquyError = Internal()
        try:
            outcome = await self._pursue(flight)
        except ColloquyError as error:
            outcome = error
        finally:
            del self._flights[_aim(flight.offer)]
            flight.land(outcome)

    async def _pursue(self, flight: Flight) -> Call:
        """Make the call or follow the one that is being made, here or in another process, to its result."""
        key, loop = flight.offer.key, asyncio.get_running_loop()
        intent = self._dispatcher.intent(flight)
        started, followed = loop.time(), False
        found: Held | Call = await self._store.open(intent)
        while True:
            if isinstance(found, Held):
                if call := await self._dispatcher.run(flight, found, started):
                    flight.reused = False
                    return call
                found, followed = await self._store.read(key), True
            elif found.state is CallState.DONE:
                return found
            elif found.state is CallState.INFLIGHT:
                found, followed = await self._poll(flight), True
            elif followed and found.failure:
                raise error_of(found.failure)  # ours by association: only who asks anew has it made anew
            elif not found.may_be_repeated(flight.offer):
                return found
            elif followed and flight.wanted_ms < TAKEOVER_MS:
                raise DeadlineExceeded
            else:
                started, ended = loop.time(), found
                if repeated := await self._store.repeat(intent, ended):
                    _REPEATS.labels(key.kind, ended.end).inc()
                    found = repeated
                else:  # somebody else has made it anew, or has ended it after all
                    found, followed = await self._store.read(key), True

    async def _poll(self, flight: Flight) -> Call:
        if flight.wanted_ms <= 0:
            raise DeadlineExceeded  # nobody waits any more
        await asyncio.sleep(random.uniform(*POLL_SECONDS))
        return await self._store.read(flight.offer.key)


def _aim(offer: Offer) -> tuple[CallKey, int | None]:
    """What one flight can serve: those who want the same call and allow the same repeats."""
    return offer.key, offer.max_repeats
