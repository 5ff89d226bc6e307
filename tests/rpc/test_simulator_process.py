"""The simulator as a process of its own: it says when it is ready, and stops at once when it is told to."""

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from importlib import metadata

import aiohttp
import orjson
import pytest
from yarl import URL

REQUEST = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}


@contextlib.asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.simulator", *arguments, stdout=PIPE, stderr=PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def ready_url(simulator: Process) -> str:
    assert simulator.stdout is not None
    line = orjson.loads(await asyncio.wait_for(simulator.stdout.readline(), 20))
    assert list(line) == ["time", "level", "event", "service", "version", "url"]
    assert (line["event"], line["level"], line["service"]) == ("ready", "info", "simulator")
    assert line["version"] == metadata.version("colloquy")
    url: str = line["url"]
    return url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_at_once_although_a_call_hangs(number: signal.Signals) -> None:
    async with process("--port", "0", "--latency-ms", "0") as simulator:
        url = await ready_url(simulator)
        async with aiohttp.ClientSession() as session:
            hanging = asyncio.create_task(
                session.post(f"{url}/chat/completions", json=REQUEST, headers={"X-Simulator-Fault": "hang"})
            )
            async with asyncio.timeout(10):
                while not await running(session, url):
                    pass  # the round trip is the pause

            simulator.send_signal(number)
            code = await asyncio.wait_for(simulator.wait(), 20)  # a server that lets its calls end waits for 60

            with pytest.raises(aiohttp.ClientError):
                await hanging
        assert code == 0


async def running(session: aiohttp.ClientSession, url: str) -> bool:
    async with session.get(f"{url.removesuffix('/v1')}/simulator/calls") as reply:
        return bool(orjson.loads(await reply.read())["running"])


async def test_faults_and_latency_of_the_command_line_are_in_force() -> None:
    async with process("--port", "0", "--latency-ms", "0", "--fault", "500=0.5", "--fault", "429=0.5") as simulator:
        url = await ready_url(simulator)
        async with aiohttp.ClientSession() as session:
            statuses = set()
            for _ in range(30):
                async with session.post(f"{url}/chat/completions", json=REQUEST) as reply:
                    statuses.add(reply.status)

    assert statuses == {500, 429}


async def test_a_taken_port_is_one_clear_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with process("--port", str(taken.getsockname()[1])) as simulator:
            stdout, stderr = await asyncio.wait_for(simulator.communicate(), 20)

    assert simulator.returncode == 1
    assert stdout == b""
    assert stderr.count(b"\n") == 1
    assert b"address already in use" in stderr


async def test_it_listens_where_it_is_told_to() -> None:
    with socket.socket() as kept:  # bound, so that nobody else can listen there
        kept.bind(("127.0.0.1", 0))
        port = str(kept.getsockname()[1])
        async with process("--host", "127.0.0.2", "--port", port) as simulator, aiohttp.ClientSession() as session:
            url = await ready_url(simulator)
            async with session.get(f"{url}/models") as reply:
                assert (reply.status, URL(url).host) == (200, "127.0.0.2")
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(URL(url).with_host("127.0.0.1"))


async def test_a_wrong_flag_is_a_usage_error() -> None:
    async with process("--fault", "explode=1") as simulator:
        _, stderr = await asyncio.wait_for(simulator.communicate(), 20)

    assert simulator.returncode == 2
    assert b"KIND=PROBABILITY" in stderr
