"""The failpoints of calls to other services, as interceptors of a channel. It has none where failpoints are not asked
for: they cost each call two tasks.

A fault is had where a network would have it: under the caller's deadline, above gRPC's own retries.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import grpc
from grpc.aio import AioRpcError, ClientCallDetails, Metadata

from libs.runtime import failpoints
from libs.runtime.failpoints import Points

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

if TYPE_CHECKING:  # generic in the type stubs only
    Unary = grpc.aio.UnaryUnaryCall[_Request, _Response]
    Stream = grpc.aio.UnaryStreamCall[_Request, _Response]


def interceptors() -> Sequence[grpc.aio.ClientInterceptor]:
    """What a new channel is to have."""
    points = failpoints.asked_for()
    return () if points is None else (_Unary(points), _Stream(points))


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, points: Points) -> None:
        self._points = points

    async def intercept_unary_unary(
        self,
        continuation: "Callable[[ClientCallDetails, _Request], Awaitable[Unary[_Request, _Response]]]",
        client_call_details: ClientCallDetails,
        request: _Request,
    ) -> "Unary[_Request, _Response]":
        async with _around(self._points, client_call_details):
            rpc = await continuation(client_call_details, request)
            await rpc
        return rpc


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, points: Points) -> None:
        self._points = points

    async def intercept_unary_stream(
        self,
        continuation: "Callable[[ClientCallDetails, _Request], Awaitable[Stream[_Request, _Response]]]",
        client_call_details: ClientCallDetails,
        request: _Request,
    ) -> AsyncIterator[_Response]:
        rpc = None
        try:
            async with _around(self._points, client_call_details):
                rpc = await continuation(client_call_details, request)
                messages = aiter(rpc)
                first = await anext(messages, None)
        except BaseException:
            if rpc is not None:
                rpc.cancel()
            raise
        return _chained(first, messages)


@asynccontextmanager
async def _around(points: Points, details: ClientCallDetails) -> AsyncIterator[None]:
    method: str | bytes = details.method  # bytes, whatever the type stub says
    path = method if isinstance(method, str) else method.decode()
    try:
        async with asyncio.timeout(details.timeout), points.around(path, _broken):
            yield
    except TimeoutError:
        raise _failure(grpc.StatusCode.DEADLINE_EXCEEDED) from None


async def _chained(first: _Response | None, rest: AsyncIterator[_Response]) -> AsyncIterator[_Response]:
    if first is not None:
        yield first
    async for message in rest:
        yield message


def _broken(_: bool) -> Exception:
    return _failure(grpc.StatusCode.UNAVAILABLE)


def _failure(code: grpc.StatusCode) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), "failpoint")
