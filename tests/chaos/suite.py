"""One run: the stack, the load, the plan carried out, quiet awaited, and everything held against everything."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc

from libs.identity.actor import Role
from libs.runtime.client import open_channel
from services.verifier.verification import Report, verify
from tests.chaos import journal, judgement, ledger, repeats
from tests.chaos.asking import Asking
from tests.chaos.balancer import Balancer
from tests.chaos.client import Client
from tests.chaos.injection import Injector, Struck
from tests.chaos.journal import Entry, Journal
from tests.chaos.judgement import Finding
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.manners import ALL_SORTS, Habits
from tests.chaos.model import Model
from tests.chaos.operators import Operator
from tests.chaos.plan import Planned
from tests.chaos.polling import until_told
from tests.chaos.provoking import Provoker
from tests.chaos.repairs import Repairs
from tests.chaos.repeats import Repeats
from tests.chaos.rest import Rest, open_http
from tests.chaos.stack import Stack

CLIENTS = 24
"""At the same time: at least 20 messages are under way at most moments."""
LEAST_TURNS_BETWEEN = 3
"""Of two faults, also where the first has taken its time."""
QUIET_SECONDS = 30.0
"""In which everything is quiet once no fault is left (I7)."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown. `quiet_seconds` is None where it never got quiet."""

    struck: Sequence[Struck]
    entries: Sequence[Entry]
    ledger: Ledger
    repeats: Repeats
    findings: Sequence[Finding]
    load_seconds: float
    quiet_seconds: float | None


class Ground:
    """A running stack and those who deal with it."""

    def __init__(
        self,
        stack: Stack,
        http: aiohttp.ClientSession,
        channel: grpc.aio.Channel,
        written: Journal,
        path: Path,
        seed: int,
    ) -> None:
        self.stack, self.http, self.channel, self.journal = stack, http, channel, written
        self.model, self.bffs = Model(http, stack.simulator), Balancer(stack.urls)
        self._path, self._seed = path, seed

    def rest(self, subject: str, *roles: Role) -> Rest:
        """Somebody at the BFF; a candidate, if not said otherwise."""
        return Rest(self.http, self.bffs, subject, self.stack.token(subject, *roles))

    def client(self, number: int, load: Load, habits: Habits = ALL_SORTS) -> Client:
        """A candidate with a seed of their own; `number` is below 1,000."""
        return Client(self.rest(f"candidate-{number}"), self.journal, load, self._seed * 1000 + number, habits)

    def operator(self) -> Operator:
        """Who ends and erases sessions."""
        return Operator(self.rest("operator", Role.OPERATOR), self.journal)

    def provoker(self, load: Load, operator: Operator) -> Provoker:
        """Who sees to it that things happen under this load."""
        repairs = Repairs(self.channel, self.stack.token("operator", Role.OPERATOR))
        return Provoker(self.stack, load, self.model, operator, repairs, self.client(999, load))

    def injector(self, load: Load) -> Injector:
        """Who carries faults out under this load."""
        operator = self.operator()
        provoker = self.provoker(load, operator)
        return Injector(self.stack, load, self.http, self.model, operator, provoker)

    def entries(self) -> list[Entry]:
        """What has been written down so far."""
        return journal.read(self._path)

    async def quiet(self) -> float | None:
        """Wait until nothing is left to do; how many seconds that took, None where it took too long."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await until_told(self._is_quiet)
        except TimeoutError:
            return None
        return time.monotonic() - began

    async def _is_quiet(self) -> bool:
        return await ledger.unsettled(self.stack.host.owner_dsn) == 0


@asynccontextmanager
async def ground(running: Stack, seed: int) -> AsyncIterator[Ground]:
    """A journal and connections for the length of the block."""
    path, gateways = running.data / "journal", "ipv4:" + ",".join(running.gateway_addresses())
    async with open_http() as http, open_channel(gateways) as channel, Journal(path) as written:
        made = Ground(running, http, channel, written, path, seed)
        await made.model.behave()
        yield made


@asynccontextmanager
async def loaded(ground: Ground, turns: int, habits: Habits = ALL_SORTS) -> AsyncIterator[Load]:
    """Clients converse until the block has ended and so many messages are dealt with; they finish what they began."""
    load = Load(turns, held=True)
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(ground.client(number, load, habits).run())
        yield load
        load.held = False


async def carry_out(ground: Ground, plan: Sequence[Planned], turns: int, tell: Tell) -> tuple[list[Struck], float]:
    """Put the load on and do what is planned; what that did, and how many seconds it took."""
    struck, began = list[Struck](), time.monotonic()
    async with loaded(ground, turns) as load:
        injector, last = ground.injector(load), 0
        for planned in plan:
            await load.reached(max(planned.at_turn, last + LEAST_TURNS_BETWEEN))
            struck.append(await injector.carry_out(planned))
            last = load.ended
            tell(_line(struck[-1], load))
    return struck, time.monotonic() - began


async def judged(ground: Ground, struck: Sequence[Struck], load_seconds: float) -> Outcome:
    """Wait for quiet and hold everything against everything."""
    quiet_seconds = await ground.quiet()
    requests = await ground.model.calls()  # before the ledger is read: it may be asked for late scores yet
    entries, held = ground.entries(), await ledger.read(ground.stack.host.owner_dsn)
    told = await Asking(ground.stack, ground.rest, ground.channel).all(judgement.stories(entries).values())
    compared = repeats.compared(requests, held.attempts)
    verified = await verify(ground.stack.host.dsns, quiet=True)
    findings = [*_violations(verified), *judgement.findings(entries, held, told), *compared.findings]
    return Outcome(struck, entries, held, compared, findings, load_seconds, quiet_seconds)


def _violations(verified: Report) -> Iterator[Finding]:
    """What the verifier calls broken, and what it could not read because it is still being written to."""
    for violation in verified.violations:
        yield Finding(f"{violation.invariant}: {violation.rule}", str(violation.session_id), "", violation.what)
    for session_id in verified.busy:
        yield Finding("I7: everything is quiet", str(session_id), "", "it is being written to each time it is read")


def _line(struck: Struck, load: Load) -> str:
    fired = f"fired {struck.fired}" if struck.fired else "DID NOT FIRE"
    name, number = struck.planned.fault.name, struck.planned.number
    return f"turn {load.ended:>5}  #{number:<4} {name:<50} {fired}, {len(struck.flights)} in flight"
