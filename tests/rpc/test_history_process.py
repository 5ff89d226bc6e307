"""The history service as its own process: what it needs to start, what it says, how it ends."""

import asyncio
import signal
from typing import Any

import aiohttp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from libs.runtime import client
from tests.databases import Database
from tests.rpc.processes import PATIENCE_SECONDS, line_of, process

ANYWHERE = {"COLLOQUY_HISTORY_LISTEN": "127.0.0.1:0", "COLLOQUY_HISTORY_METRICS_LISTEN": "127.0.0.1:0"}


async def test_it_serves_once_its_schema_is_there_and_leaves_when_told_to(database: Database) -> None:
    async with process("services.history", {**ANYWHERE, "COLLOQUY_DATABASE_URL": database.dsns["history"]}) as service:
        serving = await line_of(service, "serving")
        channel = client.open_channel(f"127.0.0.1:{serving['port']}")
        stub: Any = health_pb2_grpc.HealthStub(channel)
        # On this channel it is asked only once it is SERVING: where its database was late, a second after it has begun.
        health = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=PATIENCE_SECONDS)
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
    async with process("services.history", {"COLLOQUY_HISTORY_LISTEN": "nonsense"}) as service:
        _, errors = await asyncio.wait_for(service.communicate(), 20)

    assert service.returncode == 1
    problems = errors.decode().splitlines()
    assert len(problems) == 2
    assert any("COLLOQUY_HISTORY_DATABASE_URL" in problem for problem in problems)
    assert any("COLLOQUY_HISTORY_LISTEN" in problem for problem in problems)
