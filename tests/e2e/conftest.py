"""One running product for all end-to-end tests; a test that kills or reconfigures it leaves it as it found it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.databases import Server
from tests.e2e.product import Caller, Product


@pytest_asyncio.fixture(scope="session")
async def product(database_server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Product]:
    """On a database of its own: it sweeps whatever it finds in its tables. Its failpoints can be armed."""
    own = database_server.create()
    async with Product(own, tmp_path_factory.mktemp("product"), {"COLLOQUY_FAILPOINTS": ""}) as running:
        await running.set_simulator(latency={"median_ms": 30, "sigma": 0.2})
        yield running
    database_server.drop(own.name)


@pytest.fixture
def ada(product: Product) -> Caller:
    """A candidate nobody else is."""
    return product.candidate()
