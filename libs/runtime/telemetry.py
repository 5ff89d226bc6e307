"""Logs and metrics of one process: JSON lines on stdout, Prometheus on a port of its own, and the loop's own health.

The standard library's `logging` (grpc, aiohttp, asyncio) ends in the same lines. A log line never holds a message's
text, a token or a key; tracebacks hold frames and the exception's text, no local variables.
"""

import asyncio
import atexit
import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata

import orjson
import structlog
from aiohttp import web
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics, exposition
from structlog.typing import EventDict, WrappedLogger

from libs.runtime import context
from libs.runtime.config import Address

PREFIX = "colloquy_"
# Seconds. RPCs and statements take milliseconds; the last edges are a turn's and a chat's budget.
RPC_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 1.5, 1.65, 2.0, 3.0, 15.0)
STATEMENT_EDGES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LAG_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

FLUSH_AFTER_SECONDS = 0.02
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


class Lines:
    """Log lines on their way to a file descriptor.

    Under load one system call writes many lines: they wait for at most FLUSH_AFTER_SECONDS on a running loop, and for
    nothing outside one or where the line is an error.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending: list[bytes] = []

    def write(self, line: bytes, urgent: bool = False) -> None:
        self._pending.append(line)
        if urgent:
            self.flush()
        elif len(self._pending) == 1:
            try:
                asyncio.get_running_loop().call_later(FLUSH_AFTER_SECONDS, self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # a non-blocking pipe whose reader is slow
                time.sleep(0.001)
            except OSError:  # nobody reads any more: logging must not stop the service
                return


class _Log:
    """Where this process's lines go and what each of them says; `configure` fills it in."""

    def __init__(self) -> None:
        self.lines = Lines(1)
        self.level = logging.INFO
        self.constants: Mapping[str, str] = {"service": "", "version": ""}


_log = _Log()


def configure(service: str, level: str = "info", descriptor: int = 1) -> None:
    """Start logging as `service` at `level` (debug, info, warning, error), once, from `__main__`."""
    version = metadata.version("colloquy")
    _log.lines, _log.level = Lines(descriptor), logging.getLevelNamesMapping()[level.upper()]
    _log.constants = {"service": service, "version": version}
    atexit.register(_log.lines.flush)
    structlog.configure(
        processors=[_render_event],
        wrapper_class=structlog.make_filtering_bound_logger(_log.level),
        logger_factory=_Writer,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Foreign()], level=max(_log.level, logging.WARNING), force=True)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    BUILD_INFO.labels(service, version, platform.python_version()).set(1)


def logger() -> structlog.typing.FilteringBoundLogger:
    """A logger for events: `logger().info("turn_recovered", how="bank")`. Names in snake_case; fields never content."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log


def log_rpc(call: context.Call, code: str, duration_ms: float, level: int, fields: Mapping[str, object]) -> None:
    """The one line that each served call leaves. It skips structlog's chain, which would cost as much again."""
    if level >= _log.level:
        _log.lines.write(
            _line(
                logging.getLevelName(level).lower(),
                "rpc",
                call,
                {"code": code, "duration_ms": round(duration_ms, 3), **fields},
            ),
            urgent=level >= logging.ERROR,
        )


def traceback_text(error: BaseException) -> str:
    """Frames, causes and the exception's text; no local variables, which hold what users said."""
    return "".join(traceback.format_exception(error))


def flush() -> None:
    """Write what is pending now: before the process ends without running its exit handlers."""
    _log.lines.flush()


def _line(level: str, event: str, call: context.Call | None, fields: Mapping[str, object]) -> bytes:
    line: dict[str, object] = {"time": datetime.now(UTC), "level": level, "event": event, **_log.constants}
    if call is not None:
        line["correlation_id"] = call.correlation_id
        line["trace_id"] = call.trace_id
        line.update(call.fields)
        if call.rpc:
            line["rpc"] = call.rpc
    line.update(fields)
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _render_event(_: WrappedLogger, level: str, event: EventDict) -> bytes:
    """structlog's last processor: the event under its own name, an exception as its traceback."""
    raised = event.pop("exc_info", None)
    if raised:
        error = raised if isinstance(raised, BaseException) else sys.exc_info()[1]
        event["exception"] = traceback_text(error) if error else ""
    return _line(level, str(event.pop("event", "")), context.current(), event)


class _Writer:
    """structlog's output: one method for each level."""

    def __init__(self, *_: object) -> None:
        pass

    def info(self, line: bytes) -> None:
        _log.lines.write(line)

    def error(self, line: bytes) -> None:
        _log.lines.write(line, urgent=True)

    debug = warning = msg = info
    critical = exception = fatal = error


class _Foreign(logging.Handler):
    """The standard library's `logging`, in the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1]:
            fields["exception"] = traceback_text(record.exc_info[1])
        line = _line(record.levelname.lower(), "log", context.current(), fields)
        _log.lines.write(line, urgent=record.levelno >= logging.ERROR)


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
        encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ready\n") if self._ready() else web.Response(status=503, text="not ready\n")
