"""A turn as server-sent events: framing, failures before and after `accepted`, and clients that leave."""

import asyncio
import re
from collections.abc import AsyncIterator

import orjson
import pytest

from colloquy.gateway.v1 import gateway_pb2 as pb
from libs.runtime.errors import Conflict, DeadlineExceeded, RateLimited, Unavailable
from services.bff import events
from services.bff.conversations import Budgets
from tests.rpc.bff_world import (
    HURRIED,
    SESSION,
    TURN,
    Reply,
    World,
    a_stream,
    a_turn,
    a_world,
    accepted,
    running_world,
    time_awake,
    until,
    world,
)

__all__ = ["running_world", "world"]

MESSAGES = f"/api/v1/interviews/{SESSION}/messages"


async def stream(world: World, **headers: str) -> Reply:
    return await world.say(accept="text/event-stream", **headers)


def events_of(body: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream: name and data (HTML Standard, section 9.2.6), comments left out."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        found.append((name.removeprefix("event: "), data.removeprefix("data: ").encode()))
    return found


async def test_a_turn_streams_from_accepted_over_drafts_to_completed(world: World) -> None:
    world.gateway.answers["StreamTurn"] = a_stream("And how\n", 'would "you"', " 👩‍👩‍👧‍👦?")

    reply = await stream(world, idempotency_key=SESSION)

    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert reply.headers["X-Accel-Buffering"] == "no"
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Correlation-ID"]
    assert [(name, orjson.loads(data)) for name, data in events_of(reply.body)[:-1]] == [
        ("accepted", {"turn_id": TURN, "request_id": SESSION}),
        ("delta", {"text": "And how\n"}),
        ("delta", {"text": 'would "you"'}),
        ("delta", {"text": " 👩‍👩‍👧‍👦?"}),
    ]
    assert world.gateway.heard[0].request == pb.StreamTurnRequest(
        turn=pb.SubmitTurnRequest(
            session_id=SESSION, request_id=SESSION, text="I would look at the plan.", kind=pb.KIND_INTERVIEW
        )
    )


async def test_the_completed_turn_has_the_bytes_of_the_turn_that_is_not_streamed(world: World) -> None:
    whole = await world.say()

    streamed = events_of((await stream(world)).body)

    assert streamed[-1] == ("completed", whole.body)


async def test_a_replayed_stream_has_the_same_turn_and_says_so_in_a_header(world: World) -> None:
    first = await stream(world)
    world.gateway.answers["StreamTurn"] = a_stream(replayed=True)

    again = await stream(world)

    assert events_of(again.body)[-1] == events_of(first.body)[-1]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers


async def test_a_stream_says_how_long_the_gateway_took_to_accept_the_message(world: World) -> None:
    async def slowly(request: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        await asyncio.sleep(0.05)
        async for event in a_stream()(request):
            yield event

    world.gateway.answers["StreamTurn"] = slowly

    timing = (await stream(world)).headers["Server-Timing"]

    durations = {name: float(took) for name, took in re.findall(r"(\w+);dur=([0-9.]+)", timing)}
    assert durations.keys() == {"bff", "gateway"}
    assert 50 <= durations["gateway"] <= durations["bff"]


@pytest.mark.parametrize(
    "accept", ["text/event-stream", "Text/Event-Stream", "application/json, text/event-stream;q=0.9"]
)
async def test_a_client_asks_for_events_by_their_media_type(world: World, accept: str) -> None:
    assert (await world.say(accept=accept)).headers["Content-Type"].startswith("text/event-stream")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html"])
async def test_any_other_client_gets_the_turn_in_one_piece(world: World, accept: str) -> None:
    assert (await world.say(accept=accept)).headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(("error", "status"), [(Conflict(), 409), (RateLimited(2500), 429), (Unavailable(), 503)])
async def test_a_failure_before_accepted_has_its_own_status(world: World, error: Exception, status: int) -> None:
    world.gateway.answers["StreamTurn"] = error

    reply = await stream(world)

    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json")


async def test_a_failure_after_accepted_is_the_last_event(world: World) -> None:
    world.gateway.answers["StreamTurn"] = a_stream("And", then=DeadlineExceeded())

    reply = await stream(world)

    names = [name for name, _ in events_of(reply.body)]
    problem = orjson.loads(events_of(reply.body)[-1][1])
    assert (reply.status, names) == (200, ["accepted", "delta", "failed"])
    assert (problem["status"], problem["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert problem["correlation_id"] == reply.headers["X-Correlation-ID"]


async def test_an_unexpected_failure_after_accepted_tells_nothing(world: World) -> None:
    world.gateway.answers["StreamTurn"] = a_stream(then=RuntimeError("password=hunter2"))

    body = (await stream(world)).body

    assert orjson.loads(events_of(body)[-1][1])["reason"] == "INTERNAL"
    assert b"hunter2" not in body


async def test_a_failure_of_our_own_in_mid_stream_is_an_internal_error(world: World) -> None:
    world.gateway.answers["StreamTurn"] = a_stream(turn=pb.Turn(reply_text="in no status that we know"))

    assert orjson.loads(events_of((await stream(world)).body)[-1][1])["reason"] == "INTERNAL"


async def test_a_stream_that_just_ends_has_confirmed_nothing(world: World) -> None:
    async def just_accepted(request: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        yield accepted(request)

    async def nothing(_: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        return
        yield  # what makes it a generator

    world.gateway.answers["StreamTurn"] = just_accepted
    assert orjson.loads(events_of((await stream(world)).body)[-1][1])["reason"] == "UNAVAILABLE"
    world.gateway.answers["StreamTurn"] = nothing
    assert (await stream(world)).status == 503


async def test_events_arrive_one_by_one_as_they_happen(world: World) -> None:
    more = asyncio.Event()

    async def slowly(request: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        yield accepted(request)
        await more.wait()
        yield pb.StreamTurnResponse(completed=pb.SubmitTurnResponse(turn=a_turn()))

    world.gateway.answers["StreamTurn"] = slowly
    headers = world.headers(accept="text/event-stream")
    async with world.http.post(world.url + MESSAGES, json={"message_text": "hello"}, headers=headers) as response:
        first = await response.content.readuntil(b"\n\n")
        more.set()
        rest = await response.read()

    assert first.startswith(b"event: accepted\n")
    assert rest.startswith(b"event: completed\n")


async def test_a_silent_stream_says_something_now_and_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.02)
    enough = asyncio.Event()

    async def silent(request: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        yield accepted(request)
        await enough.wait()
        yield pb.StreamTurnResponse(completed=pb.SubmitTurnResponse(turn=a_turn()))

    world.gateway.answers["StreamTurn"] = silent
    headers = world.headers(accept="text/event-stream")
    async with world.http.post(world.url + MESSAGES, json={"message_text": "hello"}, headers=headers) as response:
        await response.content.readuntil(b"\n\n")
        comments = [await response.content.readuntil(b"\n\n") for _ in range(2)]
        enough.set()
        rest = await response.read()

    assert all(comment.startswith(b": ") for comment in comments)
    assert events_of(rest)[-1][0] == "completed"


async def test_a_client_that_leaves_cancels_the_call_to_the_gateway(world: World) -> None:
    async def endless(request: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        yield accepted(request)
        await asyncio.Event().wait()

    world.gateway.answers["StreamTurn"] = endless
    headers = world.headers(accept="text/event-stream")
    async with world.http.post(world.url + MESSAGES, json={"message_text": "hello"}, headers=headers) as response:
        await response.content.readuntil(b"\n\n")
        assert not world.gateway.stream_ended.is_set()
        response.close()

    await asyncio.wait_for(world.gateway.stream_ended.wait(), 5.0)  # less than the stream's own time


async def test_a_client_that_stops_reading_holds_the_gateway_back_and_not_in_memory() -> None:
    sent = 0

    async def flood(request: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        nonlocal sent
        yield accepted(request)
        while sent < 2000:
            yield pb.StreamTurnResponse(delta="x" * 32_000)
            sent += 1

    async with a_world(Budgets(reply_ms=2000, chat_ms=2000)) as world:
        world.gateway.answers["StreamTurn"] = flood
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port, limit=1024)
        body = b'{"message_text": "hello"}'
        lines = [f"{name}: {value}" for name, value in world.headers(accept="text/event-stream").items()]
        head = [f"POST {MESSAGES} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines, "", ""]
        writer.write("\r\n".join(head).encode() + body)

        await asyncio.wait_for(world.gateway.stream_ended.wait(), 20.0)

        assert sent < 2000
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_an_interviews_stream_has_the_budget_of_its_turn(world: World) -> None:
    began = asyncio.get_running_loop().time()
    await stream(world)
    took = asyncio.get_running_loop().time() - began

    assert 8.94 - took < world.gateway.heard[0].seconds_left < 8.95


async def test_a_stream_that_hangs_fails_in_time() -> None:
    async def endless(request: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        yield accepted(request)
        await asyncio.Event().wait()

    async with a_world(HURRIED) as hurried, time_awake() as passed:
        hurried.gateway.answers["StreamTurn"] = endless
        reply = await stream(hurried)

        assert passed() < 1.5  # 1.0 on a machine of its own
        assert orjson.loads(events_of(reply.body)[-1][1])["reason"] == "DEADLINE_EXCEEDED"
        await until(hurried.gateway.stream_ended.is_set)
