"""Carries one planned fault out, and says what it did and which messages were under way when it struck."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import aiohttp

from libs.runtime.failpoints import EXIT_CODE
from tests.chaos import processes
from tests.chaos.faults import Kind
from tests.chaos.load import Flight, Load
from tests.chaos.model import Model
from tests.chaos.operators import Operator
from tests.chaos.plan import Planned
from tests.chaos.polling import until, until_told
from tests.chaos.provocation import provocations
from tests.chaos.provoking import Provoker
from tests.chaos.proxy import Proxy
from tests.chaos.stack import Stack

FIRE_SECONDS = 240.0
"""How long a fault waits for what it is to hit; then it has not fired. The sweep's rarest duty has a round a minute,
and lets three times as much go by while a context does not answer."""
CROWD = 20
"""How many requests are under way when a fault strikes, at least."""


@dataclass(frozen=True, slots=True)
class Struck:
    """What a fault did.

    Attributes:
        fired: how often: processes stopped or ended, calls failed, chunks delayed or swallowed, connections reset.
        flights: what was under way at that moment.
    """

    planned: Planned
    fired: int
    flights: tuple[Flight, ...]


class Injector:
    """Does things to a running stack under a load."""

    def __init__(
        self,
        stack: Stack,
        load: Load,
        http: aiohttp.ClientSession,
        model: Model,
        operator: Operator,
        provoker: Provoker,
    ) -> None:
        self._stack, self._load, self._http = stack, load, http
        self._model, self._operator, self._provoker = model, operator, provoker
        self._flights: tuple[Flight, ...] = ()
        self._carriers: Mapping[Kind, Callable[[Planned], Awaitable[int]]] = {
            Kind.KILL: self._kill,
            Kind.EXIT: self._exit,
            Kind.PAUSE: self._pause,
            Kind.POSTGRES_KILL: self._kill_postgres,
            Kind.POSTGRES_CRASH: self._crash_postgres,
            Kind.POSTGRES_FREEZE: self._freeze_postgres,
            Kind.POSTGRES_RESTART: self._restart_postgres,
            Kind.PROVIDER: self._fail_provider,
            Kind.DELAY: self._delay,
            Kind.RESET: self._reset,
            Kind.HALF_OPEN: self._half_open,
            Kind.END: self._end,
            Kind.ERASE: self._erase,
        }

    async def carry_out(self, planned: Planned) -> Struck:
        """Do it while messages are under way, and return when it is over; what it broke may take longer to recover."""
        self._flights, fired = (), 0
        try:
            async with asyncio.timeout(FIRE_SECONDS):
                await self._load.crowded(CROWD)
                fired = await self._carriers[planned.fault.kind](planned)
        except TimeoutError:
            if planned.fault.kind is Kind.EXIT:
                await processes.arm(self._http, self._stack, planned.fault.target, "")
        return Struck(planned, fired, self._flights)

    def _strikes(self) -> None:
        """This is the moment."""
        self._flights = tuple(self._load.flights.values())

    # -- processes

    async def _kill(self, planned: Planned) -> int:
        process = await processes.running(self._stack.processes[planned.fault.target])
        self._strikes()
        process.kill()
        await process.wait()
        return 1

    async def _exit(self, planned: Planned) -> int:
        """A failpoint ends its process, which is made to get there where the load alone would take long."""
        target, point = planned.fault.target, planned.fault.point
        process = await processes.running(self._stack.processes[target])
        await processes.arm(self._http, self._stack, target, f"{point}=exit")
        provoking = asyncio.create_task(self._provoker.provoke(provocations(point), spared=target))
        try:
            code = await process.wait()
            self._strikes()
        finally:
            provoking.cancel()
            await asyncio.wait({provoking})
        if not provoking.cancelled():
            provoking.result()  # a defect of the suite's own
        return int(code == EXIT_CODE)

    async def _pause(self, planned: Planned) -> int:
        process = await processes.running(self._stack.processes[planned.fault.target])
        return await self._stop([process.pid], planned.seconds)

    async def _stop(self, pids: list[int], seconds: float) -> int:
        self._strikes()
        async with processes.stopped(pids) as count:
            await asyncio.sleep(seconds)
        return count

    # -- PostgreSQL

    async def _kill_postgres(self, _: Planned) -> int:
        postmaster = await processes.postmaster(self._stack.host)
        self._strikes()
        postmaster.kill()
        await processes.ended(postmaster)
        return 1

    async def _crash_postgres(self, planned: Planned) -> int:
        backends = await processes.backends(self._stack.host)
        self._strikes()
        backend = backends[int(planned.pick * len(backends))]
        backend.kill()
        await processes.ended(backend)
        return 1

    async def _freeze_postgres(self, planned: Planned) -> int:
        postmaster = await processes.postmaster(self._stack.host)
        return await self._stop([postmaster.pid, *(it.pid for it in postmaster.children())], planned.seconds)

    async def _restart_postgres(self, _: Planned) -> int:
        postmaster = await processes.postmaster(self._stack.host)
        self._strikes()
        postmaster.send_signal(signal.SIGINT)
        await processes.ended(postmaster)
        return 1

    # -- the model

    async def _fail_provider(self, planned: Planned) -> int:
        before = await self._model.last()
        self._strikes()
        async with self._model.failing({planned.fault.target: 1.0}):
            await asyncio.sleep(planned.seconds)
            return await until_told(lambda: self._failed(planned.fault.target, before))

    async def _failed(self, fault: str, since: int) -> int:
        return sum(call.fault == fault for call in await self._model.calls(since))

    # -- links

    async def _delay(self, planned: Planned) -> int:
        return await self._on_link(planned, "delayed", lambda proxy: proxy.delaying(planned.delay_ms / 1000))

    async def _reset(self, planned: Planned) -> int:
        return await self._on_link(planned, "reset", lambda proxy: proxy.cutting())

    async def _half_open(self, planned: Planned) -> int:
        return await self._on_link(planned, "swallowed", lambda proxy: proxy.swallowing())

    async def _on_link(
        self, planned: Planned, counted: str, failing: Callable[[Proxy], AbstractContextManager[None]]
    ) -> int:
        """A link fails for its time, or until something was on it."""
        proxy = self._stack.proxies[planned.fault.target]
        await until(lambda: proxy.connections)
        before = proxy.counted[counted]
        self._strikes()
        with failing(proxy):
            await asyncio.sleep(planned.seconds)
            return await until(lambda: proxy.counted[counted] - before)

    # -- sessions

    async def _end(self, planned: Planned) -> int:
        return int(await self._operator.end(await self._chosen(planned, self._operator.may_end)))

    async def _erase(self, planned: Planned) -> int:
        return int(await self._operator.erase(await self._chosen(planned, self._operator.may_erase)))

    async def _chosen(self, planned: Planned, wanted: Callable[[Flight], bool]) -> Flight:
        flights = await self._load.in_flight(wanted)
        self._strikes()
        return flights[int(planned.pick * len(flights))]
