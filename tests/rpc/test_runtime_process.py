"""The life of a service's process: start, readiness, metrics, and a drain that loses no call.

Run as a script, this file is that service; the tests start it, talk to it and signal it.
"""

import asyncio
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from libs.runtime import context, server, telemetry
from libs.runtime.client import call, open_channel
from libs.runtime.config import Env
from libs.runtime.errors import Unavailable
from libs.runtime.server import Background, Server, StartError, run, serve
from tests.ports import free_ports

SERVICE = "colloquy.test.v1.SlowService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PATIENCE_SECONDS = 15
AWAY_SECONDS = 3  # so long that a caller asks for the replica that is away as seldom as it ever does


async def main(env: Env) -> None:
    """The service: `Sleep` takes as long as it is told, and leaves work behind that takes as long again."""
    listen = env.listen("LISTEN", "127.0.0.1:0")
    metrics = env.listen("METRICS_LISTEN", "127.0.0.1:0")
    ready_file = Path(env.text("READY_FILE"))
    env.check()
    telemetry.configure("slow")
    background = Background()

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        telemetry.logger().info("work_done", left_ms=context.remaining_ms())

    async def sleep(request: StringValue, _: Any) -> StringValue:
        background.spawn(work(2 * float(request.value)), name="work")
        await asyncio.sleep(float(request.value))
        return request

    def register(grpc_server: grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(sleep, StringValue.FromString, StringValue.SerializeToString)
        grpc_server.add_registered_method_handlers(SERVICE, {"Sleep": handler})

    async def ready() -> bool:
        return await asyncio.to_thread(ready_file.exists)

    async def closed() -> None:
        telemetry.logger().info("closed")

    await serve(Server("slow", listen, [register], ready, background), metrics, closing=[closed])


class Process:
    """The service under way, and what it has logged."""

    def __init__(self, child: asyncio.subprocess.Process, ready_file: Path) -> None:
        self.child, self.ready_file = child, ready_file
        self.lines: list[dict[str, Any]] = []
        self._grown = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())  # all the time: a full pipe would stop the service

    def connect(self, port: int, metrics_port: int) -> None:
        self.port, self.metrics_port = port, metrics_port
        self.channel = open_channel(f"127.0.0.1:{port}")
        # Not over our own channel: it heeds the health that is asked for here.
        self.plain = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.health: Any = health_pb2_grpc.HealthStub(self.plain)
        self.reflection: Any = reflection_pb2_grpc.ServerReflectionStub(self.plain)  # type: ignore[arg-type]
        self.sleep: Any = self.channel.unary_unary(
            f"/{SERVICE}/Sleep", StringValue.SerializeToString, StringValue.FromString
        )

    async def http(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.metrics_port}{path}") as reply,
        ):
            return reply.status, await reply.text()

    async def line(self, event: str) -> dict[str, Any]:
        """The first line about an event, as soon as there is one."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._grown:
            while not (found := [line for line in self.lines if line["event"] == event]):
                await self._grown.wait()
            return found[0]

    async def end(self) -> int:
        """Its exit code, once it has ended and all its lines are read."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._reading
            return await self.child.wait()

    async def _read(self) -> None:
        assert self.child.stdout is not None
        while text := await self.child.stdout.readline():
            async with self._grown:
                self.lines.append(json.loads(text))
                self._grown.notify_all()


async def spawn(ready_file: Path, stderr: int | None = None, **variables: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), "READY_FILE": str(ready_file), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )


@asynccontextmanager
async def running(tmp_path: Path, port: int = 0) -> AsyncIterator[Process]:
    (tmp_path / "ready").touch()
    child = await spawn(tmp_path / "ready", LISTEN=f"127.0.0.1:{port}")
    process = Process(child, tmp_path / "ready")
    try:
        started = await process.line("serving")
        process.connect(started["port"], started["metrics_port"])
        yield process
        await process.channel.close()
        await process.plain.close()
    finally:
        if child.returncode is None:
            child.kill()
        await process.end()


@asynccontextmanager
async def called(*ports: int) -> AsyncIterator[Any]:
    """Eight callers go round these replicas for the length of the block, and every call of theirs is answered."""
    channel = open_channel("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports))
    sleep: Any = channel.unary_unary(f"/{SERVICE}/Sleep", StringValue.SerializeToString, StringValue.FromString)
    over = False

    async def keep_calling() -> None:
        await call(sleep, StringValue(value="0.01"), 5000)
        while not over:
            await call(sleep, StringValue(value="0.01"), 5000)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(keep_calling())
        yield sleep
        over = True
    await channel.close()


async def statuses(watch: AsyncIterator[Any], last: int) -> list[int]:
    """What a Watch says, up to `last`."""
    said: list[int] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for answer in watch:
            said.append(answer.status)
            if answer.status == last:
                break
    return said


async def test_a_drain_loses_no_call_and_no_background_work(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        watch = process.health.Watch(health_pb2.HealthCheckRequest())
        assert await statuses(watch, SERVING) == [SERVING]
        in_flight = asyncio.create_task(call(process.sleep, StringValue(value="0.8"), 5000))
        arrived = asyncio.create_task(call(process.sleep, StringValue(value="0"), 5000))
        await arrived

        process.child.send_signal(signal.SIGTERM)
        await process.line("draining")

        assert await statuses(watch, NOT_SERVING) == [NOT_SERVING]
        assert await process.http("/readyz") == (503, "not ready\n")
        assert await process.http("/livez") == (200, "ok\n")
        assert (await in_flight).value == "0.8"
        assert await process.end() == 0

    events = [line["event"] for line in process.lines]
    assert events[-4:] == ["rpc", "work_done", "closed", "stopped"]
    done = next(line for line in reversed(process.lines) if line["event"] == "work_done")
    assert done["left_ms"] is None
    assert done["correlation_id"]


async def test_callers_of_many_replicas_lose_no_call_when_one_drains_and_another_is_killed(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as drained,
        running(tmp_path) as killed,
        running(tmp_path) as kept,
        called(drained.port, killed.port, kept.port) as sleep,
    ):
        drained.child.send_signal(signal.SIGTERM)
        assert await drained.end() == 0
        killed.child.kill()
        await killed.child.wait()
        await call(sleep, StringValue(value="0.3"), 5000)


async def test_callers_lose_no_call_when_a_replica_drains_as_soon_as_the_other_has_come(tmp_path: Path) -> None:
    [port] = free_ports(1)
    async with AsyncExitStack() as stays, running(tmp_path) as leaves, called(port, leaves.port):
        await asyncio.sleep(AWAY_SECONDS)
        await stays.enter_async_context(running(tmp_path, port))
        leaves.child.send_signal(signal.SIGTERM)
        assert await leaves.end() == 0


async def test_an_idle_drain_takes_little_more_than_half_a_second(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        await statuses(process.health.Watch(health_pb2.HealthCheckRequest()), SERVING)
        began = time.monotonic()
        process.child.send_signal(signal.SIGINT)

        assert await process.end() == 0

    assert 0.5 <= time.monotonic() - began < 5


async def test_readiness_follows_its_check_within_about_a_second(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        watch = process.health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert await statuses(watch, SERVING) == [SERVING]
        assert await process.http("/readyz") == (200, "ready\n")

        process.ready_file.unlink()

        assert await statuses(watch, NOT_SERVING) == [NOT_SERVING]
        assert (await process.health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        assert (await process.http("/readyz"))[0] == 503
        with pytest.raises(Unavailable):  # the client's own health check takes the replica out
            await until_refused(lambda: call(process.sleep, StringValue(value="0"), 5000))


async def test_health_knows_its_services_only(tmp_path: Path) -> None:
    unknown = health_pb2.HealthCheckRequest(service="colloquy.other.v1.OtherService")

    async with running(tmp_path) as process:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await process.health.Check(unknown)
        watch = process.health.Watch(unknown)
        assert await statuses(watch, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_metrics_hold_the_call_the_build_and_the_loop(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        await call(process.sleep, StringValue(value="0"), 5000)

        code, text = await process.http("/metrics")

    assert code == 200
    assert f'colloquy_rpc_server_seconds_count{{code="OK",method="{SERVICE}/Sleep"}} 1.0' in text
    assert 'colloquy_build_info{python="' in text
    assert "colloquy_event_loop_lag_seconds_bucket" in text
    assert "_created" not in text


async def test_reflection_names_the_services(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        replies = [reply async for reply in process.reflection.ServerReflectionInfo(iter(asked))]

    names = {it.name for it in replies[0].list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.mark.parametrize("variable", ["LISTEN", "METRICS_LISTEN"])
async def test_a_busy_port_ends_the_start_with_a_line_that_says_what_to_look_for(tmp_path: Path, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = await spawn(tmp_path / "ready", asyncio.subprocess.PIPE, **{variable: f"127.0.0.1:{port}"})
        _, stderr = await asyncio.wait_for(child.communicate(), PATIENCE_SECONDS)

    assert child.returncode == 1
    assert stderr.decode() == (
        f"colloquy: cannot listen on 127.0.0.1:{port}: another process has the port; "
        f"`ss -tanp 'sport = :{port}'` names it\n"
    )


async def test_a_port_that_becomes_free_in_time_is_taken() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port: int = taken.getsockname()[1]
    grpc_server = Server("late", ("127.0.0.1", port), [])
    asyncio.get_running_loop().call_later(0.3, taken.close)

    await grpc_server.start()

    assert grpc_server.port == port
    await grpc_server.drain()


async def test_a_port_that_somebodys_connection_has_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as far, socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", 0))
        port = outgoing.getsockname()[1]
        outgoing.connect(far.getsockname())
        late = Server("late", ("127.0.0.1", port), [])
        starting = asyncio.create_task(late.start())

        done, _ = await asyncio.wait([starting], timeout=server.BIND_RETRY_SECONDS + 0.5)
        assert not done
        outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that it ends for good

    await asyncio.wait_for(starting, PATIENCE_SECONDS)
    assert late.port == port
    await late.drain()


async def test_a_second_server_cannot_share_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BIND_RETRY_SECONDS", 0)
    first = Server("first", ("127.0.0.1", 0), [])
    await first.start()

    with pytest.raises(StartError):
        await Server("second", ("127.0.0.1", first.port), []).start()

    await first.drain()


async def test_wrong_configuration_is_one_line_a_problem(tmp_path: Path) -> None:
    child = await spawn(tmp_path / "ready", asyncio.subprocess.PIPE, LISTEN="nowhere", METRICS_LISTEN="0.0.0.0:1")
    _, stderr = await asyncio.wait_for(child.communicate(), PATIENCE_SECONDS)

    assert child.returncode == 1
    assert [line.split()[1] for line in stderr.decode().splitlines()] == ["LISTEN", "METRICS_LISTEN"]


async def test_a_readiness_check_that_fails_or_hangs_means_not_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READINESS_SECONDS", 0.05)

    async def fail() -> bool:
        raise Unavailable

    async def hang() -> bool:
        await asyncio.Event().wait()
        return True

    for check in (fail, hang):
        grpc_server = Server("unready", ("127.0.0.1", 0), [], check)
        await grpc_server.start()
        assert grpc_server.health.serving is False
        await grpc_server.drain()


async def test_a_database_that_never_answers_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_ANSWER_SECONDS", 0.1)

    async def absent() -> bool:
        raise Unavailable

    grpc_server = Server("early", ("127.0.0.1", 0), [], absent)
    await grpc_server.start()

    with pytest.raises(StartError, match="early gets no answer from its database"):
        await grpc_server.answered()
    await grpc_server.drain()


async def test_a_database_that_is_there_and_not_migrated_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_ANSWER_SECONDS", 0.1)

    async def not_migrated() -> bool:
        return False

    grpc_server = Server("early", ("127.0.0.1", 0), [], not_migrated)
    await grpc_server.start()

    await grpc_server.answered()
    assert grpc_server.health.serving is False
    await grpc_server.drain()


async def test_background_work_outlives_its_callers_deadline_and_is_given_up_when_the_drain_is_over() -> None:
    background, ended = Background(), asyncio.Event()

    async def last() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "unreachable"

    async def report() -> tuple[int | None, str]:
        return context.remaining_ms(), context.correlation_id()

    with context.serving({"x-correlation-id": "c-1"}, budget_ms=0):
        free = background.spawn(report(), name="free")
        budgeted = background.spawn(report(), name="budgeted", budget_ms=5000)
        background.spawn(last(), name="last")

    assert await free == (None, "c-1")
    assert 0 < ((await budgeted)[0] or 0) <= 5000
    await background.drain(0.05)
    assert ended.is_set()


async def test_a_drain_ends_the_pause_of_a_loop_in_the_background() -> None:
    background, resting = Background(), asyncio.Event()

    async def loop() -> None:
        assert await background.rest(0.001)
        resting.set()
        while await background.rest(3600):
            pass

    looping = background.spawn(loop(), name="loop")
    await resting.wait()
    await background.drain(PATIENCE_SECONDS)

    assert looping.done()
    assert not looping.cancelled()
    assert not await background.rest(3600)


async def until_refused(attempt: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await attempt()


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
