"""Sends a completion, or what a fault makes of it, at the time that was drawn."""

import asyncio
import time
from collections.abc import Mapping

from aiohttp import web

from services.simulator import pacing, wire
from services.simulator.calls import Call, Outcome
from services.simulator.settings import Fate, Fault
from services.simulator.wire import Completion

_JSON = "application/json"
_BROKEN = frozenset({Fault.CUT_STREAM, Fault.MALFORMED_JSON})


async def whole(http: web.Request, call: Call, completion: Completion, fate: Fate) -> web.StreamResponse:
    """Send the completion as one JSON object."""
    body = wire.body(completion)
    await _until(call, _total_ms(completion, fate))
    sent = body[: len(body) // 2] if fate.fault in _BROKEN else body
    response = web.StreamResponse(headers={"Content-Type": _JSON, "x-request-id": completion.completion_id})
    response.content_length = len(body) if fate.fault is Fault.CUT_STREAM else len(sent)
    await response.prepare(http)
    await response.write(sent)
    return await _finish(http, call, response, fate)


async def stream(
    http: web.Request, call: Call, completion: Completion, fate: Fate, *, include_usage: bool
) -> web.StreamResponse:
    """Send the completion as server-sent events."""
    events = wire.events(completion, include_usage=include_usage)
    first_ms = fate.latency_ms * pacing.FIRST_PIECE_SHARE
    total_ms = _total_ms(completion, fate)
    if fate.fault in _BROKEN:
        events = events[: len(events) // 2] or [b": about to break\n\n"]
        total_ms = (first_ms + total_ms) / 2
    if fate.fault is Fault.MALFORMED_JSON:
        events[-1] += wire.BROKEN_EVENT + wire.DONE_EVENT
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    response = web.StreamResponse(headers={**headers, "x-request-id": completion.completion_id})
    for due_ms, group in pacing.groups(events, first_ms, total_ms):
        await _until(call, due_ms)
        if not response.prepared:
            await response.prepare(http)
        await response.write(group)
    return await _finish(http, call, response, fate)


async def server_error(http: web.Request, call: Call, fate: Fate) -> web.StreamResponse:
    """Fail with 500 when the reply would have been complete."""
    await _until(call, fate.latency_ms)
    message = "The server had an error while processing your request. Sorry about that!"
    return await refuse(http, call, 500, wire.error(message, "server_error"))


async def rate_limited(http: web.Request, call: Call, model: str) -> web.StreamResponse:
    """Fail with 429 at once; to be tried again in a second."""
    message = f"Rate limit reached for {model} on requests per min (RPM). Please try again in 1s."
    body = wire.error(message, "requests", code="rate_limit_exceeded")
    return await refuse(http, call, 429, body, {"Retry-After": "1", "retry-after-ms": "1000"})


async def context_length_exceeded(http: web.Request, call: Call) -> web.StreamResponse:
    """Fail with 400 at once, as for a prompt that is too long."""
    message = (
        f"This model's maximum context length is {call.prompt_tokens - 1} tokens. However, your messages resulted in "
        f"{call.prompt_tokens} tokens. Please reduce the length of the messages."
    )
    body = wire.error(message, "invalid_request_error", "messages", "context_length_exceeded")
    return await refuse(http, call, 400, body)


async def refuse(
    http: web.Request, call: Call, status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send an error."""
    call.status = status
    response = web.Response(status=status, body=body, content_type=_JSON, headers=headers)
    await response.prepare(http)
    await response.write_eof()
    call.outcome = Outcome.REFUSED
    return response


async def hang() -> web.StreamResponse:
    """Never answer: ends when the caller's leaving, or the end of the process, cancels the handler."""
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never


async def _finish(http: web.Request, call: Call, response: web.StreamResponse, fate: Fate) -> web.StreamResponse:
    call.status = response.status
    if fate.fault is Fault.CUT_STREAM:
        if http.transport is not None:
            http.transport.close()
    else:
        await response.write_eof()
    call.outcome = Outcome.BROKEN if fate.fault in _BROKEN else Outcome.ANSWERED
    return response


def _total_ms(completion: Completion, fate: Fate) -> float:
    if fate.fault is Fault.SLOW_STREAM:
        return fate.latency_ms * pacing.FIRST_PIECE_SHARE + pacing.SLOW_PIECE_MS * len(wire.pieces(completion.text))
    return fate.latency_ms


async def _until(call: Call, due_ms: float) -> None:
    delay = call.started + due_ms / 1000 - time.monotonic()
    if delay > 0:
        await asyncio.sleep(delay)
