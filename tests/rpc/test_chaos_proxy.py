"""The links of the fault suite, on real sockets: what they carry, and how they fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from tests.chaos.proxy import Proxy, Side
from tests.ports import free_ports

PATIENCE_SECONDS = 10.0
MEGABYTE = b"0123456789abcdef" * 65_536


@dataclass
class Wire:
    """A connection through a proxy to a server that sends back what it gets, and its end."""

    proxy: Proxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def echoed(self, data: bytes) -> bytes:
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), PATIENCE_SECONDS)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Wire(proxy, reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()) as running:
        yield running


@pytest.fixture
async def wire(proxy: Proxy) -> AsyncIterator[Wire]:
    async with connected(proxy) as made:
        yield made


async def test_bytes_arrive_as_they_were_sent(wire: Wire) -> None:
    assert await wire.echoed(MEGABYTE) == MEGABYTE


def test_what_is_sent_before_the_server_has_been_reached_arrives() -> None:
    """On uvloop, which the suite runs on: it reads from a connection that was paused as it was made."""

    async def greeted() -> None:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        async with server, Proxy(server.sockets[0].getsockname()) as proxy, connected(proxy) as wire:
            assert await wire.echoed(b"at once") == b"at once"

    uvloop.run(greeted())


async def test_an_end_is_passed_on_and_the_other_direction_goes_on(wire: Wire) -> None:
    wire.writer.write(b"last")
    wire.writer.write_eof()

    assert await asyncio.wait_for(wire.reader.read(), PATIENCE_SECONDS) == b"last"
    await asyncio.wait_for(_until_gone(wire.proxy), PATIENCE_SECONDS)


async def test_a_server_that_is_not_there_cuts_the_connection() -> None:
    async with Proxy(("127.0.0.1", free_ports(1)[0])) as proxy, connected(proxy) as wire:
        await _until_cut(wire)

        assert proxy.counted["reset"] == 0


async def test_a_delaying_link_delivers_late_and_in_order(wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()

    with wire.proxy.delaying(0.05):
        for number in range(20):
            wire.writer.write(b"%02d" % number)
            await asyncio.sleep(0.001)
    wire.writer.write(b"end")
    arrived = await asyncio.wait_for(wire.reader.readexactly(43), PATIENCE_SECONDS)

    assert arrived == b"".join(b"%02d" % number for number in range(20)) + b"end"
    assert loop.time() - began >= 0.05
    assert wire.proxy.counted["delayed"] > 0


async def test_what_comes_while_a_delaying_link_is_opened_travels_once(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, loop, failures = Side.connection_made, asyncio.get_running_loop(), list[dict[str, Any]]()

    def sent_to_as_it_is_made(side: Side, transport: asyncio.BaseTransport) -> None:
        made(side, transport)
        if side is side._connection.far:
            side.other.data_received(b"early")

    monkeypatch.setattr(Side, "connection_made", sent_to_as_it_is_made)
    loop.set_exception_handler(lambda _, failure: failures.append(failure))
    try:
        with proxy.delaying(0.05):
            async with connected(proxy) as wire:
                assert await asyncio.wait_for(wire.reader.readexactly(5), PATIENCE_SECONDS) == b"early"
    finally:
        loop.set_exception_handler(None)

    assert failures == []


async def test_a_cut_link_resets_what_is_open_and_what_is_opened_and_works_again_afterwards(wire: Wire) -> None:
    await wire.echoed(b"open")

    with wire.proxy.cutting():
        await _until_cut(wire)
        async with connected(wire.proxy) as another:
            await _until_cut(another)

    assert wire.proxy.counted["reset"] == 2
    async with connected(wire.proxy) as later:
        assert await later.echoed(b"again") == b"again"


async def test_a_half_open_connection_carries_nothing_and_is_not_closed_while_new_ones_work(wire: Wire) -> None:
    await wire.echoed(b"open")

    with wire.proxy.swallowing():
        wire.writer.write(b"lost")
        async with connected(wire.proxy) as another:
            assert await another.echoed(b"new") == b"new"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.read(1), 0.1)
        assert not wire.reader.at_eof()

    await _until_cut(wire)
    assert wire.proxy.counted["swallowed"] > 0


async def _until_gone(proxy: Proxy) -> None:
    while proxy.connections:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


async def _until_cut(wire: Wire) -> None:
    with pytest.raises(ConnectionResetError):  # a mere close would be an IncompleteReadError
        await asyncio.wait_for(wire.reader.readexactly(1), PATIENCE_SECONDS)
