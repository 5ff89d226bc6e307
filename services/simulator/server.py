"""The HTTP side of the simulator, on aiohttp.

    POST   /v1/chat/completions   OpenAI's API, streamed or not; see chat_request, phrasing, judging for what is replied
    GET    /v1/models
    GET    /simulator/settings    how it behaves now
    PUT    /simulator/settings    how it behaves from the next call on; see settings
    GET    /simulator/calls       `?since=N`: the calls that ended after number N, and those that run
    DELETE /simulator/calls       forget the ended calls

Request headers of a completion: `X-Colloquy-Call`, an opaque id that is reported back with the call;
`X-Simulator-Fault: KIND` and `X-Simulator-Latency-Ms: NUMBER`, which replace what was drawn. An `Authorization` header
is accepted and not read.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import orjson
from aiohttp import web

from libs.runtime.config import address_of
from services.simulator import chat_request, delivery, replies, wire
from services.simulator.calls import Call, CallLog, Outcome
from services.simulator.chat_request import BadRequest, ChatRequest
from services.simulator.settings import Draws, Fate, Fault, Settings, SettingsError, changed

HOST = "127.0.0.1"
CALL_HEADER = "X-Colloquy-Call"
FAULT_HEADER = "X-Simulator-Fault"
LATENCY_HEADER = "X-Simulator-Latency-Ms"

_MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1-mini", "gpt-4.1")
# What aiohttp waits for handlers before it cancels them; nobody's reply is worth waiting for here.
_SHUTDOWN_SECONDS = 0.01
# A benchmark opens hundreds of connections at once; one that is dropped is tried again a second later.
_BACKLOG = 1024


class Simulator:
    """The handlers and what they share: the settings, which can be changed at run time, and the log of calls."""

    def __init__(self, settings: Settings) -> None:
        self._initial = settings
        self._draws = Draws(settings)
        self._calls = CallLog()

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application(middlewares=[_errors_as_openai])
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/simulator/settings", self.settings)
        app.router.add_put("/simulator/settings", self.change_settings)
        app.router.add_get("/simulator/calls", self.calls)
        app.router.add_delete("/simulator/calls", self.forget_calls)
        return app

    async def complete(self, http: web.Request) -> web.StreamResponse:
        """Answer a chat completion request, and log the call whatever becomes of it."""
        call = self._calls.begin(http.headers.get(CALL_HEADER, ""))
        try:
            request = chat_request.parse(await http.read())
            call.purpose, call.streamed = request.purpose, request.stream
            fate = _overridden(self._draws.next(request.purpose), http)
            call.fault = fate.fault
            return await self._meet(fate, request, http, call)
        except BadRequest as error:
            body = wire.error(error.message, "invalid_request_error", error.param, error.code)
            return await delivery.refuse(http, call, 400, body)
        except web.HTTPException as error:
            call.status, call.outcome = error.status, Outcome.REFUSED
            raise
        finally:
            self._calls.end(call)

    async def _meet(self, fate: Fate, request: ChatRequest, http: web.Request, call: Call) -> web.StreamResponse:
        if fate.fault is Fault.HANG:
            return await delivery.hang()
        if fate.fault is Fault.RATE_LIMITED:
            return await delivery.rate_limited(http, call, request.model)
        if fate.fault is Fault.SERVER_ERROR:
            return await delivery.server_error(http, call, fate)
        truncated = fate.fault is Fault.TRUNCATED_OUTPUT
        completion = replies.complete(request, self._draws.settings.seed, truncated=truncated)
        call.prompt_tokens = completion.prompt_tokens
        if fate.fault is Fault.CONTEXT_LENGTH:
            return await delivery.context_length_exceeded(http, call)
        call.completion_tokens = completion.completion_tokens
        if request.stream:
            return await delivery.stream(http, call, completion, fate, include_usage=request.include_usage)
        return await delivery.whole(http, call, completion, fate)

    async def models(self, _: web.Request) -> web.Response:
        """List some model names; any name is served."""
        return _json(wire.models(_MODELS))

    async def settings(self, _: web.Request) -> web.Response:
        """Return the settings in force."""
        return _json(orjson.dumps(self._draws.settings.as_json()))

    async def change_settings(self, http: web.Request) -> web.Response:
        """Put the settings of the command line, changed as the body says, in force; calls under way keep theirs."""
        try:
            settings = changed(self._initial, orjson.loads(await http.read()))
        except (SettingsError, orjson.JSONDecodeError) as error:
            return _json(wire.error(str(error), "invalid_request_error"), status=400)
        self._draws = Draws(settings)
        return await self.settings(http)

    async def calls(self, http: web.Request) -> web.Response:
        """Report the calls."""
        since = http.query.get("since", "0")
        if not since.isascii() or not since.isdecimal():
            return _json(
                wire.error("'since' must be the number of a call", "invalid_request_error", "since"), status=400
            )
        return _json(orjson.dumps(self._calls.report(int(since))))

    async def forget_calls(self, _: web.Request) -> web.Response:
        """Clear the log."""
        self._calls.clear()
        return web.Response(status=204)


@contextlib.asynccontextmanager
async def serving(settings: Settings, port: int = 0, host: str = HOST) -> AsyncIterator[str]:
    """Serve; yield the base URL, `/v1` not included. On exit every call is dropped at once.

    Args:
        settings: the behaviour to begin with.
        port: 0 for any free one.
        host: an address of this machine.

    Raises:
        OSError: the port is taken.
    """
    # A caller that goes away must end a hanging call, hence handler_cancellation.
    runner = web.AppRunner(
        Simulator(settings).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        yield f"http://{address_of((host, runner.addresses[0][1]))}"
    finally:
        await runner.cleanup()


@web.middleware
async def _errors_as_openai(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        message = f"{error.reason} ({request.method} {request.path})"
        return _json(wire.error(message, "invalid_request_error"), status=error.status)


def _overridden(fate: Fate, http: web.Request) -> Fate:
    if (kind := http.headers.get(FAULT_HEADER)) is not None:
        try:
            fate = replace(fate, fault=Fault(kind))
        except ValueError as error:
            raise BadRequest(f"{FAULT_HEADER}: unknown fault; known are {', '.join(Fault)}") from error
    if (latency_ms := http.headers.get(LATENCY_HEADER)) is not None:
        if not latency_ms.isascii() or not latency_ms.isdecimal():
            raise BadRequest(f"{LATENCY_HEADER} must be a whole number of milliseconds")
        fate = replace(fate, latency_ms=float(latency_ms))
    return fate


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")
