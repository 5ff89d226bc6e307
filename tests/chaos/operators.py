"""Somebody with the operator's role, who ends and erases sessions of others and writes down what was acknowledged."""

import asyncio
import random
import uuid

from tests.chaos import paths
from tests.chaos.journal import Entry, Journal, What
from tests.chaos.load import Flight
from tests.chaos.replies import Verdict, pause_seconds
from tests.chaos.rest import Rest, UnreachedError

PATIENCE_SECONDS = 60.0


class Operator:
    """Ends and erases sessions, each of them once, and asks again until that is acknowledged."""

    def __init__(self, rest: Rest, journal: Journal) -> None:
        self._rest, self._journal = rest, journal
        self._touched: set[str] = set()

    def may_erase(self, flight: Flight) -> bool:
        """Whether nobody here has ended or erased the session of a request."""
        return flight.session not in self._touched

    def may_end(self, flight: Flight) -> bool:
        """The same, of an interview: REST ends no chats."""
        return flight.kind == "interview" and self.may_erase(flight)

    async def end(self, flight: Flight) -> bool:
        """Close the session of a request; whether that was acknowledged."""
        return await self._insist(flight, What.END, What.ENDED, "POST", f"{_path(flight)}/end")

    async def erase(self, flight: Flight) -> bool:
        """Remove what was said in the session of a request; whether that was acknowledged."""
        return await self._insist(flight, What.ERASE, What.ERASED, "DELETE", _path(flight))

    async def read(self, flight: Flight) -> None:
        """Look at a session and its messages, whatever comes of it."""
        for path in (_path(flight), f"{_path(flight)}/messages"):
            try:
                await self._rest.ask("GET", path)
            except UnreachedError:
                continue

    async def _insist(self, flight: Flight, begins: What, done: What, method: str, path: str) -> bool:
        self._touched.add(flight.session)
        request, tried, loop = str(uuid.uuid4()), 0, asyncio.get_running_loop()
        entry = Entry(begins, self._rest.subject, request, session=flight.session, kind=flight.kind)
        await self._journal.write(entry)
        give_up_at = loop.time() + PATIENCE_SECONDS
        while loop.time() < give_up_at:
            try:
                reply = await self._rest.ask(method, path)
            except UnreachedError:
                pass
            else:
                if reply.verdict is not Verdict.AGAIN:
                    acknowledged = reply.verdict is Verdict.ANSWERED
                    what, reason = (done, "") if acknowledged else (What.REFUSED, f"{reply.status} {reply.reason}")
                    await self._journal.write(
                        Entry(what, entry.client, request, session=flight.session, kind=flight.kind, reason=reason)
                    )
                    return acknowledged
            await asyncio.sleep(pause_seconds(tried, 0.0, random.random()))
            tried += 1
        return False


def _path(flight: Flight) -> str:
    return paths.session(flight.kind, flight.session)
