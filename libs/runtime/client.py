"""Calls to other services: always a deadline, the same typed errors as in process, cancelled when nobody listens.

A thin function over a stub's method: gRPC's own client interceptors cost two tasks a call.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import TypeVar

import grpc

from libs.runtime import context, failpoint_calls, status
from libs.runtime.errors import DeadlineExceeded, Unavailable

DEFAULT_CAP_MS = 150
MAX_REQUEST_BYTES = 256 * 1024
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

# Every RPC of ours is idempotent by its request id, so a connection that broke under a call is worth another try, once
# a replica that answers is found; a servicer's own UNAVAILABLE says not to (see status.trailers). The tries go on for
# about half a second: a replica that has just come is found within a quarter of one (see _OPTIONS), also where the only
# other one leaves in that moment.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.04s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),  # refused here at once; the server takes its time to refuse
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),  # whatever its name says, how long a connection may take to come about
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 3_000),
)


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel for the process's life, one for each target; `await channel.close()` when draining.

    Args:
        target: a gRPC target. Where it names many addresses, calls go round them, past those that are not SERVING.
    """
    return grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=failpoint_calls.interceptors())


async def call(
    method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]", request: _Request, cap_ms: float = DEFAULT_CAP_MS
) -> _Response:
    """Call a stub's unary method, within the smaller of `cap_ms` and what is left of the served call's deadline.

    Raises:
        ColloquyError: the subclass that the server raised; Unavailable or DeadlineExceeded where it did not answer.
    """
    rpc = method(request, timeout=_timeout_seconds(cap_ms), metadata=_metadata())
    try:
        return await rpc
    except grpc.aio.AioRpcError as failure:
        raise status.decode(failure) from failure
    except asyncio.CancelledError:
        if _is_being_cancelled():
            raise
        raise Unavailable from None


async def stream(
    method: "grpc.aio.UnaryStreamMultiCallable[_Request, _Response]", request: _Request, cap_ms: float
) -> AsyncGenerator[_Response, None]:
    """Iterate over a stub's server stream, like `call`; leaving early cancels the stream at the server.

    `break` cancels at once in CPython. Where it must not depend on that, use `contextlib.aclosing`.
    """
    rpc = method(request, timeout=_timeout_seconds(cap_ms), metadata=_metadata())
    try:
        async for message in rpc:
            yield message
    except grpc.aio.AioRpcError as failure:
        raise status.decode(failure) from failure
    except asyncio.CancelledError:
        if _is_being_cancelled():
            raise
        raise Unavailable from None
    finally:
        rpc.cancel()


def _timeout_seconds(cap_ms: float) -> float:
    left_ms = context.remaining_ms()
    if left_ms is not None and left_ms < cap_ms:
        cap_ms = left_ms
    if cap_ms <= 0:
        raise DeadlineExceeded
    return cap_ms / 1000


def _metadata() -> grpc.aio.Metadata:
    call = context.current()
    if call is None:
        return grpc.aio.Metadata()
    if not isinstance(call.outgoing, grpc.aio.Metadata):
        call.outgoing = grpc.aio.Metadata(*call.identity())
    return call.outgoing


def _is_being_cancelled() -> bool:
    """Whether a CancelledError is this task's own; else the call was cut under it, as by a channel that closes."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
