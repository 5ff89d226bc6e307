"""The history service as its own process: what it needs to start, what it says, how it ends."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from grpc_health.v1 import health_pb2, health_pb2_grpc

from libs.runtime import client
from tests.databases import Database

ANYWHERE = {"COLLOQUY_HISTORY_LISTEN": "127.0.0.1:0", "COLLOQUY_HISTORY_METRICS_LISTEN": "127.0.0.1:0"}


@asynccontextmanager
async def process(settings: Mapping[str, str]) -> AsyncIterator[Process]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COLLOQUY_")}
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.history", env={**inherited, **settings}, stdout=PIPE, stderr=PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def line_of(service: Process, event: str) -> dict[str, Any]:
    assert service.stdout is not None
    async with asyncio.timeout(20):
        async for text in service.stdout:
            line: dict[str, Any] = orjson.loads(text)
            if line["event"] == event:
                return line
    raise AssertionError(f"it ended without {event}")


async def test_it_serves_once_its_schema_is_there_and_leaves_when_told_to(database: Database) -> None:
    async with process({**ANYWHERE, "COLLOQUY_DATABASE_URL": database.dsns["history"]}) as service:
        serving = await line_of(service, "serving")
        channel = client.open_channel(f"127.0.0.1:{serving['port']}")
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = await stub.Check(health_pb2.HealthCheckRequest())
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{serving['metrics_port']}/readyz") as ready,
        ):
            status = ready.status
        await channel.close()

        service.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(service.wait(), 10)

    assert serving["service"] == "history"
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert status == 200
    assert code == 0


async def test_without_a_database_url_it_says_so_and_does_not_start() -> None:
    async with process({"COLLOQUY_HISTORY_LISTEN": "nonsense"}) as service:
        _, errors = await asyncio.wait_for(service.communicate(), 20)

    assert service.returncode == 1
    problems = errors.decode().splitlines()
    assert len(problems) == 2
    assert any("COLLOQUY_HISTORY_DATABASE_URL" in problem for problem in problems)
    assert any("COLLOQUY_HISTORY_LISTEN" in problem for problem in problems)
