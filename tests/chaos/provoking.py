"""Does what makes a process pass a rarely reached failpoint, until somebody has seen enough and cancels it."""

import asyncio
import itertools
from collections.abc import Callable, Sequence

from tests.chaos import ledger, processes, repairs
from tests.chaos.client import Client, Conversation
from tests.chaos.journal import What
from tests.chaos.load import Flight, Load
from tests.chaos.model import Model
from tests.chaos.operators import Operator
from tests.chaos.provocation import Provocation
from tests.chaos.repairs import Repairs
from tests.chaos.stack import Stack

FAILING_SECONDS, WORKING_SECONDS = 1.0, 1.0
PAUSE_SECONDS = 0.5
MID_TURN_SECONDS = 0.06  # the model takes about 100 ms
ORPHANS = 6
ORPHANED_SECONDS = 7.0  # an interview's lease, and a sweep after it


class Provoker:
    """Somebody who sees to it that things happen. `client` is theirs alone."""

    def __init__(
        self, stack: Stack, load: Load, model: Model, operator: Operator, repairs_: Repairs, client: Client
    ) -> None:
        self._stack, self._load, self._model = stack, load, model
        self._operator, self._repairs, self._client = operator, repairs_, client

    async def provoke(self, provocations: Sequence[Provocation], spared: str) -> None:
        """Do these in turn without end; the process `spared` is not what is killed for it."""
        for provocation in itertools.cycle(provocations):
            match provocation:
                case Provocation.END:
                    await self._operator.end(await self._a_flight(self._operator.may_end))
                case Provocation.ERASE:
                    await self._operator.erase(await self._a_flight())
                case Provocation.RESET:
                    await self._repairs.repair((await self._a_flight()).session, repairs.RESET)
                case Provocation.COMPLETED:
                    await self._repairs.repair((await self._a_flight()).session, repairs.COMPLETE)
                case Provocation.READ:
                    await self._operator.read(await self._a_flight())
                case Provocation.PROVIDER_FAILS:
                    async with self._model.failing({"500": 1.0}):
                        await asyncio.sleep(FAILING_SECONDS)
                    await asyncio.sleep(WORKING_SECONDS)
                case Provocation.OVERTAKEN:
                    await self._overtake()
                case Provocation.ORPHANED:
                    await self._orphan(spared)
                case Provocation.AGED:
                    await ledger.age_calls(self._stack.host.owner_dsn)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _overtake(self) -> None:
        chat, sender = Conversation("chat"), self._client.sender
        chat.heard(await sender.deliver(await self._client.written(chat)))
        if not chat.over:
            abandoned = await self._client.written(chat)
            async with self._model.failing({"500": 1.0}):
                await sender.send_and_leave(abandoned, FAILING_SECONDS)
            await sender.deliver(await self._client.written(chat))
            await sender.deliver(abandoned)

    async def _orphan(self, spared: str) -> None:
        interviews = [it for it in [await self._client.interview() for _ in range(ORPHANS)] if not it.over]
        orphans = [await self._client.written(interview) for interview in interviews]
        await asyncio.gather(*(self._client.sender.send_and_leave(it, MID_TURN_SECONDS) for it in orphans))
        owner = next(name for name in self._stack.processes if name.startswith("gateway") and name != spared)
        (await processes.running(self._stack.processes[owner])).kill()
        for message in orphans:
            await self._client.sender.note(What.LEFT, message)
        await asyncio.sleep(ORPHANED_SECONDS)

    async def _a_flight(self, wanted: Callable[[Flight], bool] | None = None) -> Flight:
        return (await self._load.in_flight(wanted or self._operator.may_erase))[0]
