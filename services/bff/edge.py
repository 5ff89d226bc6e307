"""The outermost layer: what every request gets and every response carries, whatever route answers, if any.

A plain ASGI application: a layer of Starlette's BaseHTTPMiddleware would cost a task group for each request and stand
between a stream and its client.
"""

import asyncio
import time
from time import perf_counter

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.runtime import context, logs, telemetry
from services.bff.exchange import DisconnectedError, Exchange

HTTP_SECONDS = telemetry.histogram(
    "http_server_seconds",
    "From a request's headers to the end of its response.",
    telemetry.RPC_EDGES,
    ("route", "method", "status"),
)
CLIENT_LEFT = 499  # nginx's status for a client that did not wait; it is never sent

# How long a client may go on sending what was refused, before its connection is closed. Closed at once, the kernel
# would answer what still arrives with a reset, which may reach the client before the response (RFC 9112, section 9.6).
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES = frozenset({"/livez", "/readyz"})


class Edge:
    """Wraps the application: body limit, correlation id, common headers, metric and log line; HEAD for every GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._seconds: dict[tuple[str, str, int], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        method = scope["method"]
        # The server drops the body of a response to HEAD by the scope that it keeps.
        inner = {**scope, "method": "GET"} if method == "HEAD" else scope
        exchange = Exchange(inner)
        outgoing = _Outgoing(exchange, started, receive, send)
        try:
            await exchange.read_body(receive)
            await self._app(inner, receive, outgoing.send)
        except DisconnectedError:
            outgoing.status = CLIENT_LEFT
        except Exception as error:  # the application has answered 500 and raised again, for us to say so
            logs.logger().error("request_failed", exc_info=error)
        finally:
            route = getattr(inner.get("route"), "path", "unknown")
            method = method if method in _METHODS else "other"
            seconds = perf_counter() - started
            logs.later(self._leave, context.current(), route, method, outgoing.status, time.time(), seconds)

    def _leave(
        self, call: context.Call | None, route: str, method: str, status: int, at: float, seconds: float
    ) -> bytes:
        child = self._seconds.get((route, method, status))
        if child is None:
            child = HTTP_SECONDS.labels(route, method, str(status))
            self._seconds[route, method, status] = child
        child.observe(seconds)
        fields = {"rpc": f"{method} {route}", "code": status, "duration_ms": round(seconds * 1000, 3)}
        return logs.line(_level(route, status), "http", at, call, fields)


class _Outgoing:
    """The response on its way out."""

    __slots__ = ("_exchange", "_lingers", "_receive", "_send", "_started", "status")

    def __init__(self, exchange: Exchange, started: float, receive: Receive, send: Send) -> None:
        self._exchange, self._started, self._receive, self._send = exchange, started, receive, send
        self._lingers = False
        self.status = CLIENT_LEFT

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"].extend(self._common_headers())
        elif self._lingers and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    def _common_headers(self) -> list[tuple[bytes, bytes]]:
        exchange = self._exchange
        timing = [f"bff;dur={(perf_counter() - self._started) * 1000:.1f}"]
        if exchange.gateway_ms:
            timing.append(f"gateway;dur={exchange.gateway_ms:.1f}")
        timing += [f"{stage};dur={duration_ms:.1f}" for stage, duration_ms in exchange.stages]
        headers = [
            (b"x-correlation-id", context.correlation_id().encode()),
            (b"cache-control", b"no-store"),
            (b"server-timing", ", ".join(timing).encode()),
        ]
        if exchange.replayed:
            headers.append((b"idempotency-replayed", b"true"))
        if not exchange.body_is_read:
            self._lingers = True
            headers.append((b"connection", b"close"))
        return headers

    async def _drain(self) -> None:
        """Let the client finish sending what nobody will read, within bounds."""
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return


def _level(route: str, status: int) -> str:
    if route in _PROBES:
        return "debug"  # what they say is logged when it changes
    if status >= 500:
        return "error" if status == 500 else "warning"
    return "info"
