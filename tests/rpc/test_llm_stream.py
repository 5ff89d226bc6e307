"""LlmService.StreamGenerate over a real channel: the text as it comes, for everybody who listens."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from colloquy.llm.v1 import llm_pb2 as pb
from libs.runtime.errors import Unavailable
from libs.tokens.counting import count
from services.llm_gateway.flight import COALESCE_SECONDS
from tests.databases import Database
from tests.rpc.llm_world import (
    CAP_MS,
    COST,
    ENDING,
    TEXT,
    ScriptedProvider,
    Step,
    World,
    a_request,
    chunk,
    event,
    hangs_up,
    provider,
    running_world,
    says,
    shared_world,
    streams,
    world,
)

__all__ = ["provider", "shared_world", "world"]  # fixtures

_T = TypeVar("_T")


async def test_the_text_comes_as_it_is_made_and_then_the_call(world: World) -> None:
    request, go_on = a_request(), asyncio.Event()
    world.provider.script = [streams(chunk("And how "), go_on, chunk("would "), chunk("you?"), ENDING)]

    events = world.events(request)
    first = await anext(events)
    in_flight = await world.get(request)
    go_on.set()
    *deltas, last = [one async for one in events]

    assert first == "And how "
    assert in_flight.state == pb.CALL_STATE_INFLIGHT
    assert "".join(str(delta) for delta in deltas) == "would you?"
    assert isinstance(last, pb.GenerateResponse)
    assert not last.reused
    assert (last.call.text, last.call.finish_reason) == ("And how would you?", "stop")
    assert last.call.usage == pb.Usage(prompt_tokens=100, completion_tokens=10, cost_nano_usd=COST)
    assert last.call == await world.get(request)
    (received,) = world.provider.received
    assert (received.body["stream"], received.body["stream_options"]) == (True, {"include_usage": True})


async def test_pieces_that_come_fast_are_passed_on_together(world: World) -> None:
    pieces = [f"word{number} " for number in range(200)]
    world.provider.script = [streams(*map(chunk, pieces), ENDING)]

    started = time.monotonic()
    *deltas, _ = await world.stream(a_request())

    assert "".join(str(delta) for delta in deltas) == "".join(pieces)
    assert len(deltas) <= 2 + (time.monotonic() - started) / COALESCE_SECONDS


async def test_who_joins_late_gets_what_there_is_and_then_the_rest(world: World) -> None:
    request, go_on = a_request(), asyncio.Event()
    world.provider.script = [streams(chunk("And how "), go_on, chunk("would you?"), ENDING)]
    early = world.events(request)
    await anext(early)

    late = world.events(request)
    first = await anext(late)
    waiting = asyncio.create_task(world.generate(request))
    go_on.set()
    rest = [one async for one in late]
    await drained(early)

    assert first == "And how "
    assert rest[0] == "would you?"
    assert isinstance(rest[1], pb.GenerateResponse)
    assert rest[1].reused
    assert (await waiting).call == rest[1].call
    assert len(world.provider.received) == 1


async def test_a_call_that_is_done_is_one_delta_and_the_call(world: World) -> None:
    request = a_request()
    made = await world.generate(request)

    assert await world.stream(request) == [TEXT, pb.GenerateResponse(call=made.call, reused=True)]


async def test_a_listener_that_goes_away_leaves_the_call_to_finish(world: World) -> None:
    request, go_on = a_request(), asyncio.Event()
    world.provider.script = [streams(chunk("And how "), go_on, chunk("would you?"), ENDING)]

    events = world.events(request)
    await anext(events)
    await events.aclose()  # type: ignore[attr-defined]
    go_on.set()

    assert (await world.eventually(request, pb.CALL_STATE_DONE)).text == "And how would you?"


async def test_a_listeners_deadline_ends_its_stream_and_not_the_call(world: World) -> None:
    request, go_on = a_request(), asyncio.Event()
    world.provider.script = [streams(chunk("And how "), go_on, chunk("would you?"), ENDING)]

    await world.left_at_its_deadline(world.stream, request, 700)
    go_on.set()

    assert (await world.eventually(request, pb.CALL_STATE_DONE)).text == "And how would you?"


@pytest.mark.parametrize("ending", [ENDING, chunk(finish_reason="stop")], ids=["after its end", "before its usage"])
async def test_a_reply_that_has_come_whole_is_kept_though_its_connection_breaks(world: World, ending: bytes) -> None:
    request = a_request()
    world.provider.script = [hangs_up(after=chunk(TEXT) + ending)]

    *_, last = await world.stream(request)

    assert isinstance(last, pb.GenerateResponse)
    assert (last.call.text, last.call.state) == (TEXT, pb.CALL_STATE_DONE)
    assert len(world.attempts(request)) == 1


async def test_a_reply_that_is_read_as_it_is_written_has_the_time_that_its_readers_have(
    database: Database, provider: ScriptedProvider
) -> None:
    heard, unheard, pause = a_request(), a_request(), asyncio.Event()
    provider.script = [streams(chunk("And how "), pause, chunk("would you?"), ENDING), streams(pause, ENDING)]
    dsn = database.dsns["llm"]
    async with running_world(dsn, provider, timeout_ms=300) as world:
        listening = asyncio.create_task(world.stream(heard))
        await provider.arrived()
        await world.left_at_its_deadline(world.stream, unheard, 350)
        given_up = await world.eventually(unheard, pb.CALL_STATE_UNKNOWN)
        pause.set()
        *_, last = await listening

    assert isinstance(last, pb.GenerateResponse)
    assert (last.call.text, last.call.state) == ("And how would you?", pb.CALL_STATE_DONE)
    assert given_up.duration_ms < CAP_MS


async def test_a_stream_without_usage_is_counted_here(world: World) -> None:
    request = a_request()
    world.provider.script = [streams(chunk(TEXT), chunk(finish_reason="stop"), b"data: [DONE]\n\n")]

    *_, last = await world.stream(request)

    assert isinstance(last, pb.GenerateResponse)
    assert last.call.usage.completion_tokens == count(TEXT)
    assert last.call.usage.prompt_tokens > 10


async def test_a_stream_that_simply_ends_after_its_reason_is_whole(world: World) -> None:
    world.provider.script = [streams(chunk(TEXT), chunk(finish_reason="length"))]

    *_, last = await world.stream(a_request())

    assert isinstance(last, pb.GenerateResponse)
    assert last.call.finish_reason == "length"


@pytest.mark.parametrize(
    "rest",
    [
        streams(chunk("And how ")),
        streams(chunk("And how "), b'data: {"id": "chatcmpl-br\n\n', ENDING),
        streams(chunk("And how "), event({"error": {"message": "secret", "type": "server_error"}})),
        hangs_up(chunk("And how ")),
    ],
    ids=["ends early", "is no JSON", "becomes an error", "is cut off"],
)
async def test_a_stream_that_breaks_after_text_is_unknown_and_not_tried_again(world: World, rest: Step) -> None:
    request = a_request()
    world.provider.script = [rest]
    events = world.events(request)

    shown = await anext(events)
    with pytest.raises(Unavailable) as raised:
        await anext(events)

    assert shown == "And how "
    assert "secret" not in raised.value.detail
    assert (await world.get(request)).state == pb.CALL_STATE_UNKNOWN
    (attempt,) = world.attempts(request)
    assert attempt["state"] == "unknown"
    assert world.spent(request) == attempt["cost_nano_usd"] > COST


async def test_a_stream_that_breaks_before_any_text_is_tried_again(world: World) -> None:
    request = a_request()
    world.provider.script = [streams(chunk("")), says(b"", status=500)]

    with pytest.raises(Unavailable):
        await world.stream(request)
    repeated = await world.stream(request)

    assert repeated[0] == TEXT
    assert [attempt["state"] for attempt in world.attempts(request)] == ["unknown", "unknown", "settled"]
    assert (await world.get(request)).repeats == 1


async def test_one_connection_serves_call_after_call(database: Database, provider: ScriptedProvider) -> None:
    async with running_world(database.dsns["llm"], provider) as world:
        for _ in range(3):
            await world.stream(a_request())
            await world.generate(a_request())

    assert len(provider.received) == 6
    assert len(provider.connections) == 1


async def drained(events: AsyncIterator[_T]) -> list[_T]:
    return [one async for one in events]
