"""A crowd of candidates in interviews, all talking while something is done to the product, and what came of it.

They are the fault suite's clients at their best: each sends one message after another, the same id again until it is
answered, and writes down what it knows before it acts on it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID
from zlib import crc32

import grpc

from libs.runtime.client import open_channel
from services.verifier.verification import verify
from tests.chaos import judgement, ledger, repeats, suite
from tests.chaos.asking import Asking
from tests.chaos.client import Client, Conversation
from tests.chaos.ledger import Ledger
from tests.chaos.load import Flight, Load
from tests.chaos.manners import FAITHFUL
from tests.chaos.model import Model
from tests.chaos.polling import until
from tests.chaos.stack import Stack
from tests.chaos.suite import Ground

IN_FLIGHT = 20
"""Turns that are under way when something is done."""
CANDIDATES = IN_FLIGHT + 4  # some are between two turns
MODEL_MS = 300.0


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What there is to see once everything is quiet.

    wrong: what must not be: an invariant broken, something that a client was told and is not so, no answer.
    committed_by: how many turns were committed by their `owner`, by `takeover`, by `repair`.
    repeated: how the attempts at the model ended that others followed.
    """

    wrong: Sequence[str]
    committed_by: Counter[str]
    repeated: Counter[str]


class Crowd:
    """So many candidates, each with an interview of their own."""

    def __init__(self, ground: Ground, channel: grpc.aio.Channel) -> None:
        self.ground, self.load = ground, Load(0, held=True)
        self._asking = Asking(ground.stack, ground.rest, channel)
        self._first_entry = len(ground.entries())
        self._talking: list[asyncio.Task[None]] = []

    async def assemble(self) -> None:
        """Everybody opens an interview and begins to talk; return when enough turns are under way."""
        await Model(self.ground.http, self.ground.stack.simulator, MODEL_MS).behave()
        self._first_call = await self.ground.model.last()
        clients = [self.ground.client(number, self.load, FAITHFUL) for number in range(CANDIDATES)]
        conversations = await asyncio.gather(*(client.interview() for client in clients))
        self.sessions = frozenset(conversation.session for conversation in conversations)
        self._talking = [
            asyncio.create_task(self._talk(client, conversation))
            for client, conversation in zip(clients, conversations, strict=True)
        ]
        await until(lambda: len(self.load.flights) >= IN_FLIGHT)

    async def finish(self) -> None:
        """Everybody hears the answer that they are waiting for, says one thing more, and hears the answer to that."""
        self.load.held = False
        await asyncio.gather(*self._talking)

    async def leave(self) -> set[str]:
        """Everybody goes away for good; the requests that were under way."""
        under_way = set(self.load.flights)
        for task in self._talking:
            task.cancel()
        await asyncio.gather(*self._talking, return_exceptions=True)
        return under_way

    async def ledger(self) -> Ledger:
        """What the tables hold of these sessions."""
        everything = await ledger.read(self.ground.stack.host.owner_dsn)
        return Ledger(
            {request: turn for request, turn in everything.turns.items() if turn.session in self.sessions},
            {session: stream for session, stream in everything.streams.items() if session in self.sessions},
            [attempt for attempt in everything.attempts if self._is_ours(attempt.key)],
        )

    async def aftermath(self) -> Aftermath:
        """Wait for quiet, then hold everything against everything."""
        assert await self.ground.quiet() is not None
        # Before the ledger is read: the model may be asked for late scores yet.
        asked = [made for made in await self.ground.model.calls(self._first_call) if self._is_ours(made.key)]
        entries, held = self.ground.entries()[self._first_entry :], await self.ledger()
        stories = judgement.stories(entries).values()
        compared = repeats.compared(asked, held.attempts)
        report = await verify(self.ground.stack.host.dsns, map(UUID, self.sessions), quiet=True)
        told = await self._asking.all(stories)
        wrong = [*judgement.findings(entries, held, told), *compared.findings, *report.violations]
        wrong += [f"{story.request} got no answer" for story in stories if story.gave_up]
        committed_by = Counter(turn.committed_by for turn in held.turns.values())
        return Aftermath(list(map(str, wrong)), committed_by, compared.reasons)

    def _is_ours(self, call: str) -> bool:
        return call.partition("/")[0] in self.sessions

    async def _talk(self, client: Client, conversation: Conversation) -> None:
        last = False
        while not (last or conversation.over):
            last = not self.load.held
            message = await client.written(conversation)
            with self.load.flying(Flight(message.request, message.session, message.kind, "")):
                conversation.heard(await client.sender.deliver(message))
            self.load.turn_ended()


@asynccontextmanager
async def talking(stack: Stack, name: str) -> AsyncIterator[Crowd]:
    """A crowd in full flight; from its name everything is drawn that they say."""
    gateways = "ipv4:" + ",".join(stack.gateway_addresses())
    async with suite.ground(stack, crc32(name.encode())) as ground, open_channel(gateways) as channel:
        crowd = Crowd(ground, channel)
        await crowd.assemble()
        try:
            yield crowd
        finally:
            await crowd.leave()
