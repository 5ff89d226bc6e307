"""A message on its way: written down before it is sent, sent again with the same id until there is an answer.

What came back is written down before anybody hears of it; nothing is judged here.
"""

import asyncio
import random
import time
from dataclasses import dataclass

import orjson

from tests.chaos.journal import Entry, Journal, What
from tests.chaos.replies import Reply, Verdict, pause_seconds
from tests.chaos.rest import Rest, UnreachedError


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent, any number of times and always as it is.

    Attributes:
        session: empty where the client has not been told.
        text: the message itself, empty in a request that opens an interview.
    """

    request: str
    kind: str
    session: str
    path: str
    body: dict[str, object]
    text: str = ""


class Sender:
    """One client's way to the product; `patience_seconds` is for how long it asks, at least once."""

    def __init__(self, rest: Rest, journal: Journal, randomness: random.Random, patience_seconds: float) -> None:
        self._rest, self._journal, self._randomness = rest, journal, randomness
        self._patience_seconds = patience_seconds

    async def announce(self, message: Message) -> None:
        """Write down that it is about to be sent."""
        what, body = What.SEND if message.text else What.OPEN, orjson.dumps(message.body).decode()
        await self.note(what, message, text=message.text, body=body)

    async def note(
        self, what: What, message: Message, *, text: str = "", turn: str = "", body: str = "", reason: str = ""
    ) -> None:
        """Write down what happened to a message."""
        whose = (self._rest.subject, message.request, message.session, message.kind)
        await self._journal.write(Entry(what, *whose, text, turn, body, reason))

    async def deliver(self, message: Message, *, streamed: bool = False) -> Reply | None:
        """Ask until there is an answer, or a reason why there never will be; None at the client's deadline."""
        loop = asyncio.get_running_loop()
        give_up_at, tried = loop.time() + self._patience_seconds, 0
        while True:
            asked_to_wait = 0.0
            try:
                reply = await self._send(message, streamed=streamed)
            except UnreachedError as error:
                last = str(error)
            else:
                if reply.verdict is not Verdict.AGAIN:
                    return reply
                last, asked_to_wait = reply.reason, reply.wait_seconds
            if loop.time() >= give_up_at:
                await self.note(What.GAVE_UP, message, reason=last)
                return None
            await asyncio.sleep(pause_seconds(tried, asked_to_wait, self._randomness.random()))
            tried += 1

    async def seconds_until_answered(self, message: Message) -> float | None:
        """Ask until there is an answer; how long that took, None where there was none."""
        began = time.monotonic()
        reply = await self.deliver(message)
        return time.monotonic() - began if reply and reply.verdict is Verdict.ANSWERED else None

    async def send_and_leave(self, message: Message, after_seconds: float) -> None:
        """Send it once, and go away before long, whether or not anything has come back."""
        sending = asyncio.create_task(self._send(message, streamed=True))
        await asyncio.wait({sending}, timeout=after_seconds)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, message: Message, *, streamed: bool) -> Reply:
        """Send it once, and write down what came back if it is final.

        Raises:
            UnreachedError: nothing whole did.
        """

        async def accepted(turn: str) -> None:
            await self.note(What.ACCEPTED, message, turn=turn)

        if streamed:
            reply = await self._rest.stream(message.path, message.body, key=message.request, accepted=accepted)
        else:
            reply = await self._rest.ask("POST", message.path, message.body, key=message.request)
        if reply.verdict is Verdict.ANSWERED:
            await self.note(What.ANSWERED if message.text else What.OPENED, message, body=reply.body.decode())
        elif reply.verdict is Verdict.NEVER:
            await self.note(What.REFUSED, message, reason=f"{reply.status} {reply.reason}")
        return reply
