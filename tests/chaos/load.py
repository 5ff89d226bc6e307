"""How far the load is, and what is under way: what faults wait for and hit, and what clients ask whether to go on."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Flight:
    """A request that a client waits for; `session` is empty while it asks for one."""

    request: str
    session: str
    kind: str
    client: str


@dataclass(slots=True)
class Load:
    """Shared by the clients of a run and whoever does something to them.

    Attributes:
        turns: how many messages are to be dealt with; clients go on past it while the load is `held`.
        ended: how many have been: answered, refused or given up.
    """

    turns: int
    held: bool = False
    ended: int = 0
    flights: dict[str, Flight] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether clients should finish what they have begun and stop."""
        return self.ended >= self.turns and not self.held

    @contextmanager
    def flying(self, flight: Flight) -> Iterator[None]:
        """A request is under way inside the block."""
        self.flights[flight.request] = flight
        self._wake()
        try:
            yield
        finally:
            del self.flights[flight.request]

    def turn_ended(self) -> None:
        """A message has been dealt with."""
        self.ended += 1
        self._wake()

    async def reached(self, turns: int) -> None:
        """Wait until so many messages have been dealt with."""
        while self.ended < turns:
            await self._changed.wait()

    async def crowded(self, count: int) -> None:
        """Wait until so many requests are under way."""
        while len(self.flights) < count:
            await self._changed.wait()

    async def in_flight(self, wanted: Callable[[Flight], bool]) -> list[Flight]:
        """Wait until messages of sessions that are known, and wanted, are under way; which they are."""
        while not (flights := [it for it in self.flights.values() if it.session and wanted(it)]):
            await self._changed.wait()
        return flights

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
