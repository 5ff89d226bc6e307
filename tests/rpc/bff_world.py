"""The BFF as its clients meet it: uvicorn on a port, and behind it a gRPC server whose answers the test scripts.

    from tests.rpc.bff_world import World, world  # the fixture, one for each module

Everything between the two ports is the real thing. `world.gateway` is fresh for each test.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import aiohttp
import grpc
import orjson
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.gateway.v1 import gateway_pb2 as pb
from colloquy.gateway.v1 import gateway_pb2_grpc
from libs.identity import keys
from libs.identity.actor import Role
from libs.identity.minting import mint
from libs.identity.verifier import StaticKey, Verifier
from libs.runtime.server import Server
from services.bff.app import build
from services.bff.conversations import Budgets
from services.bff.gateway import Gateway
from services.bff.routes import Probes
from services.bff.server import HttpServer

SESSION = "0190b6f0-6f5c-8a3e-9b0a-2f6a3c1d4e5f"
TURN = "7d1f6c8e-0c0b-4a51-9a57-0d2b8c1e9f30"
PAGE_ORIGIN = "https://interviews.example"
BUDGETS = Budgets(reply_ms=9000, chat_ms=15_000)  # more than a slow machine needs: time is up where a test says so
HURRIED = Budgets(reply_ms=1000, chat_ms=1000)

_Message = TypeVar("_Message")
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def at(seconds: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=seconds, nanos=nanos)


def a_turn(**changes: Any) -> pb.Turn:
    stages = [pb.Timing.Stage(name="begin", duration_ms=3.25), pb.Timing.Stage(name="question", duration_ms=612.5)]
    turn = pb.Turn(
        session_id=SESSION,
        turn_id=TURN,
        seq=3,
        reply_text="And how would you find out?",
        session_status=pb.SESSION_STATUS_OPEN,
        timing=pb.Timing(budget_ms=1910, total_ms=640.125, stages=stages),
        usage=pb.Usage(prompt_tokens=812, completion_tokens=44, cost_nano_usd=123_456),
        created_at=at(1_700_000_000, 123_456_789),
    )
    turn.MergeFrom(pb.Turn(**changes))
    return turn


def a_session(**changes: Any) -> pb.Session:
    session = pb.Session(
        session_id=SESSION,
        kind=pb.KIND_INTERVIEW,
        status=pb.SESSION_STATUS_OPEN,
        plan="backend-engineer",
        turns=3,
        max_turns=100,
        created_at=at(1_700_000_000),
    )
    session.MergeFrom(pb.Session(**changes))
    return session


@dataclass
class Heard:
    """One call that reached the gateway."""

    method: str
    request: Any
    metadata: Mapping[str, str]
    seconds_left: float


@dataclass
class ScriptedGateway(gateway_pb2_grpc.ConversationServiceServicer):
    """Answers with what the test put into `answers` under the method's name: a message, an exception, or a coroutine
    function of the request; for StreamTurn an async generator function. `heard` is what was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    stream_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        self.answers.clear()
        self.heard.clear()
        self.stream_ended = asyncio.Event()  # of the calls to come: the last one's may not be over yet

    async def _answer(self, method: str, request: Any, rpc: _Context, usual: _Message) -> _Message:
        self._hear(method, request, rpc)
        scripted = self.answers.get(method, usual)
        if isinstance(scripted, BaseException):
            raise scripted
        return cast(_Message, await scripted(request) if callable(scripted) else scripted)

    def _hear(self, method: str, request: Any, rpc: _Context) -> None:
        metadata: Any = rpc.invocation_metadata()
        self.heard.append(Heard(method, request, dict(metadata), rpc.time_remaining() or 0.0))

    async def StartSession(self, request: pb.StartSessionRequest, rpc: _Context) -> pb.StartSessionResponse:  # noqa: N802
        opening = a_turn(seq=1, reply_text="Welcome. What have you built?")
        usual = pb.StartSessionResponse(session=a_session(kind=request.kind), opening=opening)
        return await self._answer("StartSession", request, rpc, usual)

    async def SubmitTurn(self, request: pb.SubmitTurnRequest, rpc: _Context) -> pb.SubmitTurnResponse:  # noqa: N802
        return await self._answer("SubmitTurn", request, rpc, pb.SubmitTurnResponse(turn=a_turn()))

    async def StreamTurn(  # noqa: N802
        self, request: pb.StreamTurnRequest, rpc: _Context
    ) -> AsyncIterator[pb.StreamTurnResponse]:
        self._hear("StreamTurn", request, rpc)
        ended = self.stream_ended
        scripted = self.answers.get("StreamTurn", a_stream())
        try:
            if isinstance(scripted, BaseException):
                raise scripted
            async for event in scripted(request):
                yield event
        finally:
            ended.set()

    async def GetSession(self, request: pb.GetSessionRequest, rpc: _Context) -> pb.GetSessionResponse:  # noqa: N802
        return await self._answer("GetSession", request, rpc, pb.GetSessionResponse(session=a_session()))

    async def ListSessions(self, request: pb.ListSessionsRequest, rpc: _Context) -> pb.ListSessionsResponse:  # noqa: N802
        usual = pb.ListSessionsResponse(sessions=[a_session()], next_page_token="more")
        return await self._answer("ListSessions", request, rpc, usual)

    async def ListMessages(self, request: pb.ListMessagesRequest, rpc: _Context) -> pb.ListMessagesResponse:  # noqa: N802
        said = [
            pb.Message(seq=2, turn_id=TURN, role=role, text=text, created_at=at(1_700_000_000))
            for role, text in ((pb.Message.ROLE_CANDIDATE, "hello"), (pb.Message.ROLE_INTERVIEWER, "hi"))
        ]
        return await self._answer("ListMessages", request, rpc, pb.ListMessagesResponse(messages=said))

    async def EndSession(self, request: pb.EndSessionRequest, rpc: _Context) -> pb.EndSessionResponse:  # noqa: N802
        ended = a_session(status=pb.SESSION_STATUS_COMPLETED, completed_at=at(1_700_000_060))
        return await self._answer("EndSession", request, rpc, pb.EndSessionResponse(session=ended))

    async def GetReport(self, request: pb.GetReportRequest, rpc: _Context) -> NoReturn:  # noqa: N802
        raise NotImplementedError

    async def EraseSession(self, request: pb.EraseSessionRequest, rpc: _Context) -> pb.EraseSessionResponse:  # noqa: N802
        return await self._answer("EraseSession", request, rpc, pb.EraseSessionResponse())


def accepted(request: pb.StreamTurnRequest, *, replayed: bool = False) -> pb.StreamTurnResponse:
    told = pb.StreamTurnResponse.Accepted(turn_id=TURN, request_id=request.turn.request_id, replayed=replayed)
    return pb.StreamTurnResponse(accepted=told)


def a_stream(
    *pieces: str, then: BaseException | None = None, turn: pb.Turn | None = None, replayed: bool = False
) -> Callable[[pb.StreamTurnRequest], AsyncIterator[pb.StreamTurnResponse]]:
    """A script: `accepted`, the pieces of a draft, then an error or the turn."""

    async def events(request: pb.StreamTurnRequest) -> AsyncIterator[pb.StreamTurnResponse]:
        yield accepted(request, replayed=replayed)
        for piece in pieces:
            yield pb.StreamTurnResponse(delta=piece)
        if then:
            raise then
        yield pb.StreamTurnResponse(completed=pb.SubmitTurnResponse(turn=turn or a_turn()))

    return events


@dataclass(frozen=True)
class Reply:
    """An HTTP response that was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class World:
    """A BFF, its scripted gateway, and a candidate's HTTP client."""

    gateway: ScriptedGateway
    behind: Server
    port: int
    http: aiohttp.ClientSession
    token: str
    probes: Probes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def headers(self, **more: str) -> dict[str, str]:
        """The usual headers of a candidate's message; `idempotency_key=""` leaves one out."""
        usual = {"authorization": f"Bearer {self.token}", "idempotency-key": str(uuid.uuid4())}
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {name: value for name, value in (usual | named).items() if value}

    async def ask(self, method: str, path: str, *, json: Any = None, body: Any = None, **headers: str) -> Reply:
        """Send a request; `json` goes with its content type, `body` as it is."""
        sent = self.headers(**headers)
        if json is not None:
            body = orjson.dumps(json)
            sent.setdefault("content-type", "application/json")
        skipped = ["Content-Type"] if "content-type" not in sent else []
        async with self.http.request(
            method, self.url + path, data=body, headers=sent, skip_auto_headers=skipped
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def say(self, text: object = "I would look at the plan.", **headers: str) -> Reply:
        """Send an interview message."""
        path = f"/api/v1/interviews/{SESSION}/messages"
        return await self.ask("POST", path, json={"message_text": text}, **headers)


def a_token(*roles: Role, subject: str = "alice", pair: keys.KeyPair | None = None) -> str:
    return mint((pair or _PAIR).private_pem, subject, roles or [Role.CANDIDATE])


_PAIR = keys.generate_keypair()
PUBLIC_PEM = _PAIR.public_pem


@asynccontextmanager
async def a_gateway() -> AsyncIterator[tuple[ScriptedGateway, Server]]:
    """A scripted gateway on a port."""
    scripted = ScriptedGateway()
    register = partial(gateway_pb2_grpc.add_ConversationServiceServicer_to_server, scripted)
    behind = Server("gateway", ("127.0.0.1", 0), [register])
    await behind.start()
    yield scripted, behind
    await behind.drain()


@asynccontextmanager
async def a_world(budgets: Budgets = BUDGETS) -> AsyncIterator[World]:
    """The BFF, in this process, in front of a scripted gateway."""
    async with a_gateway() as (scripted, behind), aiohttp.ClientSession() as http:
        gateway = Gateway(f"127.0.0.1:{behind.port}")
        probes = Probes(gateway)
        verifier = Verifier(StaticKey(keys.public_key(PUBLIC_PEM)), "colloquy", "colloquy")
        server = HttpServer(build(gateway, verifier, budgets, probes, [PAGE_ORIGIN]), ("127.0.0.1", 0))
        await server.start()
        await until(lambda: probes.ready)
        yield World(scripted, behind, server.port, http, a_token(), probes)
        await server.stop()
        await gateway.close()


@pytest.fixture(scope="module")
async def running_world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture
def world(running_world: World) -> World:
    running_world.gateway.reset()
    return running_world


@asynccontextmanager
async def time_awake() -> AsyncIterator[Callable[[], float]]:
    """The seconds since the block began, but for those in which the machine let nothing here run."""
    loop, passed = asyncio.get_running_loop(), 0.0

    async def measure() -> None:
        nonlocal passed
        while True:
            began = loop.time()
            await asyncio.sleep(0.01)
            passed += min(loop.time() - began, 0.05)

    measuring = asyncio.create_task(measure())
    try:
        yield lambda: passed
    finally:
        measuring.cancel()


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 20.0) -> None:
    """Wait for a condition; fails the test where it does not come true in time."""
    async with asyncio.timeout(seconds):
        while True:
            held = condition()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0.005)
