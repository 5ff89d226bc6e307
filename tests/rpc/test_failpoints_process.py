"""A real service with failpoints: refused or armed at its start, armed while it runs, ended at a point by name."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import aiohttp
import psycopg
import pytest

from colloquy.history.v1 import history_pb2, history_pb2_grpc
from libs.runtime import client
from libs.runtime.errors import Unavailable
from libs.runtime.failpoints import EXIT_CODE
from services.cli.environment import SERVICES, VERIFIER
from tests.databases import Database
from tests.rpc.processes import PATIENCE_SECONDS, line_of, process


@dataclass(frozen=True, slots=True)
class History:
    """The history service as its own process."""

    process: Process
    port: int
    metrics_port: int

    async def failpoints(self, method: str = "GET", body: str | None = None) -> int:
        url = f"http://127.0.0.1:{self.metrics_port}/failpoints"
        async with aiohttp.ClientSession() as http, http.request(method, url, data=body) as response:
            return response.status

    async def open(self, session_id: UUID) -> None:
        """Open a chat's stream."""
        request = history_pb2.OpenStreamRequest(
            session_id=str(session_id),
            owner_id="alice",
            kind=history_pb2.KIND_CHAT,
            request_id=str(uuid4()),
            fingerprint=b"f" * 32,
            max_turns=10,
            lease_ms=4000,
            claim_id=str(uuid4()),
        )
        channel = client.open_channel(f"127.0.0.1:{self.port}")
        try:
            await client.call(history_pb2_grpc.HistoryServiceStub(channel).OpenStream, request, 5000)
        finally:
            await channel.close()


@asynccontextmanager
async def history(database: Database, **settings: str) -> AsyncIterator[History]:
    anywhere = {"COLLOQUY_HISTORY_LISTEN": "127.0.0.1:0", "COLLOQUY_HISTORY_METRICS_LISTEN": "127.0.0.1:0"}
    url = {"COLLOQUY_HISTORY_DATABASE_URL": database.dsns["history"]}
    async with process("services.history", {**anywhere, **url, **settings}) as started:
        serving = await line_of(started, "serving")
        yield History(started, serving["port"], serving["metrics_port"])


def stream_exists(database: Database, session_id: UUID) -> bool:
    with psycopg.connect(database.dsns["history"]) as connection:
        found = connection.execute("SELECT FROM history.streams WHERE session_id = %s", [session_id]).fetchone()
    return found is not None


async def refused(module: str, **settings: str) -> list[str]:
    """What a service says that does not start."""
    async with process(module, settings) as started:
        _, errors = await asyncio.wait_for(started.communicate(), PATIENCE_SECONDS)
        assert started.returncode == 1
    return errors.decode().splitlines()


@pytest.mark.parametrize(("when", "kept"), [("before", False), ("after", True)])
async def test_exit_ends_the_process_between_the_two_steps_it_is_named_for(
    database: Database, when: str, kept: bool
) -> None:
    session_id = uuid4()
    async with history(database, COLLOQUY_FAILPOINTS="") as service:
        assert await service.failpoints("PUT", f"history.open.{when}=exit") == 200

        with pytest.raises(Unavailable):
            await service.open(session_id)

        fired = await line_of(service.process, "failpoint_fired")
        assert await asyncio.wait_for(service.process.wait(), PATIENCE_SECONDS) == EXIT_CODE
    assert (fired["failpoint"], fired["action"], fired["level"]) == (f"history.open.{when}", "exit", "warning")
    assert stream_exists(database, session_id) == kept


async def test_what_the_environment_says_is_armed_from_the_start(database: Database) -> None:
    session_id = uuid4()
    async with history(database, COLLOQUY_FAILPOINTS="history.open.before=1*error;llm.finish.before=exit") as service:
        with pytest.raises(Unavailable):
            await service.open(session_id)

        await service.open(session_id)
    assert stream_exists(database, session_id)


@pytest.mark.parametrize("settings", [{}, {"COLLOQUY_ENV": "production"}], ids=["unset", "in production"])
async def test_a_process_without_failpoints_cannot_be_armed(database: Database, settings: dict[str, str]) -> None:
    async with history(database, **settings) as service:
        assert await service.failpoints() == 404
        assert await service.failpoints("PUT", "history.open.before=exit") == 404

        await service.open(uuid4())


@pytest.mark.parametrize("module", [program.module for program in (*SERVICES, VERIFIER)])
async def test_every_process_refuses_failpoints_in_production_and_names_that_there_are_not(module: str) -> None:
    in_production, unknown = await asyncio.gather(
        refused(module, COLLOQUY_ENV="production", COLLOQUY_FAILPOINTS="history.commit.after=exit"),
        refused(module, COLLOQUY_FAILPOINTS="history.comit.after=exit"),
    )

    assert "colloquy: COLLOQUY_FAILPOINTS must not be set in production" in in_production
    assert (
        "colloquy: COLLOQUY_FAILPOINTS cannot be used: there is no failpoint history.comit.after; "
        "did you mean history.commit.after?"
    ) in unknown
