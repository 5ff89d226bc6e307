"""The terminal's client against a scripted server: what it waits out, what it says at once, what it measures."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from services.cli import conversation, environment, terminal
from services.cli.conversation import Conversation, ConversationError

TURN = {"session_id": "7", "seq": 2, "session_status": "open", "degraded": [], "reply": {"text": "Why?"}}
INTERVIEW = {"interview_id": "7", "message": {"text": "Hello."}}
SHORT_SECONDS = 0.3  # for a request that is to be late; the others have the time that they have in the product

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(*script: Answer) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that plays its script, the last answer again and again; its URL, and the id of each request."""
    keys: list[str] = []

    async def play(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        return await script[min(len(keys), len(script)) - 1](request)

    app = web.Application()
    app.router.add_post("/{path:.*}", play)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", keys
    finally:
        await runner.cleanup()


def replying(body: object, status: int = 200, content_type: str = "application/json") -> Answer:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(status=status, content_type=content_type, text=json.dumps(body))

    return reply


def refusing(reason: str, status: int, **more: object) -> Answer:
    problem = {"reason": reason, "detail": f"It is {reason}.", **more}
    return replying(problem, status, "application/problem+json")


def streaming(*events: tuple[str, object]) -> Answer:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event, data in events:
            await response.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())
        return response

    return stream


async def late(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


def client(url: str, request_seconds: float = conversation.REQUEST_SECONDS) -> Conversation:
    return Conversation(url, "token", request_seconds)


@pytest.mark.parametrize(
    ("first", "request_seconds"),
    [
        (late, SHORT_SECONDS),
        (streaming(("delta", {"text": "Wh"})), conversation.REQUEST_SECONDS),
        (refusing("TURN_IN_PROGRESS", 409, retry_after_ms=900), conversation.REQUEST_SECONDS),
    ],
    ids=["late", "cut off", "busy"],
)
async def test_an_answer_is_sent_again_under_its_id_and_only_the_request_that_was_answered_is_timed(
    first: Answer, request_seconds: float
) -> None:
    async with answering(first, streaming(("completed", TURN))) as (url, keys), client(url, request_seconds) as ada:
        began = time.monotonic()
        turn = await ada.answer("7", "Because.", lambda _: None)
        took_ms = (time.monotonic() - began) * 1000

    assert turn.text == "Why?"
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert turn.duration_ms < took_ms - 850


async def test_a_chat_is_timed_without_its_waits_too() -> None:
    busy = refusing("RATE_LIMITED", 429, retry_after_ms=500)
    async with answering(busy, replying(TURN)) as (url, _), client(url) as ada:
        began = time.monotonic()
        _, turn = await ada.chat(None, "Hello?", lambda _: None)
        took_ms = (time.monotonic() - began) * 1000

    assert turn.duration_ms < took_ms - 450


async def test_it_gives_up_in_the_end_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "RETRY_SECONDS", 0.5)
    async with answering(late) as (url, keys), client(url, SHORT_SECONDS) as ada:
        with pytest.raises(ConversationError, match=r"no answer: none within 0\.3 s"):
            await ada.start_interview(None, None)

    assert len(keys) == 1


async def test_a_product_that_was_never_there_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "PAUSE_SECONDS", 20.0)
    async with answering(replying(INTERVIEW)) as (url, _):
        pass
    async with client(url) as ada:
        with pytest.raises(ConversationError, match=f"nothing answers at {url}"):
            await asyncio.wait_for(ada.start_interview(None, None), 10)


async def test_a_refusal_names_the_fields_and_is_not_repeated() -> None:
    errors = [{"field": "message_text", "message": "must not be empty"}]
    refusal = refusing("INVALID_FIELD", 422, errors=errors)
    async with answering(refusal) as (url, keys), client(url) as ada:
        with pytest.raises(ConversationError, match=r"It is INVALID_FIELD\.\n  message_text: must not be empty"):
            await ada.chat(None, " ", lambda _: None)

    assert len(keys) == 1


@pytest.mark.parametrize(
    "other",
    [
        replying({"error": "not found"}, 404),
        replying("<html>", 200, "text/html"),
        replying({}, 502, "text/html"),
    ],
)
async def test_a_server_that_is_not_colloquy_is_said_to_be_none(other: Answer) -> None:
    async with answering(other) as (url, _), client(url) as ada:
        with pytest.raises(ConversationError, match="does not answer as Colloquy does"):
            await ada.start_interview(None, None)


@pytest.mark.parametrize("keys_are_configured", [False, True], ids=["own keys", "a public key only"])
async def test_a_demo_that_fails_is_one_line(
    keys_are_configured: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with answering(refusing("INTERNAL", 500)) as (url, _):
        given = {"COLLOQUY_BFF_LISTEN": url.removeprefix("http://")}
        given |= {"COLLOQUY_JWKS_URL": "https://issuer.example/keys"} if keys_are_configured else {}

        await terminal.demo(environment.with_defaults(given, tmp_path))

    said: Sequence[str] = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("the demo interview did not work: ")
