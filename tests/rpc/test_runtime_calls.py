"""One real server, one real client: errors, deadlines, ids and cancellation over the wire."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from prometheus_client import REGISTRY

from libs.runtime import context, logs, status
from libs.runtime import server as runtime_server
from libs.runtime.client import call, open_channel, stream
from libs.runtime.errors import (
    ColloquyError,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    NotFound,
    Reason,
    TooLarge,
    Unavailable,
    Unimplemented,
    error_of,
)
from libs.runtime.interceptor import went_at_its_deadline
from libs.runtime.server import Server
from tests.ports import free_ports

SERVICE = "colloquy.test.v1.EchoService"
SECRET = "a text that no client may see"

Unary = Callable[[str], Awaitable[str]]
Stream = Callable[[str], AsyncIterator[str]]


class Echo:
    """A scripted service: each test says what `Say` and `Tell` do."""

    def __init__(self, say: Unary, tell: Stream | None = None) -> None:
        self._say, self._tell = say, tell

    async def say(self, request: StringValue, _: Any) -> StringValue:
        return StringValue(value=await self._say(request.value))

    async def tell(self, request: StringValue, _: Any) -> AsyncIterator[StringValue]:
        assert self._tell is not None
        async for text in self._tell(request.value):
            yield StringValue(value=text)

    def register(self, server: grpc.aio.Server) -> None:
        codec = (StringValue.FromString, StringValue.SerializeToString)
        handlers = {
            "Say": grpc.unary_unary_rpc_method_handler(self.say, *codec),
            "Tell": grpc.unary_stream_rpc_method_handler(self.tell, *codec),
        }
        server.add_registered_method_handlers(SERVICE, handlers)


class Client:
    """What generated code would make of the service, with our calls around it."""

    def __init__(self, port: int) -> None:
        self.target = f"127.0.0.1:{port}"
        self.channel = open_channel(self.target)
        codec = (StringValue.SerializeToString, StringValue.FromString)
        self.bare_say: Any = self.channel.unary_unary(f"/{SERVICE}/Say", *codec)
        self.bare_tell: Any = self.channel.unary_stream(f"/{SERVICE}/Tell", *codec)
        self.bare_absent: Any = self.channel.unary_unary(f"/{SERVICE}/Absent", *codec)

    async def say(self, text: str = "", cap_ms: float = 5000) -> str:
        reply: StringValue = await call(self.bare_say, StringValue(value=text), cap_ms)
        return reply.value

    def tell(self, text: str = "", cap_ms: float = 5000) -> Any:
        return stream(self.bare_tell, StringValue(value=text), cap_ms)


@asynccontextmanager
async def serving(say: Unary, tell: Stream | None = None) -> AsyncIterator[Client]:
    server = Server("test", ("127.0.0.1", 0), [Echo(say, tell).register])
    await server.start()
    client = Client(server.port)
    yield client
    await client.channel.close()
    await server.drain()


async def echo(text: str) -> str:
    return text


@pytest.fixture(autouse=True)
def _nobody_watches_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_server, "NOT_SERVING_SECONDS", 0)


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What has been logged about served calls so far."""
    logs.flush()  # or what earlier tests have left to be counted is counted in this one
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(logs, "_journal", logs.Journal(descriptor, service="test", version="1"))

    def read() -> list[dict[str, Any]]:
        logs.flush()
        return [line for line in map(json.loads, path.read_text().splitlines()) if line["event"] == "rpc"]

    yield read
    os.close(descriptor)


@pytest.mark.parametrize("reason", Reason)
async def test_every_error_arrives_as_it_was_raised_unary_and_streamed(reason: Reason) -> None:
    raised = error_of(
        reason,
        "A detail, für alle 🙂.",
        violations=[FieldViolation("message_text", "must not be blank")],
        retry_after_ms=250,
        metadata={"lease": "7"},
    )

    async def say(_: str) -> str:
        raise raised

    async def tell(_: str) -> AsyncIterator[str]:
        yield "first"
        raise raised

    async with serving(say, tell) as client:
        with pytest.raises(ColloquyError) as unary:
            await client.say()
        with pytest.raises(ColloquyError) as streamed:
            assert [text.value async for text in client.tell()] == ["first"]

    for received in (unary.value, streamed.value):
        assert type(received) is type(raised)
        assert vars(received) == vars(raised)


async def test_an_error_passes_through_a_service_in_between() -> None:
    async def refuse(_: str) -> str:
        raise error_of(Reason.SESSION_CLOSED, "Over.")

    async with serving(refuse) as inner, serving(inner.say) as outer:
        with pytest.raises(ColloquyError, match="Over") as raised:
            await outer.say()

    assert raised.value.reason is Reason.SESSION_CLOSED


async def test_an_unknown_exceptions_text_stays_in_the_log(lines: Callable[[], list[dict[str, Any]]]) -> None:
    async def say(_: str) -> str:
        raise ValueError(SECRET)

    async with serving(say) as client:
        with pytest.raises(grpc.aio.AioRpcError) as bare:
            await client.bare_say(StringValue(), timeout=5)
        with pytest.raises(Internal) as typed:
            await client.say()

    assert bare.value.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in repr(bare.value) + repr(bare.value.trailing_metadata()) + repr(typed.value)
    assert [line["level"] for line in lines()] == ["error", "error"]
    assert SECRET in lines()[0]["exception"]


async def test_a_method_that_is_not_there_or_not_written_is_unimplemented() -> None:
    async def say(_: str) -> str:
        raise NotImplementedError("Method not implemented!")

    async with serving(say) as client:
        with pytest.raises(Unimplemented):
            await client.say()
        with pytest.raises(Unimplemented):
            await call(client.bare_absent, StringValue(), 5000)


async def test_an_inner_task_that_was_cancelled_does_not_hang_the_caller() -> None:
    async def say(_: str) -> str:
        inner = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner
        return "unreachable"

    async with serving(say) as client:
        with pytest.raises(Internal):
            async with asyncio.timeout(5):
                await client.say(cap_ms=60_000)


async def test_a_call_cut_by_its_own_channel_is_unavailable_and_not_a_cancellation() -> None:
    arrived = asyncio.Event()

    async def say(_: str) -> str:
        arrived.set()
        await asyncio.Event().wait()
        return "unreachable"

    async with serving(say) as client:
        calling = asyncio.create_task(client.say())
        await arrived.wait()
        await client.channel.close()

        with pytest.raises(Unavailable):
            await calling


async def test_a_caller_that_is_cancelled_cancels_the_handler(lines: Callable[[], list[dict[str, Any]]]) -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def say(_: str) -> str:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "unreachable"

    async with serving(say) as client:
        calling = asyncio.create_task(client.say(cap_ms=60_000))
        await arrived.wait()
        calling.cancel()

        with pytest.raises(asyncio.CancelledError):
            await calling
        async with asyncio.timeout(5):
            await ended.wait()

    assert [line["code"] for line in lines()] == ["CANCELLED"]


async def test_a_timeout_around_a_call_is_a_timeout() -> None:
    async def say(_: str) -> str:
        await asyncio.Event().wait()
        return "unreachable"

    async with serving(say) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.say(cap_ms=60_000)


async def test_a_server_that_does_not_answer_is_left_at_the_cap(lines: Callable[[], list[dict[str, Any]]]) -> None:
    arrived, ended = 0, asyncio.Event()

    async def say(_: str) -> str:
        nonlocal arrived
        arrived += 1
        try:
            await asyncio.Event().wait()
        finally:
            # Held up on its way, the request has a later deadline here than its caller.
            await asyncio.sleep((context.remaining_ms() or 0) / 1000 + 0.001)
            ended.set()
        return "unreachable"

    async with serving(say) as client:
        cap_ms = 50
        while not arrived:  # the time may be up before the request is there
            with pytest.raises(DeadlineExceeded):
                await client.say(cap_ms=cap_ms)
            cap_ms *= 2
        async with asyncio.timeout(15):
            await ended.wait()

    assert [line["code"] for line in lines()] == ["DEADLINE_EXCEEDED"] * arrived


@pytest.mark.parametrize(
    ("left_ms", "elapsed_ms", "at_its_deadline"),
    [
        pytest.param(0, 50, True, id="no time left"),
        pytest.param(9, 1_001, True, id="rounded up to 1,010 ms"),
        pytest.param(99, 14_901, True, id="rounded up to 15,000 ms"),
        pytest.param(1, 49, True, id="just in"),
        pytest.param(2, 49, False, id="just out"),
        pytest.param(100, 1_000, False, id="in good time"),
        pytest.param(None, 60_000, False, id="no deadline"),
    ],
)
def test_a_caller_who_goes_in_the_last_of_its_time_went_at_its_deadline(
    left_ms: int | None, elapsed_ms: int, *, at_its_deadline: bool
) -> None:
    assert went_at_its_deadline(left_ms, elapsed_ms) is at_its_deadline


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    client = Client(free_ports(1)[0])

    with pytest.raises(Unavailable):
        await client.say()
    await client.channel.close()


async def test_what_a_servicer_calls_unavailable_is_asked_once() -> None:
    attempts = 0

    async def say(_: str) -> str:
        nonlocal attempts
        attempts += 1
        raise Unavailable

    async with serving(say) as client:
        with pytest.raises(Unavailable):
            await client.say()

    assert attempts == 1


async def test_a_connection_that_breaks_under_a_call_is_worth_another_try() -> None:
    attempts = 0

    async def break_once(request: StringValue, rpc: Any) -> StringValue:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await rpc.abort(grpc.StatusCode.UNAVAILABLE, "as a broken connection would have it")
        return request

    handler = grpc.unary_unary_rpc_method_handler(break_once, StringValue.FromString, StringValue.SerializeToString)
    bare = grpc.aio.server()
    bare.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Say": handler})])
    client = Client(bare.add_insecure_port("127.0.0.1:0"))
    await bare.start()

    assert await client.say("once more") == "once more"

    await client.channel.close()
    await bare.stop(None)


async def test_a_call_has_the_smaller_of_its_cap_and_what_is_left() -> None:
    async def say(_: str) -> str:
        return str(context.remaining_ms())

    async with serving(say) as client:
        with context.serving(budget_ms=6000):
            under_budget = int(await client.say(cap_ms=9500))
            under_cap = int(await client.say(cap_ms=4000))
        with context.serving():
            without_budget = int(await client.say(cap_ms=9500))

    assert 0 < under_budget <= 6010  # gRPC sends what is above a second rounded up to 10 ms
    assert 0 < under_cap <= 4010
    assert 6010 < without_budget <= 9510


async def test_a_deadline_that_has_passed_sends_nothing(lines: Callable[[], list[dict[str, Any]]]) -> None:
    async with serving(echo) as client:
        with context.serving(budget_ms=0):
            with pytest.raises(DeadlineExceeded):
                await client.say()
            with pytest.raises(DeadlineExceeded):
                await anext(client.tell())

    assert lines() == []


async def test_the_deadline_travels_through_a_service_in_between() -> None:
    async def say(_: str) -> str:
        return str(context.remaining_ms())

    async with serving(say) as inner, serving(lambda text: inner.say(text, cap_ms=60_000)) as outer:
        left_ms = int(await outer.say(cap_ms=8000))

    assert 0 < left_ms <= 8010  # as gRPC rounds it up


async def test_ids_and_token_travel_through_a_service_in_between(lines: Callable[[], list[dict[str, Any]]]) -> None:
    async def say(_: str) -> str:
        context.bind(session_id="s-1")
        return " ".join((context.correlation_id(), context.traceparent(), context.authorization()))

    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {
        "x-correlation-id": "c-1",
        "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01",
        "authorization": "Bearer abc",
    }
    async with serving(say) as inner, serving(inner.say) as outer:
        with context.serving(headers):
            seen = await outer.say()

    correlation_id, traceparent, *token = seen.split(" ")
    assert correlation_id == "c-1"
    assert traceparent.startswith(f"00-{trace_id}-")
    assert traceparent.endswith("-01")
    assert token == ["Bearer", "abc"]
    assert [(line["correlation_id"], line["trace_id"], line.get("session_id")) for line in lines()] == [
        ("c-1", trace_id, "s-1"),
        ("c-1", trace_id, None),
    ]
    assert "Bearer" not in json.dumps(lines())


async def test_each_call_leaves_one_line_and_one_observation(lines: Callable[[], list[dict[str, Any]]]) -> None:
    async def say(text: str) -> str:
        context.bind(session_id="s-1", turn_id="t-1")
        if text == SECRET:
            raise NotFound
        return text

    def counted(code: str) -> float:
        labels = {"method": f"{SERVICE}/Say", "code": code}
        return REGISTRY.get_sample_value("colloquy_rpc_server_seconds_count", labels) or 0.0

    before = counted("OK"), counted("NOT_FOUND")
    async with serving(say) as client:
        await client.say("hello")
        with pytest.raises(NotFound):
            await client.say(SECRET)

    succeeded, failed = lines()
    assert succeeded.keys() >= {"time", "correlation_id", "trace_id", "duration_ms"}
    shown = ("level", "event", "service", "version", "session_id", "turn_id", "rpc", "code")
    assert [succeeded[name] for name in shown] == ["info", "rpc", "test", "1", "s-1", "t-1", f"{SERVICE}/Say", "OK"]
    assert (failed["code"], failed["reason"]) == ("NOT_FOUND", "NOT_FOUND")
    assert SECRET not in json.dumps(lines())
    assert (counted("OK"), counted("NOT_FOUND")) == (before[0] + 1, before[1] + 1)


async def test_a_field_that_json_cannot_hold_costs_its_own_line_only(lines: Callable[[], list[dict[str, Any]]]) -> None:
    async def say(text: str) -> str:
        context.bind(session_id="\ud800" if text == "bad" else "s-1")
        return text

    async with serving(say) as client:
        await client.say("bad")
        await client.say("good")

    assert [line["session_id"] for line in lines()] == ["s-1"]


async def test_a_stream_that_is_left_early_is_cancelled_at_the_server() -> None:
    ended = asyncio.Event()

    async def tell(text: str) -> AsyncIterator[str]:
        try:
            while True:
                yield text
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with serving(echo, tell) as client:
        async for _ in client.tell("x", cap_ms=60_000):
            break
        async with asyncio.timeout(5):
            await ended.wait()
        ended.clear()

        async with aclosing(client.tell("x", cap_ms=60_000)) as texts:
            await anext(texts)
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_stream_ends_when_its_server_does() -> None:
    async def tell(text: str) -> AsyncIterator[str]:
        for number in range(3):
            yield f"{text}{number}"

    async with serving(echo, tell) as client:
        assert [text.value async for text in client.tell("x")] == ["x0", "x1", "x2"]


async def test_a_request_above_the_limit_is_too_large_here_and_at_the_server() -> None:
    large = StringValue(value="x" * 300_000)

    async with serving(echo) as client:
        with pytest.raises(TooLarge):
            await call(client.bare_say, large, 5000)
        unlimited = grpc.aio.insecure_channel(client.target)
        say: Any = unlimited.unary_unary(f"/{SERVICE}/Say", StringValue.SerializeToString, StringValue.FromString)
        with pytest.raises(TooLarge):
            await call(say, large, 10_000)
        await unlimited.close()


@pytest.mark.parametrize(
    ("method", "request_", "code", "reason"),
    [
        ("Say", b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, Reason.MALFORMED),
        ("Say", b"\x0a\x02\xff\xfe", grpc.StatusCode.INVALID_ARGUMENT, Reason.MALFORMED),
        ("Tell", b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, Reason.MALFORMED),
        ("Say", b"\x0a" * 300_000, grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.TOO_LARGE),
        ("Say", b"\x0a" * 10_000_000, grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.TOO_LARGE),
        ("Absent", b"", grpc.StatusCode.UNIMPLEMENTED, Reason.UNIMPLEMENTED),
    ],
    ids=["no message", "no UTF-8", "no message for a stream", "too large", "ten megabytes", "no method"],
)
async def test_what_cannot_be_served_is_told_like_every_other_error(
    method: str,
    request_: bytes,
    code: grpc.StatusCode,
    reason: Reason,
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    async with serving(echo) as client, grpc.aio.insecure_channel(client.target) as channel:
        bare: Any = channel.unary_unary(f"/{SERVICE}/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bare(request_, timeout=5)

    details = dict(refused.value.trailing_metadata() or ())[status.DETAILS_KEY]
    assert (refused.value.code(), refused.value.details()) == (code, error_of(reason).detail)
    assert f"{reason}".encode() in details
    assert [line["reason"] for line in lines()] == [reason]


async def test_a_request_stream_is_refused_when_it_is_registered() -> None:
    def register(server: grpc.aio.Server) -> None:
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(echo)
        server.add_registered_method_handlers(SERVICE, {"Collect": handler})

    with pytest.raises(TypeError, match="Collect"):
        Server("test", ("127.0.0.1", 0), [register])


async def test_what_fails_after_the_caller_has_gone_disturbs_nobody() -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def say(text: str) -> str:
        if text:
            return text
        arrived.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        ended.set()
        raise NotFound

    async with serving(say) as client:
        calling = asyncio.create_task(client.say(cap_ms=60_000))
        await arrived.wait()
        calling.cancel()
        async with asyncio.timeout(5):
            await ended.wait()

        assert await client.say("still there") == "still there"
