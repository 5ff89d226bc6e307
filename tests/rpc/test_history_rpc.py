"""HistoryService over a real channel: what callers get, in the contract's words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from colloquy.history.v1 import history_pb2 as pb
from colloquy.history.v1 import history_pb2_grpc
from libs.runtime import client, db
from libs.runtime.errors import (
    ColloquyError,
    Conflict,
    InvalidField,
    Malformed,
    NotFound,
    RateLimited,
    RequestIdReused,
    SessionClosed,
    SessionLimit,
    Unavailable,
)
from libs.runtime.server import Server
from libs.tokens.counting import count
from migrations.readiness import is_migrated
from services.history.servicer import HistoryServicer
from services.history.store import Store
from services.history.usecases import History
from tests.conftest import FreshDatabase
from tests.databases import Database

if TYPE_CHECKING:
    from colloquy.history.v1.history_pb2_grpc import HistoryServiceAsyncStub

CAP_MS = 5000
ALICE = pb.Viewer(owner_id="alice")
Outcome = pb.CommitTurnResponse


@asynccontextmanager
async def serving(dsn: str) -> "AsyncIterator[HistoryServiceAsyncStub]":
    """The service as its process runs it, on a free port, and a stub on a channel to it."""
    pool = db.Database(dsn, "history")
    servicer = HistoryServicer(History(Store(pool), count))
    register = partial(history_pb2_grpc.add_HistoryServiceServicer_to_server, servicer)
    server = Server("history", ("127.0.0.1", 0), [register], ready=partial(is_migrated, pool, "history"))
    await server.start()
    channel = client.open_channel(f"127.0.0.1:{server.port}")
    try:
        yield history_pb2_grpc.HistoryServiceStub(channel)
    finally:
        await channel.close()
        await server.drain()
        await pool.close()


@pytest.fixture(scope="module")
async def service(database: Database) -> "AsyncIterator[HistoryServiceAsyncStub]":
    async with serving(database.dsns["history"]) as stub:
        yield stub


def opening(**changes: Any) -> pb.OpenStreamRequest:
    fields: dict[str, Any] = {
        "session_id": str(uuid4()),
        "owner_id": "alice",
        "tenant_id": "acme",
        "kind": pb.KIND_INTERVIEW,
        "request_id": str(uuid4()),
        "fingerprint": b"f" * 32,
        "facts": b"\x00facts",
        "personal_facts": b"\xffname",
        "max_turns": 100,
        "lease_ms": 4000,
        "claim_id": str(uuid4()),
        "with_opening": True,
    }
    return pb.OpenStreamRequest(**(fields | changes))


def message(session_id: str, text: str = "hello", **changes: Any) -> pb.BeginTurnRequest:
    fields: dict[str, Any] = {
        "session_id": session_id,
        "owner_id": "alice",
        "kind": pb.KIND_INTERVIEW,
        "request_id": str(uuid4()),
        "user_text": text,
        "claim_id": str(uuid4()),
        "window": pb.WindowLimit(max_messages=10, max_tokens=3000),
    }
    return pb.BeginTurnRequest(**(fields | changes))


def answer(owner: pb.Owner, text: str = "Why?", **changes: Any) -> pb.CommitTurnRequest:
    fields: dict[str, Any] = {
        "session_id": owner.head.session_id,
        "turn_id": owner.turn_id,
        "fence": owner.fence,
        "reply_text": text,
        "record": b"\x00record",
    }
    return pb.CommitTurnRequest(**(fields | changes))


async def open_stream(service: "HistoryServiceAsyncStub", request: pb.OpenStreamRequest) -> pb.OpenStreamResponse:
    return await client.call(service.OpenStream, request, CAP_MS)


async def begin(service: "HistoryServiceAsyncStub", request: pb.BeginTurnRequest) -> pb.BeginTurnResponse:
    return await client.call(service.BeginTurn, request, CAP_MS)


async def commit(service: "HistoryServiceAsyncStub", request: pb.CommitTurnRequest) -> pb.CommitTurnResponse:
    return await client.call(service.CommitTurn, request, CAP_MS)


async def interview(service: "HistoryServiceAsyncStub", **changes: Any) -> str:
    """An open interview whose first question was asked: its id."""
    opened = await open_stream(service, opening(**changes))
    await commit(service, answer(opened.owner, "First?", item_asked="item-1"))
    return opened.head.session_id


async def violations(attempt: Any) -> list[str]:
    with pytest.raises(InvalidField) as caught:
        await attempt
    return [violation.field for violation in caught.value.violations]


async def test_an_interview_from_its_opening_to_its_end(service: "HistoryServiceAsyncStub") -> None:
    asked = opening()
    opened = await open_stream(service, asked)
    first = await commit(service, answer(opened.owner, "First?", item_asked="item-1"))
    begun = await begin(service, message(asked.session_id, "one", in_reply_to=1))
    last = await commit(service, answer(begun.owner, "Goodbye.", final=True))
    listed = await client.call(
        service.ListTurns, pb.ListTurnsRequest(session_id=asked.session_id, viewer=ALICE, max_turns=10), CAP_MS
    )

    head = opened.head
    assert opened.owner.head == head
    assert not opened.owner.HasField("last_turn")
    assert (head.owner_id, head.tenant_id, head.kind, head.max_turns) == ("alice", "acme", pb.KIND_INTERVIEW, 100)
    assert (head.facts, head.personal_facts, len(head.head_digest)) == (b"\x00facts", b"\xffname", 32)
    assert (opened.owner.lease_ms, opened.owner.fence, opened.owner.base_seq, opened.owner.takeover) == (
        4000,
        1,
        0,
        False,
    )
    assert not first.turn.HasField("user_text")
    assert (first.outcome, first.turn.seq, first.sealed) == (Outcome.OUTCOME_COMMITTED, 1, False)
    assert begun.owner.last_turn == first.turn
    assert [(it.from_user, it.text) for it in begun.owner.window] == [(False, "First?")]
    assert (last.outcome, last.turn.seq, last.sealed) == (Outcome.OUTCOME_COMMITTED, 2, True)
    assert (last.turn.user_text, last.turn.item_answered, last.turn.record) == ("one", "item-1", b"\x00record")
    assert last.turn.previous_digest == first.turn.digest
    assert list(listed.turns) == [first.turn, last.turn]
    assert (listed.head.sealed, listed.head.last_seq, listed.head.rev) == (True, 2, last.rev)
    assert listed.head.head_digest == last.turn.digest
    assert listed.head.sealed_at == last.turn.committed_at
    written_at = last.turn.committed_at.ToDatetime(tzinfo=UTC)
    assert abs(datetime.now(UTC) - written_at) < timedelta(minutes=5)


async def test_opening_again_tells_what_became_of_the_opening(service: "HistoryServiceAsyncStub") -> None:
    asked = opening()
    first = await open_stream(service, asked)
    asked.claim_id = str(uuid4())

    running = await open_stream(service, asked)
    done = await commit(service, answer(first.owner))
    replayed = await open_stream(service, asked)

    assert running.in_progress.turn_id == first.owner.turn_id
    assert 0 < running.in_progress.lease_left_ms <= 4000
    assert replayed.replay == done.turn
    assert replayed.head.last_seq == 1


async def test_a_chat_has_no_opening(service: "HistoryServiceAsyncStub") -> None:
    opened = await open_stream(service, opening(kind=pb.KIND_CHAT, with_opening=False, tenant_id=""))

    assert opened.opened == opened.head
    assert (opened.head.kind, opened.head.tenant_id, opened.head.rev) == (pb.KIND_CHAT, "", 1)


async def test_every_outcome_of_begin_has_its_form(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service)
    new = message(session_id)

    held = await begin(service, new)
    twin = await begin(service, message(session_id, request_id=new.request_id))
    other = await begin(service, message(session_id, "other"))
    done = await commit(service, answer(held.owner))
    replayed = await begin(service, message(session_id, request_id=new.request_id))

    assert held.WhichOneof("outcome") == "owner"
    assert twin.in_progress.turn_id == held.owner.turn_id
    assert (other.other_turn.turn_id, other.other_turn.fence) == (held.owner.turn_id, held.owner.fence)
    assert other.other_turn.lease_left_ms > 0
    assert not other.other_turn.HasField("turn")
    assert replayed.replay == done.turn


async def test_an_expired_turn_comes_with_its_row_and_can_be_repaired(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service, lease_ms=1)
    held = await begin(service, message(session_id, "first"))
    other = await begin(service, message(session_id, "second"))
    while other.other_turn.lease_left_ms:
        other = await begin(service, message(session_id, "second"))

    found = other.other_turn
    repaired = await commit(
        service, answer(held.owner, "Repaired.", turn_id=found.turn_id, fence=found.fence, item_asked="item-2")
    )

    assert (found.turn.user_text, found.turn.state, found.turn.base_seq) == ("first", pb.TURN_STATE_RUNNING, 1)
    assert repaired.turn.seq == 2


async def test_every_outcome_of_commit_has_its_form(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service)
    held = (await begin(service, message(session_id))).owner

    fenced = await commit(service, answer(held, fence=held.fence + 1))
    asked = await commit(service, answer(held, item_asked="item-1"))
    done = await commit(service, answer(held, item_asked="item-2"))
    again = await commit(service, answer(held, "something else", item_asked="item-2"))

    assert (fenced.outcome, fenced.turn.state) == (Outcome.OUTCOME_FENCED, pb.TURN_STATE_RUNNING)
    assert (asked.outcome, asked.HasField("turn")) == (Outcome.OUTCOME_ITEM_ALREADY_ASKED, False)
    assert (done.outcome, done.turn.state) == (Outcome.OUTCOME_COMMITTED, pb.TURN_STATE_COMMITTED)
    assert (again.outcome, again.turn, again.rev) == (Outcome.OUTCOME_DUPLICATE, done.turn, 0)


async def test_a_turn_given_back_is_pending(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service)
    held = (await begin(service, message(session_id, "keep me"))).owner
    release = pb.ReleaseTurnRequest(
        session_id=session_id,
        turn_id=held.turn_id,
        fence=held.fence,
        state=pb.TURN_STATE_ABANDONED,
        reason="UNAVAILABLE",
    )
    look = pb.GetStreamRequest(session_id=session_id, viewer=ALICE)

    running = await client.call(service.GetStream, look, CAP_MS)
    first = await client.call(service.ReleaseTurn, release, CAP_MS)
    second = await client.call(service.ReleaseTurn, release, CAP_MS)
    waiting = await client.call(service.GetStream, look, CAP_MS)

    assert running.pending.state == pb.TURN_STATE_RUNNING
    assert 0 < running.lease_left_ms <= 4000
    assert (first.released, second.released) == (True, False)
    assert (waiting.pending.user_text, waiting.pending.state) == ("keep me", pb.TURN_STATE_ABANDONED)
    assert (waiting.pending.reason, waiting.lease_left_ms) == ("UNAVAILABLE", 0)


async def test_a_sealed_session_refuses_what_is_new_and_replays_what_is_not(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service)
    running = message(session_id)
    await begin(service, running)
    seal = pb.SealStreamRequest(session_id=session_id, viewer=ALICE)

    first = await client.call(service.SealStream, seal, CAP_MS)
    second = await client.call(service.SealStream, seal, CAP_MS)
    replayed = await begin(service, running)

    assert first == second
    assert first.head.sealed
    assert (replayed.replay.state, replayed.replay.reason) == (pb.TURN_STATE_FAILED, "SESSION_CLOSED")
    with pytest.raises(SessionClosed):
        await begin(service, message(session_id))


async def test_an_erased_session_is_gone_for_everybody_but_for_who_erases_it_again(
    service: "HistoryServiceAsyncStub",
) -> None:
    session_id = await interview(service)
    new = message(session_id)
    held = (await begin(service, new)).owner
    erase = pb.EraseStreamRequest(session_id=session_id, viewer=pb.Viewer(owner_id="operator", any_owner=True))

    first = await client.call(service.EraseStream, erase, CAP_MS)
    second = await client.call(service.EraseStream, erase, CAP_MS)
    settled = pb.AcknowledgeStreamsRequest.Settled(session_id=session_id, rev=first.head.rev)
    done = await client.call(service.AcknowledgeStreams, pb.AcknowledgeStreamsRequest(streams=[settled]), CAP_MS)

    assert first == second
    assert (first.head.kind, first.head.sealed, first.head.last_seq) == (pb.KIND_INTERVIEW, True, 1)
    assert (first.head.facts, first.head.personal_facts) == (b"\x00facts", b"")
    assert done.acknowledged == 1
    erase.viewer.CopyFrom(pb.Viewer(owner_id="bob"))
    attempts: list[Any] = [
        client.call(service.EraseStream, erase, CAP_MS),
        client.call(service.GetStream, pb.GetStreamRequest(session_id=session_id, viewer=ALICE), CAP_MS),
        begin(service, new),
        commit(service, answer(held)),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt


async def test_where_turns_stand_is_told_together(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service)
    done = (await commit(service, answer((await begin(service, message(session_id))).owner))).turn
    running = (await begin(service, message(session_id))).owner.turn_id
    keys = [
        pb.BatchGetTurnsRequest.TurnKey(session_id=session_id, turn_id=turn_id)
        for turn_id in (done.turn_id, running, str(uuid4()))
    ]

    found = await client.call(service.BatchGetTurns, pb.BatchGetTurnsRequest(turns=keys), CAP_MS)

    by_id = {status.turn_id: status for status in found.turns}
    assert {it: by_id[it].state for it in by_id} == {
        done.turn_id: pb.TURN_STATE_COMMITTED,
        running: pb.TURN_STATE_RUNNING,
    }
    assert by_id[done.turn_id].committed_at == done.committed_at
    assert not by_id[running].HasField("committed_at")
    assert {status.session_id for status in found.turns} == {session_id}


async def test_what_is_not_settled_is_listed_page_by_page(fresh_database: FreshDatabase) -> None:
    async with serving(fresh_database().dsns["history"]) as service:
        first, second, third = sorted([await interview(service, lease_ms=60_000) for _ in range(3)])
        held = (await begin(service, message(first, "late"))).owner
        erase = pb.EraseStreamRequest(session_id=third, viewer=ALICE)
        await client.call(service.EraseStream, erase, CAP_MS)

        request = pb.ListUnsettledRequest(max_streams=2)
        page = await client.call(service.ListUnsettled, request, CAP_MS)
        request.after_session_id = page.streams[-1].head.session_id
        last = await client.call(service.ListUnsettled, request, CAP_MS)
        rested = pb.ListUnsettledRequest(max_streams=500, min_age_ms=60_000)
        none = await client.call(service.ListUnsettled, rested, CAP_MS)

    running, quiet = page.streams
    assert [running.head.session_id, quiet.head.session_id, last.streams[0].head.session_id] == [first, second, third]
    assert (page.more, last.more, len(last.streams)) == (True, False, 1)
    assert (running.active.turn_id, running.active.user_text, running.head.fence) == (held.turn_id, "late", held.fence)
    assert 0 < running.lease_left_ms <= 60_000
    assert 0 <= running.age_ms < 60_000
    assert not quiet.HasField("active")
    assert [it.erased for it in (running, quiet, last.streams[0])] == [False, False, True]
    assert list(none.streams) == []


async def test_streams_are_read_together_and_acknowledged(service: "HistoryServiceAsyncStub") -> None:
    sessions = [await interview(service) for _ in range(3)]
    wanted = pb.BatchGetStreamsRequest(session_ids=[*sessions[::-1], str(uuid4())], viewer=ALICE)

    before = await client.call(service.BatchGetStreams, wanted, CAP_MS)
    settled = [
        pb.AcknowledgeStreamsRequest.Settled(session_id=it.head.session_id, rev=it.head.rev) for it in before.streams
    ]
    settled[0].rev -= 1
    done = await client.call(service.AcknowledgeStreams, pb.AcknowledgeStreamsRequest(streams=settled), CAP_MS)
    after = await client.call(service.BatchGetStreams, wanted, CAP_MS)

    assert [it.head.session_id for it in before.streams] == sessions[::-1]
    assert done.acknowledged == 2
    assert [it.head.acked_rev for it in after.streams] == [0, 2, 2]


@pytest.mark.parametrize(
    ("opened", "sent", "refusal"),
    [
        ({}, {"in_reply_to": 0}, Conflict),
        ({}, {"in_reply_to": 2}, InvalidField),
        ({"max_turns": 1}, {}, SessionLimit),
    ],
)
async def test_a_refusal_keeps_its_reason_over_the_wire(
    service: "HistoryServiceAsyncStub", opened: dict[str, Any], sent: dict[str, Any], refusal: type[ColloquyError]
) -> None:
    session_id = await interview(service, **opened)

    with pytest.raises(refusal):
        await begin(service, message(session_id, **sent))


async def test_the_pace_tells_its_wait(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service, min_interval_ms=60_000)
    await commit(service, answer((await begin(service, message(session_id))).owner))

    with pytest.raises(RateLimited) as caught:
        await begin(service, message(session_id))

    assert caught.value.retry_after_ms is not None
    assert 0 < caught.value.retry_after_ms <= 60_000


async def test_a_request_id_used_again_for_something_else_is_refused(service: "HistoryServiceAsyncStub") -> None:
    asked = opening()
    await open_stream(service, asked)
    asked.fingerprint = b"x" * 32

    with pytest.raises(RequestIdReused):
        await open_stream(service, asked)
    with pytest.raises(RequestIdReused):
        await begin(service, message(asked.session_id, request_id=asked.request_id))


async def test_absent_not_yours_and_of_another_kind_are_one_answer(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service)
    cases = [
        (str(uuid4()), ALICE),
        (session_id, pb.Viewer(owner_id="bob")),
        (session_id, pb.Viewer()),
        (session_id, pb.Viewer(any_owner=True, kind=pb.KIND_CHAT)),
    ]

    answers = set()
    for session, viewer in cases:
        attempts: list[Any] = [
            client.call(service.GetStream, pb.GetStreamRequest(session_id=session, viewer=viewer), CAP_MS),
            client.call(service.ListTurns, pb.ListTurnsRequest(session_id=session, viewer=viewer, max_turns=1), CAP_MS),
            client.call(service.SealStream, pb.SealStreamRequest(session_id=session, viewer=viewer), CAP_MS),
        ]
        if not viewer.any_owner:
            attempts.append(begin(service, message(session, owner_id=viewer.owner_id)))
        for attempt in attempts:
            with pytest.raises(NotFound) as caught:
                await attempt
            answers.add((caught.value.detail, str(caught.value.metadata)))

    assert len(answers) == 1


@pytest.mark.parametrize("field", ["session_id", "request_id", "claim_id"])
@pytest.mark.parametrize("broken", ["", "nonsense", "urn:uuid:" + "0" * 32, "ABCDEF01-2345-6789-ABCD-EF0123456789"])
async def test_an_id_that_is_no_canonical_uuid_is_malformed(
    service: "HistoryServiceAsyncStub", field: str, broken: str
) -> None:
    new, asked = message(str(uuid4())), opening()
    setattr(new, field, broken)
    setattr(asked, field, broken)

    with pytest.raises(Malformed):
        await begin(service, new)
    with pytest.raises(Malformed):
        await open_stream(service, asked)


async def test_a_fingerprint_of_another_length_is_malformed(service: "HistoryServiceAsyncStub") -> None:
    with pytest.raises(Malformed):
        await open_stream(service, opening(fingerprint=b"short"))


async def test_every_field_at_fault_is_named(service: "HistoryServiceAsyncStub", database: Database) -> None:
    session_id = await interview(service)
    held = (await begin(service, message(session_id))).owner
    release = pb.ReleaseTurnRequest(session_id=session_id, turn_id=held.turn_id, fence=held.fence)
    many = [str(uuid4())] * 201
    settled = [pb.AcknowledgeStreamsRequest.Settled(session_id=str(uuid4()))] * 501
    turns = pb.ListTurnsRequest(session_id=session_id, viewer=ALICE, max_turns=201, after_seq=-1)

    assert await violations(begin(service, message(session_id, "\0", in_reply_to=-1))) == [
        "text",
        "text",
        "in_reply_to",
    ]
    assert await violations(open_stream(service, opening(kind=0, max_turns=0))) == ["kind", "max_turns"]
    assert await violations(open_stream(service, opening(kind=9))) == ["kind"]
    assert await violations(commit(service, answer(held, ""))) == ["reply_text"]
    assert await violations(client.call(service.ReleaseTurn, release, CAP_MS)) == ["state", "reason"]
    assert await violations(client.call(service.ListTurns, turns, CAP_MS)) == ["after_seq", "max_turns"]
    assert await violations(
        client.call(service.BatchGetStreams, pb.BatchGetStreamsRequest(session_ids=many, viewer=ALICE), CAP_MS)
    ) == ["session_ids"]
    assert await violations(
        client.call(service.AcknowledgeStreams, pb.AcknowledgeStreamsRequest(streams=settled), CAP_MS)
    ) == ["streams"]
    keys = [pb.BatchGetTurnsRequest.TurnKey(session_id=session_id, turn_id=held.turn_id)] * 501
    assert await violations(client.call(service.BatchGetTurns, pb.BatchGetTurnsRequest(turns=keys), CAP_MS)) == [
        "turns"
    ]
    unsettled = pb.ListUnsettledRequest(max_streams=501, min_age_ms=-1)
    assert await violations(client.call(service.ListUnsettled, unsettled, CAP_MS)) == ["max_streams", "min_age_ms"]
    async with await psycopg.AsyncConnection.connect(database.dsns["history"]) as connection:
        cursor = await connection.execute("SELECT count(*) FROM history.turns WHERE session_id = %s", [session_id])
        assert await cursor.fetchone() == (2,), "none of them has left a row"


async def test_a_commit_of_an_absent_turn_is_not_found(service: "HistoryServiceAsyncStub") -> None:
    session_id = await interview(service)
    held = (await begin(service, message(session_id))).owner

    with pytest.raises(NotFound):
        await commit(service, answer(held, turn_id=str(uuid4())))


async def once_it_is_back(service: "HistoryServiceAsyncStub", request: pb.BeginTurnRequest) -> pb.BeginTurnResponse:
    """The answer, once neither the call nor the readiness meets a connection that was cut."""
    async with asyncio.timeout(20):
        while True:
            with suppress(Unavailable):
                return await begin(service, request)


async def test_a_broken_database_is_unavailable_and_tells_nothing_of_itself(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    async with serving(own.dsns["history"]) as service:
        session_id = await interview(service)
        async with await psycopg.AsyncConnection.connect(own.owner_dsn, autocommit=True) as connection:
            await connection.execute("ALTER TABLE history.turns RENAME TO gone")
        with pytest.raises(ColloquyError) as broken:
            await begin(service, message(session_id))
        async with await psycopg.AsyncConnection.connect(own.owner_dsn, autocommit=True) as connection:
            await connection.execute("ALTER TABLE history.gone RENAME TO turns")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
        healed = await once_it_is_back(service, message(session_id))

    assert healed.WhichOneof("outcome") == "owner"
    assert broken.value.reason == "INTERNAL"
    for word in ("history", "turns", "relation", "SELECT", "42P01"):
        assert word not in broken.value.detail
