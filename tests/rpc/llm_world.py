"""llm-gateway as its callers meet it: its real server on a port, its ledger, and a provider that does as it is told.

    from tests.rpc.llm_world import World, provider, shared_world, world  # the fixtures

The provider speaks the chat completions API over HTTP. It answers each request with the next step of its script, then
with a plain completion for ever; `provider.received` is what reached it, `provider.arrived` waits for it.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
import psycopg
import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from psycopg.rows import dict_row

from colloquy.llm.v1 import llm_pb2 as pb
from colloquy.llm.v1 import llm_pb2_grpc
from libs.runtime import client, db
from libs.runtime.errors import DeadlineExceeded
from libs.runtime.server import Background, Server
from migrations.readiness import is_migrated
from services.llm_gateway import wire
from services.llm_gateway.dispatch import Dispatcher
from services.llm_gateway.provider import Provider
from services.llm_gateway.records import Records
from services.llm_gateway.servicer import LlmServicer
from services.llm_gateway.store import Store
from services.llm_gateway.usecases import Calls
from tests.databases import Database

if TYPE_CHECKING:
    from colloquy.llm.v1.llm_pb2_grpc import LlmServiceAsyncStub

MODEL = "gpt-4o-mini"
TEXT = "How would you find out which query is slow?"
PROMPT_TOKENS, COMPLETION_TOKENS = 100, 10
COST = PROMPT_TOKENS * 150 + COMPLETION_TOKENS * 600
CAP_MS = 10_000

Step: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def usage(prompt_tokens: int = PROMPT_TOKENS, completion_tokens: int = COMPLETION_TOKENS) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}


def completion(text: str | None = TEXT, finish_reason: str = "stop", **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {
        "object": "chat.completion",
        "model": f"{MODEL}-2024-07-18",
        "choices": [choice],
        "usage": usage(),
        **fields,
    }


def chunk(text: str = "", finish_reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return event({"object": "chat.completion.chunk", "model": MODEL, "choices": [choice], "usage": None, **fields})


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


ENDING = chunk(finish_reason="stop") + chunk(choices=[], usage=usage()) + b"data: [DONE]\n\n"


def says(body: dict[str, Any] | bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Step:
    """Answers at once."""

    async def step(_: web.Request) -> web.StreamResponse:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return web.Response(status=status, body=data, content_type="application/json", headers=headers)

    return step


def refuses(status: int, code: str | None = None, message: str = "no", **headers: str) -> Step:
    """Answers with an error of the API's form; headers are named as Python can."""
    error = {"error": {"message": message, "type": "some_error", "code": code, "param": None}}
    return says(error, status, {name.replace("_", "-"): value for name, value in headers.items()})


def waits(until: asyncio.Event, then: Step) -> Step:
    """Answers once the test has set the event."""

    async def step(request: web.Request) -> web.StreamResponse:
        await until.wait()
        return await then(request)

    return step


def streams(*parts: bytes | asyncio.Event) -> Step:
    """Sends the parts one by one, and where an event stands waits for it."""

    async def step(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            if isinstance(part, asyncio.Event):
                await part.wait()
            else:
                await response.write(part)
        await response.write_eof()
        return response

    return step


def hangs() -> Step:
    """Never answers."""
    return waits(asyncio.Event(), says(b""))


def hangs_up(after: bytes = b"") -> Step:
    """Closes the connection, after some bytes of an answer that would be longer."""

    async def step(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(after) + 100
        if after:
            await response.prepare(request)
            await response.write(after)
        assert request.transport is not None
        request.transport.close()
        return response

    return step


def repeats(after: str) -> float:
    """How often the services of this process have repeated a question after such an end."""
    labels = {"purpose": "question", "after": after}
    return REGISTRY.get_sample_value("colloquy_llm_repeats_total", labels) or 0.0


@dataclass(frozen=True)
class Received:
    """A request as it reached the provider."""

    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass
class ScriptedProvider:
    """An OpenAI-compatible endpoint at `url`."""

    url: str = ""
    script: list[Step] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    _arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.connections.add(request.transport)
        async with self._arrival:
            self.received.append(Received(request.headers, body))
            self._arrival.notify_all()
        if self.script:
            return await self.script.pop(0)(request)
        usual = streams(chunk(TEXT), ENDING) if body.get("stream") else says(completion())
        return await usual(request)

    async def arrived(self, count: int = 1) -> None:
        """Wait until so many requests have come in."""
        async with asyncio.timeout(10), self._arrival:
            await self._arrival.wait_for(lambda: len(self.received) >= count)


@asynccontextmanager
async def scripted_provider() -> AsyncIterator[ScriptedProvider]:
    scripted = ScriptedProvider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", scripted.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield scripted
    await runner.cleanup()


@dataclass
class World:
    """A running service, and its ledger as the database has it."""

    stub: "LlmServiceAsyncStub"
    provider: ScriptedProvider
    usecases: Calls
    dsn: str

    async def generate(self, request: pb.GenerateRequest, cap_ms: float = CAP_MS) -> pb.GenerateResponse:
        return await client.call(self.stub.Generate, request, cap_ms)

    async def stream(self, request: pb.GenerateRequest, cap_ms: float = CAP_MS) -> list[str | pb.GenerateResponse]:
        """The deltas, and last the response."""
        return [event async for event in self.events(request, cap_ms)]

    async def events(
        self, request: pb.GenerateRequest, cap_ms: float = CAP_MS
    ) -> AsyncIterator[str | pb.GenerateResponse]:
        async for message in client.stream(self.stub.StreamGenerate, pb.StreamGenerateRequest(call=request), cap_ms):
            yield message.delta if message.WhichOneof("event") == "delta" else message.done

    async def get(self, request: pb.GenerateRequest) -> pb.Call:
        key = pb.GetCallRequest(session_id=request.session_id, turn_id=request.turn_id, purpose=request.purpose)
        return (await client.call(self.stub.GetCall, key, CAP_MS)).call

    async def eventually(self, request: pb.GenerateRequest, state: pb.CallState.ValueType) -> pb.Call:
        """The call once it is in this state; the round trip is the pause."""
        async with asyncio.timeout(10):
            while (call := await self.get(request)).state != state:
                pass
        return call

    async def left_at_its_deadline(
        self, ask: Callable[[pb.GenerateRequest, float], Awaitable[object]], request: pb.GenerateRequest, cap_ms: float
    ) -> None:
        """Ask with so little time that it ends while the provider is at work; again, where it ended before that."""
        before = len(self.provider.received)
        while len(self.provider.received) == before:
            with pytest.raises(DeadlineExceeded):
                await ask(request, cap_ms)

    async def wanted(self, request: pb.GenerateRequest, least_ms: float) -> None:
        """Return once somebody waits for the call under way for so long."""
        flight = self.usecases._flights[wire.offer(request).key, None]
        async with asyncio.timeout(10):
            while flight.wanted_ms < least_ms:
                await self.get(request)

    def attempts(self, request: pb.GenerateRequest) -> list[dict[str, Any]]:
        return self._rows("attempts", request.session_id, "ORDER BY fence, attempt")

    def calls(self, request: pb.GenerateRequest) -> list[dict[str, Any]]:
        return self._rows("calls", request.session_id)

    def spent(self, request: pb.GenerateRequest) -> int:
        """What the session's account says, which is what its attempts and its calls say too."""
        (account,) = self._rows("sessions", request.session_id)
        spent: int = account["spent_nano_usd"]
        assert spent == sum(attempt["cost_nano_usd"] for attempt in self.attempts(request))
        assert spent == sum(call["cost_nano_usd"] for call in self.calls(request))
        return spent

    def execute(self, sql: str, request: pb.GenerateRequest) -> None:
        """Run SQL on the ledger, `%s` in it being the request's session."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(sql.encode(), [request.session_id])

    def _rows(self, table: str, session_id: str, order: str = "") -> list[dict[str, Any]]:
        with psycopg.connect(self.dsn, row_factory=dict_row) as connection:
            sql = f"SELECT * FROM llm.{table} WHERE session_id = %s {order}"
            return connection.execute(sql.encode(), [session_id]).fetchall()


@asynccontextmanager
async def running_world(
    dsn: str,
    scripted: ScriptedProvider,
    timeout_ms: int = 10_000,
) -> AsyncIterator[World]:
    """The service as its process runs it, on a free port."""
    pool, background = db.Database(dsn, "llm", statement_timeout_ms=10_000), Background()
    provider, store = Provider(scripted.url, "sk-test", MODEL), Store(pool)
    usecases = Calls(store, Dispatcher(store, provider, timeout_ms, 15_000), background)
    server = Server(
        "llm-gateway",
        ("127.0.0.1", 0),
        [partial(llm_pb2_grpc.add_LlmServiceServicer_to_server, LlmServicer(usecases, Records(store)))],
        ready=partial(is_migrated, pool, "llm"),
        background=background,
    )
    await server.start()
    channel = client.open_channel(f"127.0.0.1:{server.port}")
    stub: LlmServiceAsyncStub = llm_pb2_grpc.LlmServiceStub(channel)
    yield World(stub, scripted, usecases, dsn)
    await channel.close()
    await server.drain()
    await provider.close()
    await pool.close()


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    """For a test that runs a world of its own."""
    async with scripted_provider() as scripted:
        yield scripted


@pytest.fixture(scope="module")
async def shared_world(database: Database) -> AsyncIterator[World]:
    async with scripted_provider() as scripted, running_world(database.dsns["llm"], scripted) as running:
        yield running


@pytest.fixture
def world(shared_world: World) -> World:
    """One service for the module, with a provider that has forgotten the test before."""
    shared_world.provider.script.clear()
    shared_world.provider.received.clear()
    return shared_world


def a_request(**changes: Any) -> pb.GenerateRequest:
    """A call that nobody has asked for yet."""
    fields: dict[str, Any] = {
        "session_id": str(uuid.uuid4()),
        "turn_id": str(uuid.uuid4()),
        "purpose": "question",
        "prompt": a_prompt(),
        "context": b"\x00item-7\xff",
    }
    return pb.GenerateRequest(**fields | changes)


def a_prompt(**changes: Any) -> pb.Prompt:
    messages = [
        pb.Message(role=pb.Message.ROLE_SYSTEM, content="You are an interviewer."),
        pb.Message(role=pb.Message.ROLE_USER, content="I would read the query plan."),
    ]
    fields: dict[str, Any] = {"messages": messages, "version": "question/v1", "max_output_tokens": 100}
    return pb.Prompt(**fields | changes)
