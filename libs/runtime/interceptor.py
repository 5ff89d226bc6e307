"""Everything that happens around a servicer's method, in one layer: who asked and until when, what went wrong, and the
metric and the log line it leaves.

Handlers are wrapped once, when they are registered; a `grpc.aio.ServerInterceptor` would be asked again for every
call, through two more coroutines. A servicer's method is a coroutine function, or for a stream an async generator
function, and raises `ColloquyError`s. Any other exception reaches the client as INTERNAL, its text only our log.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError
from prometheus_client import Histogram

from libs.runtime import context, logs, status, telemetry
from libs.runtime.client import MAX_REQUEST_BYTES
from libs.runtime.errors import ColloquyError, Internal, Malformed, TooLarge, Unimplemented

RPC_SECONDS = telemetry.histogram(
    "rpc_server_seconds", "From a request's arrival to its status.", telemetry.RPC_EDGES, ("method", "code")
)
_LEVELS = {
    "INTERNAL": "error",
    "UNAVAILABLE": "warning",
    "DEADLINE_EXCEEDED": "warning",
    "CANCELLED": "warning",
}
_CAUSE_CHARS = 300
_NONE: Mapping[str, object] = {}

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
# Generic in the type stubs only.
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def wrap(method: str, handler: _Handler) -> _Handler:
    """The handler to register in place of the one that generated code made.

    Args:
        method: `package.Service/Method`, the value of the metric's label and of the log line's `rpc`.

    Raises:
        TypeError: the request is a stream, which no contract of ours has.
    """
    behaviour: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
    if handler.request_streaming or behaviour is None:
        raise TypeError(f"{method}: requests are not streams here")
    # gRPC is given no deserializer: what it cannot read it would tell the client in its own words, unlogged.
    served = _Served(method, handler.request_deserializer or _as_it_came)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(
            served.stream(behaviour), response_serializer=handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(served.unary(behaviour), response_serializer=handler.response_serializer)


class _Served:
    """One method's surroundings, with its metric's children at hand."""

    def __init__(self, method: str, deserialize: Callable[[bytes], Any]) -> None:
        self._method = method
        self._deserialize = deserialize
        self._seconds: dict[str, Histogram] = {}

    def unary(
        self, behaviour: Callable[[_Request, _Context], Awaitable[_Response]]
    ) -> Callable[[bytes, _Context], Awaitable[_Response]]:
        async def serve(request: bytes, rpc: _Context) -> _Response:
            started = time.perf_counter()
            call = self._begin(rpc)
            try:
                response = await behaviour(self._read(request), rpc)
            except (Exception, asyncio.CancelledError) as raised:
                await self._fail(raised, rpc, call, started)
            self._finish(call, started, "OK", _NONE)
            return response

        return serve

    def stream(
        self, behaviour: Callable[[_Request, _Context], AsyncGenerator[_Response, None]]
    ) -> Callable[[bytes, _Context], Awaitable[None]]:
        async def serve(request: bytes, rpc: _Context) -> None:
            started = time.perf_counter()
            call = self._begin(rpc)
            try:
                async with aclosing(behaviour(self._read(request), rpc)) as messages:
                    async for message in messages:
                        await rpc.write(message)
            except (Exception, asyncio.CancelledError) as raised:
                await self._fail(raised, rpc, call, started)
            self._finish(call, started, "OK", _NONE)

        return serve

    def _begin(self, rpc: _Context) -> context.Call:
        left = rpc.time_remaining()
        metadata: Any = rpc.invocation_metadata()  # a tuple of pairs, whatever the stub says
        return context.begin(dict(metadata), budget_ms=None if left is None else left * 1000, rpc=self._method)

    def _read(self, request: bytes) -> Any:
        if len(request) > MAX_REQUEST_BYTES:
            raise TooLarge
        try:
            return self._deserialize(request)
        except DecodeError:  # its text names our types
            raise Malformed from None

    async def _fail(self, raised: BaseException, rpc: _Context, call: context.Call, started: float) -> NoReturn:
        if isinstance(raised, asyncio.CancelledError) and _caller_has_gone(rpc):
            late = went_at_its_deadline(context.remaining_ms(), (time.perf_counter() - started) * 1000)
            self._finish(call, started, "DEADLINE_EXCEEDED" if late else "CANCELLED", _NONE)
            raise raised
        error = _typed(raised)
        code = status.CODES[error.reason]
        fields: dict[str, object] = {"reason": error.reason.value}
        if isinstance(error, Internal):
            fields["exception"] = logs.traceback_text(raised)
        elif error.__cause__:
            fields["cause"] = f"{type(error.__cause__).__name__}: {error.__cause__}"[:_CAUSE_CHARS]
        self._finish(call, started, code.name, fields)
        await rpc.abort(code, error.detail, status.trailers(error))

    def _finish(self, call: context.Call, started: float, code: str, fields: Mapping[str, object]) -> None:
        logs.later(self._leave, call, code, time.time(), time.perf_counter() - started, fields)
        if _LEVELS.get(code) == "error":
            logs.flush()

    def _leave(self, call: context.Call, code: str, at: float, seconds: float, fields: Mapping[str, object]) -> bytes:
        child = self._seconds.get(code)
        if child is None:
            child = self._seconds[code] = RPC_SECONDS.labels(self._method, code)
        child.observe(seconds)
        fields = {"code": code, "duration_ms": round(seconds * 1000, 3), **fields}
        return logs.line(_LEVELS.get(code, "info"), "rpc", at, call, fields)


class Unknown(grpc.GenericRpcHandler):
    """The handler of last resort: what nobody else serves is UNIMPLEMENTED, in the words of every other error.

    One name in the metric and the log stands for all of them: callers could make up any number.
    """

    def __init__(self) -> None:
        self._handler = wrap("unknown", grpc.unary_unary_rpc_method_handler(_refuse))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler:  # noqa: ARG002 (gRPC's signature)
        return self._handler


async def _refuse(_: bytes, __: _Context) -> NoReturn:
    raise Unimplemented


def _as_it_came(request: bytes) -> bytes:
    return request


def went_at_its_deadline(left_ms: float | None, elapsed_ms: float) -> bool:
    """Whether a caller who has gone went because its time was up: a fiftieth of it, or less, was left here.

    The server's clock runs out later than the caller's: gRPC sends a deadline rounded up, above a second by as much as
    one per cent (10 ms below ten seconds, 100 ms above), and the request has been on its way.

    Args:
        left_ms: before the deadline as the server has it; None where there is none.
        elapsed_ms: since the request arrived.
    """
    return left_ms is not None and left_ms * 50 <= left_ms + elapsed_ms


def _caller_has_gone(rpc: _Context) -> bool:
    """Whether a CancelledError is the caller's. One from an inner task or call, let through, would hang the caller."""
    task = asyncio.current_task()
    return rpc.done() or (task is not None and task.cancelling() > 0)


def _typed(raised: BaseException) -> ColloquyError:
    if isinstance(raised, ColloquyError):
        return raised
    return Unimplemented() if isinstance(raised, NotImplementedError) else Internal()
