"""The crash table of the turn protocol, row by row: something ends while twenty turns are under way.

Whatever it is, who asks again with the same id is answered, once and with the same bytes; and when it is quiet again
the tables hold every invariant. `python -m tests.chaos` does each row many times.
"""

import asyncio
from collections.abc import AsyncIterator
from zlib import crc32

import orjson
import pytest
import pytest_asyncio

from libs.runtime.failpoints import EXIT_CODE
from tests.chaos import ledger, processes, stack, suite
from tests.chaos.crash_table import ROWS
from tests.chaos.faults import Fault, Kind
from tests.chaos.load import Flight, Load
from tests.chaos.manners import FAITHFUL
from tests.chaos.polling import until_told
from tests.chaos.provocation import provocations
from tests.chaos.stack import Stack
from tests.chaos.topology import PROCESSES
from tests.e2e.crowd import IN_FLIGHT, Crowd, talking

GATEWAYS = ("gateway-1", "gateway-2")
LOST_REPLIES = 5
PATIENCE_SECONDS = 40.0  # how long things take by themselves is measured by the fault suite, on a machine of its own
LOST = "unknown lost"  # how an attempt ended that nobody ended, because its process died

# Those that a turn passes by itself; the others have a test of their own.
EXITS = [
    pytest.param(fault, id=f"{row}: {fault.point}")
    for row, faults in ROWS.items()
    for fault in faults
    if fault.kind is Kind.EXIT and not provocations(fault.point)
]


@pytest_asyncio.fixture(scope="module")
async def product() -> AsyncIterator[Stack]:
    """Two gateways and one of every other service on their own PostgreSQL; what dies is started again, unarmed."""
    async with stack.running(PROCESSES) as running:
        yield running


async def arm(crowd: Crowd, process: str, order: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await processes.arm(crowd.ground.http, crowd.ground.stack, process, order)


async def ended_at(crowd: Crowd, process: str, point: str, armed: asyncio.Event | None = None) -> int:
    """Let the process end at the point, and say when it is `armed`; how many turns were under way when it had."""
    running = await processes.running(crowd.ground.stack.processes[process])
    await arm(crowd, process, f"{point}=exit")
    if armed:
        armed.set()
    code = await asyncio.wait_for(running.wait(), PATIENCE_SECONDS)
    under_way = len(crowd.load.flights)
    assert code == EXIT_CODE
    return under_way


async def passing(crowd: Crowd, process: str, point: str, order: str = "", times: int = 1) -> None:
    """Arm a process anew, and wait until it has passed the point so often."""
    await arm(crowd, process, order)
    url = f"{crowd.ground.stack.metrics_url(process)}/failpoints"

    async def passed() -> bool:
        async with crowd.ground.http.get(url) as response:
            reached: int = orjson.loads(await response.read())["points"][point]["reached"]
            return reached >= times

    async with asyncio.timeout(PATIENCE_SECONDS):
        await until_told(passed)


@pytest.mark.parametrize("fault", EXITS)
async def test_a_process_that_ends_at_a_point_costs_nobody_an_answer(
    product: Stack, fault: Fault, request: pytest.FixtureRequest
) -> None:
    async with talking(product, request.node.name) as crowd:
        under_way = await ended_at(crowd, fault.target, fault.point)
        await crowd.finish()

        aftermath = await crowd.aftermath()
    assert under_way >= IN_FLIGHT
    assert aftermath.wrong == []
    # No call is made again but those that were under way in a process that died.
    assert set(aftermath.repeated) <= ({LOST} if fault.target == "llm-gateway" else set())


async def test_the_gateways_own_retry_gets_the_claim_whose_reply_was_lost(
    product: Stack, request: pytest.FixtureRequest
) -> None:
    async with suite.ground(product, crc32(request.node.name.encode())) as ground:
        client = ground.client(0, Load(0), FAITHFUL)
        message = await client.written(await client.interview())
        for gateway in GATEWAYS:
            await processes.arm(ground.http, product, gateway, "gateway.history.begin_turn.after=1*error")

        reply = await ground.rest("candidate-0").ask("POST", message.path, message.body, key=message.request)

        turn = (await ledger.read(product.host.owner_dsn)).turns[message.request]
    assert (reply.status, reply.replayed) == (200, False)
    assert turn.committed_by == "owner"


@pytest.mark.parametrize("point", ["gateway.history.begin_turn.after", "gateway.history.commit_turn.after"])
async def test_replies_of_the_ledger_that_are_lost_are_asked_for_again(
    product: Stack, point: str, request: pytest.FixtureRequest
) -> None:
    async with talking(product, request.node.name) as crowd:
        await asyncio.gather(
            *(passing(crowd, gateway, point, f"{point}={LOST_REPLIES}*error", LOST_REPLIES) for gateway in GATEWAYS)
        )
        await crowd.finish()

        aftermath = await crowd.aftermath()
    assert aftermath.wrong == []
    assert not aftermath.repeated


async def test_turns_that_nobody_comes_back_to_are_answered_by_the_sweep(
    product: Stack, request: pytest.FixtureRequest
) -> None:
    point = "gateway.history.begin_turn.after"
    async with talking(product, request.node.name) as crowd:
        await asyncio.gather(*(ended_at(crowd, gateway, point) for gateway in GATEWAYS))
        left = await crowd.leave()

        async def answered() -> bool:
            turns = (await crowd.ledger()).turns
            return all(turns[request].state == "COMMITTED" for request in left & turns.keys())

        async with asyncio.timeout(PATIENCE_SECONDS):
            await until_told(answered)
        aftermath = await crowd.aftermath()
    assert len(left) >= IN_FLIGHT
    assert aftermath.wrong == []
    assert aftermath.committed_by["repair"] > 0
    assert aftermath.committed_by["takeover"] == 0


async def test_an_owner_paused_past_its_lease_changes_nothing_when_it_wakes_up(
    product: Stack, request: pytest.FixtureRequest
) -> None:
    async with talking(product, request.node.name) as crowd:
        await passing(crowd, "gateway-1", "gateway.history.begin_turn.after", times=IN_FLIGHT // 4)
        owner = (await processes.running(product.processes["gateway-1"])).pid
        async with processes.stopped([owner]) as paused:
            under_way = set(crowd.load.flights)

            async def answered() -> bool:
                return not under_way & crowd.load.flights.keys()

            async with asyncio.timeout(PATIENCE_SECONDS):
                await until_told(answered)
        await crowd.finish()

        aftermath = await crowd.aftermath()
    assert (paused, len(under_way) >= IN_FLIGHT) == (1, True)
    assert aftermath.wrong == []
    assert aftermath.committed_by["takeover"] + aftermath.committed_by["repair"] > 0


async def test_a_killed_postgresql_is_back_by_itself_with_all_that_was_committed(
    product: Stack, request: pytest.FixtureRequest
) -> None:
    async with talking(product, request.node.name) as crowd:
        postmaster = await processes.postmaster(product.host)
        async with asyncio.timeout(PATIENCE_SECONDS):
            postmaster.kill()
            under_way = len(crowd.load.flights)
            await processes.ended(postmaster)
            await processes.postmaster(product.host)
            await crowd.load.reached(crowd.load.ended + 1)
        await crowd.finish()

        aftermath = await crowd.aftermath()
    assert under_way >= IN_FLIGHT
    assert aftermath.wrong == []
    assert set(aftermath.repeated) <= {LOST}


@pytest.mark.parametrize("point", ["history.seal.after", "history.erase.after"])
async def test_an_end_or_an_erase_during_a_turn_holds_although_the_ledger_dies_of_it(
    product: Stack, point: str, request: pytest.FixtureRequest
) -> None:
    async with talking(product, request.node.name) as crowd:
        operator = crowd.ground.operator()
        do, armed = operator.end if point.startswith("history.seal") else operator.erase, asyncio.Event()
        under_way = list(crowd.load.flights.values())

        async def done(flight: Flight) -> bool:
            await armed.wait()  # all of them could come by before
            return await do(flight)

        _, *acknowledged = await asyncio.gather(ended_at(crowd, "history", point, armed), *map(done, under_way))
        await crowd.finish()

        aftermath = await crowd.aftermath()
        streams = (await crowd.ledger()).streams
    assert len(under_way) >= IN_FLIGHT
    assert all(acknowledged)
    assert all(streams[flight.session].sealed for flight in under_way)
    assert aftermath.wrong == []
