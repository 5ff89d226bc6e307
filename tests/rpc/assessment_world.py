"""The assessment service on a port, a real PostgreSQL under it, and a scripted llm-gateway behind it.

The script keeps the llm-gateway's contract where the assessment relies on it: a call that is DONE is never made again,
one that FAILED or was cleared is repeated and counted, as often as it may be; one whose caller has gone goes on.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import grpc

from colloquy.assessment.v1 import assessment_pb2
from colloquy.assessment.v1.assessment_pb2_grpc import AssessmentServiceStub, add_AssessmentServiceServicer_to_server
from colloquy.llm.v1 import llm_pb2, llm_pb2_grpc
from libs.folding.runs import first_digest
from libs.runtime import client, db
from libs.runtime.errors import ColloquyError, NotFound, Unavailable, Unimplemented
from libs.runtime.server import Server
from services.assessment.answers import Answers
from services.assessment.bankfile import read_banks
from services.assessment.catalogue import Catalogue
from services.assessment.judge import Judge
from services.assessment.servicer import AssessmentServicer
from services.assessment.store import Store
from services.assessment.usecases import Interviews
from tests.databases import Database

ANSWER = "I would add an index on the column that the query filters by, and then look at the plan again."
QUESTION = "How would you find out why a query is slow?"
CATALOGUE = Catalogue.of(read_banks())
CAP_MS = 10_000
"""Bounds a hang: a slow machine takes longer than the client's default of 150 ms."""

Step = Callable[[llm_pb2.Call], Awaitable[None]]


def verdict(level: int = 2, quote: str = "add an index", **changes: object) -> str:
    """What a judge says, as JSON."""
    said = {"quotes": [quote], "rationale": "It names an index.", "level": level, "confidence": 0.9}
    return json.dumps({**said, **changes})


def says(text: str) -> Step:
    """The call is DONE with this text."""

    async def step(call: llm_pb2.Call) -> None:
        call.text, call.state = text, llm_pb2.CALL_STATE_DONE
        call.usage.CopyFrom(llm_pb2.Usage(prompt_tokens=100, completion_tokens=10, cost_nano_usd=21_000))

    return step


def says_after(event: asyncio.Event, text: str) -> Step:
    """The call is in flight until the event."""

    async def step(call: llm_pb2.Call) -> None:
        await event.wait()
        await says(text)(call)

    return step


async def fails(call: llm_pb2.Call) -> None:
    """No attempt gave an answer."""
    call.state = llm_pb2.CALL_STATE_FAILED


@dataclass
class ScriptedLlm(llm_pb2_grpc.LlmServiceServicer):
    """Generate and GetCall, each call as the script of its turn has it, one step after another."""

    script: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    refusals: dict[str, ColloquyError] = field(default_factory=dict)
    """What a turn's requests are answered with before any call is made."""
    calls: dict[tuple[str, str], llm_pb2.Call] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)
    """Calls made by turn, repeats included."""
    waiting: Counter[str] = field(default_factory=Counter)
    """Requests by turn that wait, or have waited, for a call."""
    prompts: list[llm_pb2.GenerateRequest] = field(default_factory=list)
    listing_waits: list[asyncio.Event] = field(default_factory=list)
    """What the next requests for a list of calls wait for, one after another."""
    _flights: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)

    async def Generate(self, request: llm_pb2.GenerateRequest, context: Any) -> llm_pb2.GenerateResponse:  # noqa: N802
        if refusal := self.refusals.get(request.turn_id):
            raise refusal
        key = (request.turn_id, request.purpose)
        call = self.calls.get(key)
        if key not in self._flights and (call is None or call.state != llm_pb2.CALL_STATE_DONE):
            if call and request.HasField("max_repeats") and call.repeats >= request.max_repeats:
                return llm_pb2.GenerateResponse(call=call, reused=True)
            self.prompts.append(request)
            self._flights[key] = asyncio.create_task(self._fly(key, request, call))
        self.waiting[request.turn_id] += 1
        if flight := self._flights.get(key):
            await asyncio.shield(flight)
        if self.calls[key].state != llm_pb2.CALL_STATE_DONE:
            raise Unavailable
        return llm_pb2.GenerateResponse(call=self.calls[key])

    async def GetCall(self, request: llm_pb2.GetCallRequest, context: Any) -> llm_pb2.GetCallResponse:  # noqa: N802
        call = self.calls.get((request.turn_id, request.purpose))
        if call is None:
            raise NotFound
        return llm_pb2.GetCallResponse(call=call)

    def StreamGenerate(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise Unimplemented

    async def ListCalls(self, request: llm_pb2.ListCallsRequest, context: Any) -> llm_pb2.ListCallsResponse:  # noqa: N802
        if self.listing_waits:
            await self.listing_waits.pop(0).wait()
        of_turn = [call for (turn_id, _), call in self.calls.items() if turn_id == request.turn_id]
        return llm_pb2.ListCallsResponse(
            calls=[
                llm_pb2.CallEntry(purpose=it.purpose, state=it.state, repeats=it.repeats, usage=it.usage)
                for it in of_turn
            ]
        )

    async def ListClearable(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise Unimplemented

    async def ClearResults(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise Unimplemented

    async def EraseSession(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise Unimplemented

    def clear(self, turn_id: str) -> None:
        """Clear what the turn's calls have said, as the sweep does an hour after its commit."""
        for (of_turn, _), call in self.calls.items():
            if of_turn == turn_id:
                call.text, call.state, call.cleared = "", llm_pb2.CALL_STATE_UNKNOWN, True

    async def _fly(self, key: tuple[str, str], request: llm_pb2.GenerateRequest, earlier: llm_pb2.Call | None) -> None:
        call = self.calls[key] = llm_pb2.Call(
            session_id=request.session_id,
            turn_id=request.turn_id,
            purpose=request.purpose,
            state=llm_pb2.CALL_STATE_INFLIGHT,
            prompt_version=request.prompt.version,
            model="scripted",
            repeats=earlier.repeats + 1 if earlier else 0,
        )
        self.made[request.turn_id] += 1
        try:
            await self.script[request.turn_id].pop(0)(call)
        finally:
            del self._flights[key]


@dataclass(frozen=True)
class World:
    """The service, what is behind it, and its tables as their owner sees them."""

    assessment: Any
    llm: ScriptedLlm
    owner_dsn: str

    async def start(self, plan: str = "backend-engineer", name: str = "") -> "Told":
        """Begin an interview."""
        told = Told(UUID(bytes=uuid4().bytes))
        request = assessment_pb2.StartInterviewRequest(
            session_id=str(told.session_id), plan=plan, bank_version="backend-engineer/1", candidate_name=name
        )
        told.plan = (await client.call(self.assessment.StartInterview, request, CAP_MS)).plan
        return told

    async def get_plan(self, told: "Told", turns: list[assessment_pb2.AppliedTurn], base_seq: int) -> Any:
        request = assessment_pb2.GetPlanRequest(session_id=str(told.session_id), base_seq=base_seq, turns=turns)
        return (await client.call(self.assessment.GetPlan, request, CAP_MS)).plan

    async def apply(self, *runs: assessment_pb2.InterviewTurns) -> Any:
        response = await client.call(
            self.assessment.ApplyTurns, assessment_pb2.ApplyTurnsRequest(sessions=runs), CAP_MS
        )
        return response.results

    async def erase(self, told: "Told") -> None:
        request = assessment_pb2.EraseInterviewRequest(session_id=str(told.session_id))
        await client.call(self.assessment.EraseInterview, request, CAP_MS)

    async def assess(self, told: "Told", turn: assessment_pb2.AppliedTurn, cap_ms: int = CAP_MS, **changes: Any) -> Any:
        fields: dict[str, Any] = {
            "session_id": str(told.session_id),
            "turn_id": turn.turn_id,
            "bank_version": "backend-engineer/1",
            "item_id": turn.item_answered,
            "question_text": QUESTION,
            "answer_text": ANSWER,
        }
        request = assessment_pb2.AssessAnswerRequest(**{**fields, **changes})
        return await client.call(self.assessment.AssessAnswer, request, cap_ms)


@dataclass
class Told:
    """An interview's ledger as history would tell it."""

    session_id: UUID
    plan: Any = None
    turns: list[assessment_pb2.AppliedTurn] = field(default_factory=list)

    def turn(self, asked: str = "", answered: str | None = None) -> assessment_pb2.AppliedTurn:
        """Another committed turn; it answers what the turn before asked, unless told otherwise."""
        before = self.turns[-1] if self.turns else None
        seq = len(self.turns) + 1
        previous = before.digest if before else first_digest(self.session_id)
        turn = assessment_pb2.AppliedTurn(
            turn_id=str(uuid4()),
            seq=seq,
            previous_digest=previous,
            digest=sha256(previous + uuid4().bytes).digest(),
            item_answered=answered if answered is not None else (before.item_asked if before else ""),
            item_asked=asked,
        )
        self.turns.append(turn)
        return turn

    def run(
        self, first: int = 1, last: int | None = None, *, sealed: bool = False, replaces: bytes = b""
    ) -> assessment_pb2.InterviewTurns:
        """The turns from `first` to `last`, of the whole ledger."""
        return assessment_pb2.InterviewTurns(
            session_id=str(self.session_id),
            turns=self.turns[first - 1 : last],
            last_seq=len(self.turns),
            sealed=sealed,
            replaces_digest=replaces,
        )


@asynccontextmanager
async def world(database: Database) -> AsyncIterator[World]:
    """Everything up, on ports of its own; gone when the block ends."""
    llm = ScriptedLlm()
    llm_server = Server("llm", ("127.0.0.1", 0), [partial(llm_pb2_grpc.add_LlmServiceServicer_to_server, llm)])
    await llm_server.start()
    pool = db.Database(database.dsns["assessment"], "assessment", statement_timeout_ms=10_000)
    llm_channel = client.open_channel(f"127.0.0.1:{llm_server.port}")
    store = Store(pool)
    answers = Answers(store, CATALOGUE, Judge(llm_pb2_grpc.LlmServiceStub(llm_channel)))
    servicer = AssessmentServicer(Interviews(store, CATALOGUE), answers)
    server = Server("assessment", ("127.0.0.1", 0), [partial(add_AssessmentServiceServicer_to_server, servicer)])
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield World(AssessmentServiceStub(channel), llm, database.owner_dsn)
    await server.drain()
    await llm_channel.close()
    await llm_server.drain()
    await pool.close()
