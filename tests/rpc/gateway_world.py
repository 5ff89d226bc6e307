"""The gateway's parts over real contexts: history, session and assessment on ports, a real PostgreSQL under them.

    from tests.rpc.gateway_world import World, world  # the fixture, one for each test

The llm-gateway is a script that keeps its contract: the first intent wins, a call is made once, an erased session has
no calls. `world.gateway()` is a replica, of which there may be many; one that `cannot_reach` a context finds nobody
there. Time passes by `world.expire` and `world.age`; otherwise there is plenty of it, so that a busy machine changes
nothing. What is left behind is asked of the tables.
"""

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from colloquy.assessment.v1.assessment_pb2_grpc import add_AssessmentServiceServicer_to_server
from colloquy.gateway.v1 import gateway_pb2
from colloquy.history.v1 import history_pb2
from colloquy.history.v1.history_pb2_grpc import add_HistoryServiceServicer_to_server
from colloquy.llm.v1 import llm_pb2, llm_pb2_grpc
from colloquy.session.v1.session_pb2_grpc import add_SessionServiceServicer_to_server
from libs.prompts import rendering
from libs.runtime import client, db
from libs.runtime import server as runtime_server
from libs.runtime.client import call
from libs.runtime.errors import NotFound, Unavailable, Unimplemented
from libs.runtime.server import Background, Server
from libs.tokens.counting import count
from services.assessment.answers import Answers
from services.assessment.bankfile import read_banks
from services.assessment.catalogue import Catalogue
from services.assessment.judge import Judge
from services.assessment.servicer import AssessmentServicer
from services.assessment.store import Store as AssessmentStore
from services.assessment.usecases import Interviews
from services.gateway import domain, erasing, recovery
from services.gateway.claim import Message
from services.gateway.clearable import Clearable
from services.gateway.composition import Composition
from services.gateway.contexts import Contexts
from services.gateway.domain import Opening
from services.gateway.erasing import Erasing
from services.gateway.opening import Limits, Sessions
from services.gateway.reading import Reading
from services.gateway.recovery import Recovery
from services.gateway.settling import Settling
from services.gateway.unscored import Unscored
from services.gateway.unsettled import Unsettled
from services.gateway.usecases import WINDOW, Budgets, Turns
from services.history.servicer import HistoryServicer
from services.history.store import Store as HistoryStore
from services.history.usecases import History
from services.session.servicer import SessionServicer
from services.session.store import Store as SessionStore
from services.session.usecases import Directory
from tests.conftest import FreshDatabase
from tests.databases import Database

ANSWER = "I would add an index on the column that the query filters by, and then look at the plan again."
QUESTION = "In the model's own words: what would you look at next?"
VERDICT = json.dumps({"quotes": ["add an index"], "rationale": "An index.", "level": 2, "confidence": 0.9})
NOBODY = "127.0.0.1:1"
PATIENCE_MS = 30_000
CAP_MS = PATIENCE_MS
ANYBODY = history_pb2.Viewer(any_owner=True)
CATALOGUE = Catalogue.of(read_banks())


@dataclass
class Models(llm_pb2_grpc.LlmServiceServicer):
    """The llm-gateway. A call is DONE at once, unless its purpose is in `held` (until the event) or in `failing`."""

    calls: dict[tuple[str, str, str], llm_pb2.Call] = field(default_factory=dict)
    made: list[tuple[str, str]] = field(default_factory=list)
    """Turn and purpose of the calls that were made, repeats included."""
    held: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    failing: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    cleared: list[str] = field(default_factory=list)

    async def Generate(self, request: llm_pb2.GenerateRequest, context: Any) -> llm_pb2.GenerateResponse:  # noqa: N802
        if request.session_id in self.erased:
            raise NotFound
        key = (request.session_id, request.turn_id, request.purpose)
        if key not in self.calls or self.calls[key].state in (llm_pb2.CALL_STATE_FAILED, llm_pb2.CALL_STATE_UNKNOWN):
            self.begin(request)
        purpose = request.purpose.partition("/")[0]
        if purpose in self.held and self.calls[key].state == llm_pb2.CALL_STATE_INFLIGHT:
            await self.held[purpose].wait()
        made = self.calls[key]
        if made.state == llm_pb2.CALL_STATE_INFLIGHT:
            if purpose in self.failing:
                made.state = llm_pb2.CALL_STATE_FAILED
                raise Unavailable
            self.finish(made)
        if request.session_id in self.erased:
            raise NotFound
        return llm_pb2.GenerateResponse(call=made)

    async def StreamGenerate(  # noqa: N802
        self, request: llm_pb2.StreamGenerateRequest, context: Any
    ) -> AsyncIterator[llm_pb2.StreamGenerateResponse]:
        made = await self.Generate(request.call, context)
        yield llm_pb2.StreamGenerateResponse(delta=made.call.text)
        yield llm_pb2.StreamGenerateResponse(done=made)

    async def GetCall(self, request: llm_pb2.GetCallRequest, context: Any) -> llm_pb2.GetCallResponse:  # noqa: N802
        found = self.calls.get((request.session_id, request.turn_id, request.purpose))
        if found is None or request.session_id in self.erased:
            raise NotFound
        return llm_pb2.GetCallResponse(call=found)

    async def ListClearable(  # noqa: N802
        self, request: llm_pb2.ListClearableRequest, context: Any
    ) -> llm_pb2.ListClearableResponse:
        """Whatever its age, one turn a page: in the tests an hour has always passed."""
        turns = sorted({(session_id, turn_id) for session_id, turn_id, _ in self.calls if turn_id not in self.cleared})
        following = [turn for turn in turns if turn[1] > request.page_token]
        page = sorted(following, key=lambda turn: turn[1])[:1]
        return llm_pb2.ListClearableResponse(
            turns=[llm_pb2.ListClearableResponse.Turn(session_id=one, turn_id=other) for one, other in page],
            next_page_token=page[0][1] if len(following) > 1 else "",
        )

    async def ClearResults(self, request: llm_pb2.ClearResultsRequest, context: Any) -> llm_pb2.ClearResultsResponse:  # noqa: N802
        self.cleared += request.turn_ids
        return llm_pb2.ClearResultsResponse()

    async def EraseSession(self, request: llm_pb2.EraseSessionRequest, context: Any) -> llm_pb2.EraseSessionResponse:  # noqa: N802
        self.erased.add(request.session_id)
        return llm_pb2.EraseSessionResponse()

    async def ListCalls(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise Unimplemented

    def begin(self, request: llm_pb2.GenerateRequest) -> llm_pb2.Call:
        """Write the intent of a call, as by an owner that then dies."""
        self.made.append((request.turn_id, request.purpose))
        begun = llm_pb2.Call(
            session_id=request.session_id,
            turn_id=request.turn_id,
            purpose=request.purpose,
            state=llm_pb2.CALL_STATE_INFLIGHT,
            context=request.context,
            prompt_version=request.prompt.version,
            model="scripted",
            lease_left_ms=8000,
        )
        self.calls[request.session_id, request.turn_id, request.purpose] = begun
        return begun

    @staticmethod
    def finish(begun: llm_pb2.Call) -> None:
        """Let a call have its result."""
        begun.state = llm_pb2.CALL_STATE_DONE
        begun.text = VERDICT if begun.purpose.startswith("judge") else QUESTION
        begun.usage.CopyFrom(llm_pb2.Usage(prompt_tokens=100, completion_tokens=10, cost_nano_usd=21_000))


@dataclass
class Gateway:
    """A replica of the gateway, without its port."""

    contexts: Contexts
    background: Background = field(default_factory=Background)

    def __post_init__(self) -> None:
        contexts, background = self.contexts, self.background
        self.composition = Composition(contexts)
        self.settling = Settling(contexts, background)
        self.recovery = Recovery(contexts, self.composition, self.settling, background)
        self.turns = Turns(
            contexts, self.composition, self.settling, self.recovery, background, Budgets(PATIENCE_MS, PATIENCE_MS)
        )
        limits = Limits(PATIENCE_MS, PATIENCE_MS, max_turns=100, min_interval_ms=0)
        pinned = {"question": rendering.QUESTION, "judge": rendering.JUDGE, "chat": rendering.CHAT}
        self.sessions = Sessions(contexts, self.composition, self.settling, background, limits, pinned)
        self.reading = Reading(contexts, self.settling)
        self.erasing = Erasing(contexts, self.settling, background)
        self.unsettled = Unsettled(contexts, self.settling, self.recovery, self.erasing)
        self.unscored = Unscored(contexts)
        self.clearable = Clearable(contexts)

    async def start(self, kind: str = "interview", request_id: uuid.UUID | None = None, **changes: Any) -> str:
        """A session of Ada's, settled."""
        fields: dict[str, Any] = {"kind": kind, "plan": "", "candidate_name": "Ada", "metadata": {}}
        started = await self.sessions.start(Opening(**(fields | changes)), "ada", "", request_id or uuid.uuid4())
        await self.idle()
        return started.session.session_id

    async def say(self, session_id: str, text: str = ANSWER, **changes: Any) -> gateway_pb2.SubmitTurnResponse:
        return await self.turns.submit(message(session_id, text, **changes))

    async def idle(self) -> None:
        """Wait until it has nothing left to do."""
        while self.background._tasks:
            await asyncio.wait(self.background._tasks)


def message(session_id: str, text: str = ANSWER, **changes: Any) -> Message:
    fields: dict[str, Any] = {
        "session_id": session_id,
        "owner_id": "ada",
        "kind": history_pb2.KIND_UNSPECIFIED,
        "request_id": str(uuid.uuid4()),
        "text": text,
        "in_reply_to": None,
    }
    return Message(**(fields | changes))


@dataclass
class World:
    """Everything behind gateways, and gateways."""

    database: Database
    models: Models
    targets: dict[str, str]
    _stack: AsyncExitStack
    _gateways: list[Gateway] = field(default_factory=list)

    def gateway(self, *, cannot_reach: tuple[str, ...] = ()) -> Gateway:
        """Another replica."""
        channels = {}
        for name, target in self.targets.items():
            channels[name] = client.open_channel(NOBODY if name in cannot_reach else target)
            self._stack.push_async_callback(channels[name].close)
        gateway = Gateway(Contexts.over(**channels))
        self._stack.push_async_callback(gateway.background.drain, 10)
        return gateway

    async def left_behind(self, gateway: Gateway, session_id: str, **changes: Any) -> history_pb2.Owner:
        """A message whose gateway has died right after the ledger had made it the owner, its lease over."""
        begun = await call(
            gateway.contexts.history.BeginTurn, message(session_id, **changes).begin(WINDOW, uuid.uuid4()), CAP_MS
        )
        assert begun.HasField("owner"), begun
        self.expire(session_id)
        return begun.owner

    def expire(self, session_id: str) -> None:
        """Let the lease of the running turn, and some seconds, pass."""
        self.execute(
            "UPDATE history.streams SET lease_until = clock_timestamp() - interval '1 ms' WHERE session_id = %s",
            session_id,
        )
        self.age(session_id)

    def age(self, session_id: str) -> None:
        """Let some time pass since the last write to a stream and the last fold of its answers."""
        self.execute(
            "UPDATE history.streams SET changed_at = changed_at - interval '1 min' WHERE session_id = %s", session_id
        )
        self.execute(
            "UPDATE assessment.answers SET folded_at = folded_at - interval '1 min' WHERE session_id = %s", session_id
        )

    def stream(self, session_id: str) -> dict[str, Any]:
        """The head of a stream as the table has it."""
        (row,) = self.rows("SELECT * FROM history.streams WHERE session_id = %s", session_id)
        return row

    def is_quiet(self, session_id: str) -> bool:
        """Whether nothing is left to be done for a session."""
        head = self.stream(session_id)
        return head["acked_rev"] == head["rev"] and head["active_turn"] is None

    def turn(self, session_id: str, turn_id: str) -> dict[str, Any]:
        (row,) = self.rows("SELECT * FROM history.turns WHERE session_id = %s AND turn_id = %s", session_id, turn_id)
        return row

    def execute(self, query: str, *parameters: object) -> None:
        with psycopg.connect(self.database.owner_dsn, autocommit=True) as connection:
            connection.execute(query.encode(), parameters)

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.database.owner_dsn, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(query.encode(), parameters).fetchall()


@asynccontextmanager
async def running(name: str, register: Any, *closing: Any) -> AsyncIterator[str]:
    """A server on a port; its target."""
    server = Server(name, ("127.0.0.1", 0), [register])
    await server.start()
    yield f"127.0.0.1:{server.port}"
    await server.drain()
    for close in closing:
        await close()


def wait_for_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no call be given up for being slow, whatever its cap."""
    timeout_seconds = client._timeout_seconds
    monkeypatch.setattr(client, "_timeout_seconds", lambda cap_ms: max(timeout_seconds(cap_ms), PATIENCE_MS / 1000))


@pytest.fixture
async def world(fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Everything up, over a database of its own; gone after the test."""
    wait_for_calls(monkeypatch)
    monkeypatch.setattr(runtime_server, "NOT_SERVING_SECONDS", 0)
    monkeypatch.setattr(recovery, "REPAIR_MS", PATIENCE_MS)
    monkeypatch.setattr(erasing, "FOLLOW_CAP_MS", PATIENCE_MS)
    monkeypatch.setattr(domain, "PLAN_SHARE_MS", PATIENCE_MS)
    database, models = fresh_database(), Models()
    async with AsyncExitStack() as stack:

        async def up(name: str, register: Any, *closing: Any) -> str:
            return await stack.enter_async_context(running(name, register, *closing))

        llm = await up("llm", partial(llm_pb2_grpc.add_LlmServiceServicer_to_server, models))
        pools = {
            name: db.Database(database.dsns[name], name, statement_timeout_ms=PATIENCE_MS)
            for name in ("history", "session", "assessment")
        }
        judge_channel = client.open_channel(llm)
        evidence = AssessmentStore(pools["assessment"])
        judge = Judge(llm_pb2_grpc.LlmServiceStub(judge_channel))
        assessment = AssessmentServicer(Interviews(evidence, CATALOGUE), Answers(evidence, CATALOGUE, judge))
        history = HistoryServicer(History(HistoryStore(pools["history"]), count))
        session = SessionServicer(Directory(SessionStore(pools["session"])))
        targets = {
            "llm": llm,
            "history": await up(
                "history", partial(add_HistoryServiceServicer_to_server, history), pools["history"].close
            ),
            "session": await up(
                "session", partial(add_SessionServiceServicer_to_server, session), pools["session"].close
            ),
            "assessment": await up(
                "assessment",
                partial(add_AssessmentServiceServicer_to_server, assessment),
                judge_channel.close,
                pools["assessment"].close,
            ),
        }
        yield World(database, models, targets, stack)
