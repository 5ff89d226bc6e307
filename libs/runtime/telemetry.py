"""Metrics of one process, with the contract's names, on a port of its own; and the health of its event loop."""

import asyncio
import platform
from collections.abc import Callable, Sequence
from importlib import metadata

from aiohttp import web
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics, exposition

from libs.runtime import failpoints, logs
from libs.runtime.config import Address
from libs.runtime.logs import LEVELS as LEVELS
from libs.runtime.logs import flush as flush
from libs.runtime.logs import later as later
from libs.runtime.logs import logger as logger

PREFIX = "colloquy_"
# Seconds. RPCs and statements take milliseconds; the last edges are a turn's and a chat's budget.
RPC_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 1.5, 1.65, 2.0, 3.0, 15.0)
STATEMENT_EDGES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LAG_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

_LAG_PERIOD_SECONDS = 0.5


def histogram(name: str, help_text: str, edges: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
    """A histogram named `colloquy_<name>`; the name ends in its unit, the edges are in that unit."""
    return Histogram(PREFIX + name, help_text, labels, buckets=edges)


def counter(name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
    """A counter named `colloquy_<name>`; the name ends in `_total`."""
    return Counter(PREFIX + name, help_text, labels)


def gauge(name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
    """A gauge named `colloquy_<name>`."""
    return Gauge(PREFIX + name, help_text, labels)


EVENT_LOOP_LAG = histogram("event_loop_lag_seconds", "How late a timer of the event loop fires.", LAG_EDGES)
BUILD_INFO = gauge("build_info", "Always 1; the labels say what runs.", ("service", "version", "python"))


def configure(service: str, level: str = "info") -> None:
    """Name the process in its logs and metrics, once, from `__main__`; `level` is one of LEVELS."""
    version = metadata.version("colloquy")
    logs.configure(service, version, level)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    BUILD_INFO.labels(service, version, platform.python_version()).set(1)


async def measure_loop_lag() -> None:
    """Observe, until cancelled, how late the loop's timers fire: the time that something else held the loop."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_PERIOD_SECONDS
        await asyncio.sleep(_LAG_PERIOD_SECONDS)
        EVENT_LOOP_LAG.observe(max(0.0, loop.time() - due))


class MetricsServer:
    """HTTP for operators, on a port of its own: /metrics, /livez (the loop turns) and /readyz (`ready()`)."""

    def __init__(self, listen: Address, ready: Callable[[], bool]) -> None:
        self._listen = listen
        self._ready = ready
        app = web.Application()
        app.add_routes(
            [web.get("/metrics", self._metrics), web.get("/livez", self._livez), web.get("/readyz", self._readyz)]
        )
        app.add_routes(failpoints.routes())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self._lag: asyncio.Task[None] | None = None
        self.port = listen[1]

    async def start(self) -> None:
        """Raises OSError where the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._listen).start()
        self.port = self._runner.addresses[0][1]
        self._lag = asyncio.create_task(measure_loop_lag(), name="event loop lag")

    async def stop(self) -> None:
        if self._lag:
            self._lag.cancel()
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        flush()
        encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ready\n") if self._ready() else web.Response(status=503, text="not ready\n")
