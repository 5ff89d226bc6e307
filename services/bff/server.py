"""The life of the HTTP server: bind, serve, and leave without cutting a response off.

Mirrors `libs.runtime.server`, which does the same for gRPC.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence

import uvicorn
from starlette.types import ASGIApp

from libs.runtime import logs, telemetry
from libs.runtime.config import Address
from libs.runtime.server import GRACE_SECONDS, NOT_SERVING_SECONDS, settle_heap, stop_signal, until_free
from services.bff.routes import Probes
from services.bff.unparsed import Protocol

# Longer than load balancers keep a connection that nobody uses (60 s), so that they close it first.
KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048


class HttpServer:
    """uvicorn, started and stopped by us. Port 0 takes a free one, found in `port` after `start`."""

    def __init__(self, app: ASGIApp, listen: Address) -> None:
        self._listen = listen
        self.port = listen[1]
        self._server = _Server(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                loop="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(GRACE_SECONDS),
            )
        )

    async def start(self) -> None:
        """Bind and accept. Raises StartError where the port stays taken."""
        await until_free(self._listen)
        family = socket.AF_INET6 if ":" in self._listen[0] else socket.AF_INET
        listening = socket.create_server(self._listen, family=family, backlog=BACKLOG)
        self.port = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve([listening]), name="http server")
        self._serving.add_done_callback(lambda _: self._server.accepting.set())
        await self._server.accepting.wait()
        if self._serving.done():
            await self._serving  # raises what kept it from starting

    async def stop(self) -> None:
        """Stop accepting; return when what was accepted has been answered, or the grace is over."""
        self._server.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, which would stop accepting before anybody had seen /readyz."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()


async def serve(
    server: HttpServer, metrics_listen: Address, probes: Probes, closing: Sequence[Callable[[], Awaitable[object]]] = ()
) -> None:
    """Serve until SIGTERM or SIGINT: then not ready, half a second for others to see it, no more connections, the rest
    of the responses, and what is given to be closed, in that order.

    Raises:
        StartError: a port is taken.
    """
    metrics = telemetry.MetricsServer(metrics_listen, lambda: probes.ready)
    await until_free(metrics_listen)
    await metrics.start()
    await server.start()
    stop = stop_signal()
    settle_heap()
    logs.logger().info("serving", port=server.port, metrics_port=metrics.port)
    await stop.wait()
    logs.logger().info("draining")
    probes.draining = True
    await asyncio.sleep(NOT_SERVING_SECONDS)
    await server.stop()
    for close in closing:
        await close()
    await metrics.stop()
    logs.logger().info("stopped")
