"""OperationsService over a real channel: what the gateway gets when an operator asks."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from colloquy.history.v1 import history_pb2, history_pb2_grpc, operations_pb2, operations_pb2_grpc
from libs.runtime import client, db
from libs.runtime.errors import InvalidField, Malformed, NotFound, RequestIdReused
from libs.runtime.server import Server
from libs.tokens.counting import count
from services.history.operations import Operations
from services.history.servicer import HistoryServicer, OperationsServicer
from services.history.store import Store
from services.history.usecases import History
from tests.databases import Database

if TYPE_CHECKING:
    from colloquy.history.v1.history_pb2_grpc import HistoryServiceAsyncStub
    from colloquy.history.v1.operations_pb2_grpc import OperationsServiceAsyncStub

CAP_MS = 5000
Action = operations_pb2.Intervention


@dataclass(frozen=True, slots=True)
class Service:
    history: "HistoryServiceAsyncStub"
    operations: "OperationsServiceAsyncStub"

    async def running(self) -> history_pb2.Owner:
        """A new chat with a message that is being answered."""
        session_id = await self._open(history_pb2.KIND_CHAT)
        message = history_pb2.BeginTurnRequest(
            session_id=session_id,
            owner_id="alice",
            request_id=str(uuid4()),
            user_text="one two",
            claim_id=str(uuid4()),
        )
        return (await client.call(self.history.BeginTurn, message, CAP_MS)).owner

    async def opening(self) -> str:
        """A new interview whose opening is being answered."""
        return await self._open(history_pb2.KIND_INTERVIEW)

    async def _open(self, kind: history_pb2.Kind.ValueType) -> str:
        session_id = str(uuid4())
        opening = history_pb2.OpenStreamRequest(
            session_id=session_id,
            owner_id="alice",
            kind=kind,
            request_id=str(uuid4()),
            fingerprint=bytes(32),
            max_turns=10,
            lease_ms=60_000,
            claim_id=str(uuid4()),
            with_opening=kind == history_pb2.KIND_INTERVIEW,
        )
        await client.call(self.history.OpenStream, opening, CAP_MS)
        return session_id


@pytest.fixture(scope="module")
async def service(database: Database) -> AsyncIterator[Service]:
    pool = db.Database(database.dsns["history"], "history")
    store = Store(pool)
    register = [
        partial(history_pb2_grpc.add_HistoryServiceServicer_to_server, HistoryServicer(History(store, count))),
        partial(operations_pb2_grpc.add_OperationsServiceServicer_to_server, OperationsServicer(Operations(store))),
    ]
    server = Server("history", ("127.0.0.1", 0), register)
    await server.start()
    channel = client.open_channel(f"127.0.0.1:{server.port}")
    try:
        yield Service(history_pb2_grpc.HistoryServiceStub(channel), operations_pb2_grpc.OperationsServiceStub(channel))
    finally:
        await channel.close()
        await server.drain()
        await pool.close()


def repair(session_id: str, **changes: Any) -> operations_pb2.InterveneStreamRequest:
    fields: dict[str, Any] = {
        "session_id": session_id,
        "intervention_id": str(uuid4()),
        "action": Action.ACTION_RESET,
        "actor": "olga",
        "reason": " stuck ",
    }
    return operations_pb2.InterveneStreamRequest(**(fields | changes))


async def test_a_repair_is_answered_with_its_record_and_listed(service: Service) -> None:
    held = await service.running()
    session_id = held.head.session_id
    asked = repair(session_id)

    first = await client.call(service.operations.InterveneStream, asked, CAP_MS)
    again = await client.call(service.operations.InterveneStream, asked, CAP_MS)
    closing = repair(session_id, action=Action.ACTION_COMPLETE)
    closed = await client.call(service.operations.InterveneStream, closing, CAP_MS)
    listing = operations_pb2.ListInterventionsRequest(session_id=session_id)
    listed = await client.call(service.operations.ListInterventions, listing, CAP_MS)

    made = first.intervention
    assert again == first
    assert (made.session_id, made.intervention_id, made.turn_id) == (session_id, asked.intervention_id, held.turn_id)
    assert (made.actor, made.reason, made.action) == ("olga", "stuck", Action.ACTION_RESET)
    assert (made.before.active_turn, made.before.fence, made.before.sealed) == (held.turn_id, 1, False)
    assert 0 < made.before.lease_left_ms <= 60_000
    assert (made.after.active_turn, made.after.fence, made.after.lease_left_ms) == ("", 2, 0)
    assert made.HasField("at")
    assert (first.head.sealed, closed.head.sealed, closed.intervention.after.sealed) == (False, True, True)
    assert list(listed.interventions) == [made, closed.intervention]


async def test_what_is_wrong_with_a_repair_is_said(service: Service) -> None:
    session_id = (await service.running()).head.session_id
    asked = repair(session_id)
    await client.call(service.operations.InterveneStream, asked, CAP_MS)
    other = repair(session_id, intervention_id=asked.intervention_id, reason="another")

    with pytest.raises(RequestIdReused):
        await client.call(service.operations.InterveneStream, other, CAP_MS)
    with pytest.raises(NotFound):
        await client.call(service.operations.InterveneStream, repair(str(uuid4())), CAP_MS)
    with pytest.raises(Malformed):
        await client.call(service.operations.InterveneStream, repair(session_id, intervention_id="1"), CAP_MS)
    with pytest.raises(InvalidField) as refused:
        await client.call(service.operations.InterveneStream, repair(session_id, action=0, reason=" "), CAP_MS)
    assert [violation.field for violation in refused.value.violations] == ["action", "reason"]


async def test_a_reset_of_an_opening_is_refused_and_says_what_to_do(service: Service) -> None:
    session_id = await service.opening()

    with pytest.raises(InvalidField) as refused:
        await client.call(service.operations.InterveneStream, repair(session_id), CAP_MS)
    closing = repair(session_id, action=Action.ACTION_COMPLETE)
    closed = await client.call(service.operations.InterveneStream, closing, CAP_MS)

    [violation] = refused.value.violations
    assert violation.field == "action"
    assert "complete" in violation.message
    assert closed.head.sealed


async def test_a_turn_is_read_whole_but_for_what_it_says(service: Service) -> None:
    held = await service.running()
    session_id = held.head.session_id
    reply = history_pb2.CommitTurnRequest(
        session_id=session_id, turn_id=held.turn_id, fence=held.fence, reply_text="three", record=b"\x00record"
    )
    look = operations_pb2.GetTurnRequest(session_id=session_id, turn_or_request_id=held.turn_id)

    running = await client.call(service.operations.GetTurn, look, CAP_MS)
    done = (await client.call(service.history.CommitTurn, reply, CAP_MS)).turn
    look.turn_or_request_id = done.request_id
    seen = await client.call(service.operations.GetTurn, look, CAP_MS)

    assert (running.turn.state, running.fence, running.user_tokens) == (history_pb2.TURN_STATE_RUNNING, 1, 2)
    assert 0 < running.lease_left_ms <= 60_000
    done.ClearField("user_text")
    done.ClearField("reply_text")
    assert seen.turn == done
    assert (seen.reply_tokens, seen.lease_left_ms, seen.head.last_seq, seen.erased) == (1, 0, 1, False)
    look.turn_or_request_id = str(uuid4())
    with pytest.raises(NotFound):
        await client.call(service.operations.GetTurn, look, CAP_MS)
