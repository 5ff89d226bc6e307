"""llm-gateway as several processes on one ledger: who follows, who takes over, who may not write; and as its own."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from colloquy.llm.v1 import llm_pb2 as pb
from colloquy.llm.v1 import llm_pb2_grpc
from libs.runtime import client, telemetry
from libs.runtime.errors import DeadlineExceeded, Unavailable
from tests.databases import Database
from tests.rpc.llm_world import (
    COST,
    TEXT,
    ScriptedProvider,
    World,
    a_request,
    completion,
    provider,
    refuses,
    repeats,
    running_world,
    says,
    waits,
)
from tests.rpc.processes import line_of, process

__all__ = ["provider"]  # a fixture

ANYWHERE = {"COLLOQUY_LLM_LISTEN": "127.0.0.1:0", "COLLOQUY_LLM_METRICS_LISTEN": "127.0.0.1:0"}
EXPIRE = "UPDATE llm.calls SET lease_until = now() WHERE session_id = %s"


@asynccontextmanager
async def two_worlds(database: Database, provider: ScriptedProvider) -> AsyncIterator[tuple[World, World]]:
    """Two services that share nothing but the ledger."""
    dsn = database.dsns["llm"]
    async with running_world(dsn, provider) as one, running_world(dsn, provider) as other:
        yield one, other


async def test_a_call_that_another_process_makes_is_followed(database: Database, provider: ScriptedProvider) -> None:
    request, answer = a_request(), asyncio.Event()
    provider.script = [waits(answer, says(completion()))]
    async with two_worlds(database, provider) as (one, other):
        making = asyncio.create_task(one.generate(request))
        await provider.arrived()
        following = [asyncio.create_task(other.generate(request)) for _ in range(20)]
        listening = asyncio.create_task(other.stream(request))
        answer.set()
        made, *followed = await asyncio.gather(making, *following)
        heard = await listening

    assert not made.reused
    assert all(one.reused and one.call == made.call for one in followed)
    assert heard == [TEXT, pb.GenerateResponse(call=made.call, reused=True)]
    assert len(provider.received) == 1


async def test_a_hundred_in_two_processes_are_one_call(database: Database, provider: ScriptedProvider) -> None:
    request = a_request()
    async with two_worlds(database, provider) as worlds:
        answers = await asyncio.gather(*(worlds[number % 2].generate(request) for number in range(100)))
        spent = worlds[0].spent(request)

    assert len(provider.received) == 1
    assert {one.call.text for one in answers} == {TEXT}
    assert [one.reused for one in answers].count(False) == 1
    assert spent == COST


async def test_a_follower_does_not_repeat_what_it_saw_fail(database: Database, provider: ScriptedProvider) -> None:
    request, answer = a_request(), asyncio.Event()
    provider.script = [waits(answer, refuses(401))]
    async with two_worlds(database, provider) as (one, other):
        making = asyncio.create_task(one.generate(request))
        await provider.arrived()
        following = await has_asked(other, request)
        answer.set()
        outcomes = await asyncio.gather(making, following, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert len(provider.received) == 1


async def test_a_follower_gives_up_at_its_own_deadline(database: Database, provider: ScriptedProvider) -> None:
    request, answer = a_request(), asyncio.Event()
    provider.script = [waits(answer, says(completion()))]
    async with two_worlds(database, provider) as (one, other):
        making = asyncio.create_task(one.generate(request))
        await provider.arrived()
        with pytest.raises(DeadlineExceeded):
            await other.generate(request, cap_ms=700)
        answer.set()

        assert (await making).call.text == TEXT


async def test_a_late_writer_is_overtaken_and_answers_with_what_was_written(
    database: Database, provider: ScriptedProvider
) -> None:
    request, answer = a_request(context=b"first"), asyncio.Event()
    second = a_request(session_id=request.session_id, turn_id=request.turn_id, context=b"second")
    provider.script = [waits(answer, says(completion("Too late."))), says(completion("In time."))]
    repeated = repeats("lost")
    async with two_worlds(database, provider) as (one, other):
        slow = asyncio.create_task(one.generate(request))
        await provider.arrived()
        one.execute(EXPIRE, request)
        quick = await other.generate(second)
        answer.set()
        overtaken = await slow
        call = await one.get(request)

    assert (quick.reused, quick.call.text, quick.call.context, quick.call.repeats) == (False, "In time.", b"second", 1)
    assert overtaken == pb.GenerateResponse(call=quick.call, reused=True)
    assert call == quick.call
    assert [row["state"] for row in one.attempts(request)] == ["unknown", "settled"]
    assert one.spent(request) > 2 * COST
    assert repeats("lost") - repeated == 1


async def test_a_killed_process_leaves_an_unknown_call_that_is_made_again(
    database: Database, provider: ScriptedProvider
) -> None:
    request, never = a_request(context=b"first"), asyncio.Event()
    again = a_request(session_id=request.session_id, turn_id=request.turn_id, context=b"second")
    provider.script = [waits(never, says(completion()))]
    settings = {**ANYWHERE, "COLLOQUY_DATABASE_URL": database.dsns["llm"], "OPENAI_BASE_URL": provider.url}
    async with running_world(database.dsns["llm"], provider) as survivor:
        async with process("services.llm_gateway", settings) as killed:
            serving = await line_of(killed, "serving")
            channel = client.open_channel(f"127.0.0.1:{serving['port']}")
            stub: Any = llm_pb2_grpc.LlmServiceStub(channel)
            asking = asyncio.create_task(client.call(stub.Generate, request, 10_000))
            await provider.arrived()
            killed.kill()
            await killed.wait()
            with pytest.raises(Unavailable):
                await asking
            await channel.close()
        orphaned = await survivor.get(request)
        following = await has_asked(survivor, again)
        survivor.execute(EXPIRE, request)
        made = await following

        assert orphaned.state == pb.CALL_STATE_INFLIGHT
        assert (made.reused, made.call.text, made.call.context) == (False, TEXT, b"second")
        assert made.call.repeats == 1
        assert [(row["fence"], row["state"]) for row in survivor.attempts(request)] == [(1, "unknown"), (2, "settled")]
        assert survivor.spent(request) == made.call.usage.cost_nano_usd > COST


async def test_it_finishes_its_calls_before_it_leaves(database: Database, provider: ScriptedProvider) -> None:
    request, answer = a_request(), asyncio.Event()
    provider.script = [waits(answer, says(completion()))]
    settings = {**ANYWHERE, "COLLOQUY_DATABASE_URL": database.dsns["llm"], "OPENAI_BASE_URL": provider.url}
    async with process("services.llm_gateway", settings) as service:
        serving = await line_of(service, "serving")
        channel = client.open_channel(f"127.0.0.1:{serving['port']}")
        stub: Any = llm_pb2_grpc.LlmServiceStub(channel)
        asking = asyncio.create_task(client.call(stub.Generate, request, 10_000))
        await provider.arrived()
        asking.cancel()
        service.send_signal(signal.SIGTERM)
        await line_of(service, "draining")
        answer.set()
        code = await asyncio.wait_for(service.wait(), 10)
        await channel.close()

    assert code == 0
    async with running_world(database.dsns["llm"], provider) as successor:
        made = await successor.generate(request)
    assert (made.reused, made.call.text) == (True, TEXT)
    assert provider.received[0].headers["Authorization"] == "Bearer none"


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({"COLLOQUY_DATABASE_URL": "postgresql://localhost/none"}, {"OPENAI_API_KEY"}),
        (
            {
                "COLLOQUY_DATABASE_URL": "mysql://ada:secret@localhost/x",
                "COLLOQUY_LLM_LISTEN": "nowhere",
                "COLLOQUY_LOG_LEVEL": "loud",
                "COLLOQUY_FAILPOINTS": "bad",
                "OPENAI_BASE_URL": "localhost:8090",
            },
            {
                "COLLOQUY_DATABASE_URL",
                "COLLOQUY_LLM_LISTEN",
                "COLLOQUY_LOG_LEVEL",
                "COLLOQUY_FAILPOINTS",
                "OPENAI_BASE_URL",
            },
        ),
    ],
    ids=["no key", "all else"],
)
async def test_what_keeps_it_from_starting_is_one_line_each(settings: Mapping[str, str], problems: set[str]) -> None:
    async with process("services.llm_gateway", settings) as service:
        _, errors = await asyncio.wait_for(service.communicate(), 20)

    assert service.returncode == 1
    lines = errors.decode().splitlines()
    assert {line.split()[1] for line in lines} == problems
    assert len(lines) == len(problems)
    assert b"secret" not in errors


async def has_asked(world: World, request: pb.GenerateRequest) -> "asyncio.Task[pb.GenerateResponse]":
    """A Generate whose call the world has offered to the ledger."""
    before = calls_offered()
    asking = asyncio.create_task(world.generate(request))
    async with asyncio.timeout(10):
        while calls_offered() == before:
            await world.get(request)
    return asking


def calls_offered() -> float:
    """How often the worlds of this process have offered a call to the ledger."""
    telemetry.flush()
    return REGISTRY.get_sample_value("colloquy_db_statement_seconds_count", {"statement": "llm_open"}) or 0.0
