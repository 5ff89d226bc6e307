"""Every failpoint of the catalogue stands where the product comes by: one that runs passes them all."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
import pytest_asyncio

from libs.failpoints.catalogue import POINTS
from tests.chaos import stack, suite
from tests.chaos.polling import until_told
from tests.chaos.provocation import Provocation
from tests.chaos.suite import Ground
from tests.chaos.topology import PROCESSES

pytestmark = pytest.mark.timeout(240)
PATIENCE_SECONDS = 150.0  # a round of provocations takes 20 s where nothing is slow, and some points come once in it
SEED = 1
# Results are cleared once a minute; `python -m tests.chaos` has the time to wait for it.
ONCE_A_MINUTE = {name for name in POINTS if name.startswith(("gateway.llm.clear_results.", "llm.clear."))}


@pytest_asyncio.fixture(scope="module")
async def ground() -> AsyncIterator[Ground]:
    async with stack.running(PROCESSES) as running, suite.ground(running, SEED) as made:
        yield made


async def passed(ground: Ground) -> set[str]:
    """The points that the processes have passed since they were started, as far as they answer."""
    names = set()
    for replica in PROCESSES:
        try:
            async with ground.http.get(f"{ground.stack.metrics_url(replica.name)}/failpoints") as response:
                points = orjson.loads(await response.read())["points"]
        except aiohttp.ClientError:
            continue  # it is being started again
        names |= {name for name, counted in points.items() if counted["reached"]}
    return names


async def test_a_running_product_passes_every_failpoint(ground: Ground) -> None:
    missing = POINTS.keys() - ONCE_A_MINUTE

    async def all_passed() -> bool:
        nonlocal missing
        missing -= await passed(ground)
        return not missing

    async with suite.loaded(ground, 0) as load:
        provoker = ground.provoker(load, ground.operator())
        provoking = asyncio.create_task(provoker.provoke(tuple(Provocation), spared="gateway-2"))
        looking = asyncio.create_task(until_told(all_passed))
        await asyncio.wait({provoking, looking}, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in (provoking, looking):
            task.cancel()
        await asyncio.gather(provoking, looking, return_exceptions=True)

    assert not missing, provoking
