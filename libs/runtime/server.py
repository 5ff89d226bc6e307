"""The life of a service's process: bind, become ready, serve, and leave without losing a call.

A service's `__main__` is one straight line:

    async def main(env: Env) -> None:
        settings = read(env)
        env.check()
        telemetry.configure("history", settings.log_level)
        database = Database(settings.database_url, "history")
        servicer = HistoryServicer(UseCases(Store(database)))
        register = [partial(add_HistoryServiceServicer_to_server, servicer)]
        server = Server("history", settings.listen, register, ready=...)
        await serve(server, settings.metrics_listen, closing=[database.close])

    if __name__ == "__main__":
        raise SystemExit(run(main(Env(os.environ))))
"""

import asyncio
import errno
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from libs.runtime import interceptor, telemetry
from libs.runtime.background import Background as Background
from libs.runtime.config import Address, ConfigError, address_of
from libs.runtime.health import Health

LEVELS = tuple(telemetry.LEVELS)
BIND_RETRY_SECONDS = 2.0
TIME_WAIT_SECONDS = 65.0  # Linux keeps the address of a connection that has ended for 60 s
NOT_SERVING_SECONDS = 0.5
GRACE_SECONDS = 20.0  # above the longest turn, a chat's 15 s
READINESS_PERIOD_SECONDS = 1.0
FIRST_ANSWER_SECONDS = 10.0
READINESS_SECONDS = 2.5  # above the time that a database may take to refuse a connection

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port would steal calls silently
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),  # what is above our own limit, we refuse ourselves
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

_Handlers: TypeAlias = "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
Register = Callable[[grpc.aio.Server], None]
Readiness = Callable[[], Awaitable[bool]]


class StartError(Exception):
    """The process cannot start; the text tells the operator what to look for."""


class _Registrar:
    """Stands where generated code expects a server, and keeps what it registers, wrapped."""

    def __init__(self) -> None:
        self.handlers: dict[str, _Handlers] = {}

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Generated code offers each handler twice; the other offer names the service."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: _Handlers) -> None:
        self.handlers[service_name] = {
            name: interceptor.wrap(f"{service_name}/{name}", handler) for name, handler in method_handlers.items()
        }


async def _always_ready() -> bool:
    return True


class Server:
    """A gRPC server with health, reflection and a drain that loses no call.

    Args:
        listen: host and port; port 0 takes a free one, found in `port` after `start`.
        register: generated `add_..._to_server` functions with their servicer bound (functools.partial).
        ready: asked about once a second; NOT_SERVING while it says no, raises or takes too long.
        background: tasks that the drain awaits once the last call has ended.
    """

    def __init__(
        self,
        service: str,
        listen: Address,
        register: Sequence[Register],
        ready: Readiness = _always_ready,
        background: Background | None = None,
    ) -> None:
        registrar = _Registrar()
        for add in register:
            add(cast(grpc.aio.Server, registrar))
        self.service, self.port = service, listen[1]
        self.health = Health(["", *registrar.handlers])
        self.background = background or Background()
        self._listen, self._handlers, self._ready = listen, registrar.handlers, ready
        self._cause = ""
        self._answered = asyncio.Event()

    async def start(self) -> None:
        """Bind, serve, and ask for the first time whether it is ready.

        Raises:
            StartError: the port stayed taken, see `until_free`.
        """
        self._server = await self._bind()
        await self._server.start()
        await self._ask_readiness()
        self._readiness = asyncio.create_task(self._keep_asking(), name="readiness")

    async def answered(self) -> None:
        """Return once what its readiness depends on has answered, whether ready or not: it is there.

        A database that goes away later is waited for; one that never was there is, as a rule, a wrong address.

        Raises:
            StartError: it has not answered within FIRST_ANSWER_SECONDS.
        """
        try:
            async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                await self._answered.wait()
        except TimeoutError:
            raise StartError(
                f"{self.service} gets no answer from its database ({self._cause}): is it up, and is its URL right?"
            ) from None

    async def drain(self) -> None:
        """NOT_SERVING, half a second for clients to see it, then end: calls in flight first, background tasks next."""
        self._readiness.cancel()
        self.health.set(False)
        await asyncio.sleep(NOT_SERVING_SECONDS)
        self.health.end_watches()
        await self._server.stop(GRACE_SECONDS)
        await self.background.drain(GRACE_SECONDS)

    async def _bind(self) -> grpc.aio.Server:
        await until_free(self._listen)
        server = self._construct()
        try:
            self.port = server.add_insecure_port(address_of(self._listen))
        except RuntimeError:
            raise StartError(busy(address_of(self._listen))) from None
        return server

    def _construct(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=_OPTIONS)
        for name, handlers in self._handlers.items():
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, dict(handlers))])
            server.add_registered_method_handlers(name, handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        reflection.enable_server_reflection([*self._handlers, health_name, reflection.SERVICE_NAME], server)
        server.add_generic_rpc_handlers([interceptor.Unknown()])
        return server

    async def _ask_readiness(self) -> None:
        cause = ""
        try:
            async with asyncio.timeout(READINESS_SECONDS):
                ready = await self._ready()
                self._answered.set()
        except Exception as error:
            ready, cause = False, f"{type(error).__name__}: {error.__cause__ or error}"[:300]
        if ready != self.health.serving or (cause and cause != self._cause):
            telemetry.logger().info("readiness", ready=ready, cause=cause)
        self._cause = cause
        self.health.set(ready)

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(READINESS_PERIOD_SECONDS)
            await self._ask_readiness()


async def until_free(listen: Address) -> None:
    """Return once the address can be bound: at once as a rule, else within two seconds, or 65 where nobody listens.

    The default ports lie in Linux's ephemeral range, so an outgoing connection may have one; and where that has just
    ended, nobody can listen there for a minute. Nobody answers there either, and so it is waited for. It is tried with
    a socket of our own, as gRPC writes to stderr whenever it fails.

    Raises:
        StartError: it stays taken, or is no address of this machine.
    """
    host, port = listen
    loop = asyncio.get_running_loop()
    began, told = loop.time(), False
    while True:
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StartError(f"cannot listen on {address_of(listen)}: {error.strerror}") from error
            waited = loop.time() - began
            if waited >= TIME_WAIT_SECONDS or (waited >= BIND_RETRY_SECONDS and await _somebody_listens(listen)):
                raise StartError(busy(address_of(listen))) from error
            if waited >= BIND_RETRY_SECONDS and not told:
                told = True
                telemetry.logger().info("waiting_for_port", address=address_of(listen), seconds=TIME_WAIT_SECONDS)
        await asyncio.sleep(0.1)


async def _somebody_listens(address: Address) -> bool:
    try:
        async with asyncio.timeout(BIND_RETRY_SECONDS):
            _, writer = await asyncio.open_connection(*address)
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError):
        return True
    writer.close()
    return True


def busy(address: str) -> str:
    """What to tell the operator about an address that stays taken."""
    port = address.rpartition(":")[2]
    return f"cannot listen on {address}: another process has the port; `ss -tanp 'sport = :{port}'` names it"


async def serve(
    server: Server, metrics_listen: Address, closing: Sequence[Callable[[], Awaitable[object]]] = ()
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and close what is given, in that order.

    Raises:
        StartError: a port is taken, or the database was never reached.
    """
    metrics = telemetry.MetricsServer(metrics_listen, lambda: server.health.serving)
    await until_free(metrics_listen)
    await metrics.start()
    await server.start()
    stop = stop_signal()  # not before: until there is something to drain, a signal ends the process at once
    settle_heap()
    telemetry.logger().info("serving", port=server.port, metrics_port=metrics.port)
    answered, stopped = asyncio.create_task(server.answered()), asyncio.create_task(stop.wait())
    await asyncio.wait({answered, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if answered.done():
        answered.result()
    answered.cancel()
    await stopped
    telemetry.logger().info("draining")
    await server.drain()
    for close in closing:
        await close()
    await metrics.stop()
    telemetry.logger().info("stopped")


def settle_heap() -> None:
    """Keep what importing and constructing made out of later collections: each would stop the loop for 65 ms.

    What calls leave behind is nearly all freed by its reference counts, so the rest is looked for less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def run(main: Coroutine[Any, Any, None]) -> int:
    """Run a service on uvloop (asyncio where there is none) to its exit code; what keeps it from starting is one line
    for each problem on stderr, and 1."""
    try:
        if sys.platform == "win32":
            asyncio.run(main)
        else:
            import uvloop

            uvloop.run(main)
    except ConfigError as error:
        return _refuse(error.problems)
    except StartError as error:
        return _refuse([str(error)])
    except KeyboardInterrupt:  # before there was a handler for it
        return 130
    return 0


def _refuse(problems: Sequence[str]) -> int:
    telemetry.flush()
    sys.stderr.write("".join(f"colloquy: {problem}\n" for problem in problems))
    return 1
