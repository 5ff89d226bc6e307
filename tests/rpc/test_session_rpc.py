"""SessionService over a real channel: what callers get, in the contract's words."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.session.v1 import session_pb2, session_pb2_grpc
from libs.runtime import client, db
from libs.runtime.errors import ColloquyError, InvalidField, Malformed, NotFound, Unavailable
from libs.runtime.server import Server
from migrations.readiness import is_migrated
from services.session.servicer import SessionServicer
from services.session.store import Store
from services.session.usecases import Directory
from tests.conftest import FreshDatabase
from tests.databases import Database

if TYPE_CHECKING:
    from colloquy.session.v1.session_pb2_grpc import SessionServiceAsyncStub

OPENED_AT = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
ANYBODY = session_pb2.Viewer(any_owner=True)
CAP_MS = 5000
Outcome = session_pb2.ApplyTurnsResponse


@asynccontextmanager
async def serving(dsn: str) -> "AsyncIterator[SessionServiceAsyncStub]":
    """The service as its process runs it, on a free port, and a stub on a channel to it."""
    pool = db.Database(dsn, "session")
    servicer = SessionServicer(Directory(Store(pool)))
    register = partial(session_pb2_grpc.add_SessionServiceServicer_to_server, servicer)
    server = Server("session", ("127.0.0.1", 0), [register], ready=partial(is_migrated, pool, "session"))
    await server.start()
    channel = client.open_channel(f"127.0.0.1:{server.port}")
    try:
        yield session_pb2_grpc.SessionServiceStub(channel)
    finally:
        await channel.close()
        await server.drain()
        await pool.close()


@pytest.fixture(scope="module")
async def service(database: Database) -> "AsyncIterator[SessionServiceAsyncStub]":
    async with serving(database.dsns["session"]) as stub:
        yield stub


def stamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def opened(owner: str = "alice") -> session_pb2.Session:
    return session_pb2.Session(
        session_id=str(uuid4()),
        owner_id=owner,
        kind=session_pb2.KIND_INTERVIEW,
        plan="backend-engineer",
        versions={"bank": "2026-05-01"},
        candidate_name="Zoë 🦉",
        metadata={"job": "<b>42</b>"},
        max_turns=20,
        created_at=stamp(OPENED_AT),
    )


def ledger(session_id: str, length: int) -> list[session_pb2.AppliedTurn]:
    turns, digest = [], sha256(b"colloquy/stream/1" + UUID(session_id).bytes).digest()
    for seq in range(1, length + 1):
        following = sha256(digest).digest()
        turns.append(
            session_pb2.AppliedTurn(
                seq=seq,
                previous_digest=digest,
                digest=following,
                prompt_tokens=100,
                completion_tokens=10,
                cost_nano_usd=21_000,
            )
        )
        digest = following
    return turns


async def create(service: "SessionServiceAsyncStub", session: session_pb2.Session) -> session_pb2.Session:
    request = session_pb2.CreateSessionRequest(session=session)
    return (await client.call(service.CreateSession, request, CAP_MS)).session


async def get(
    service: "SessionServiceAsyncStub", session_id: str, viewer: session_pb2.Viewer = ANYBODY
) -> session_pb2.Session:
    request = session_pb2.GetSessionRequest(session_id=session_id, viewer=viewer)
    return (await client.call(service.GetSession, request, CAP_MS)).session


async def erase(service: "SessionServiceAsyncStub", session_id: str) -> None:
    await client.call(service.EraseSession, session_pb2.EraseSessionRequest(session_id=session_id), CAP_MS)


async def apply(
    service: "SessionServiceAsyncStub", *runs: session_pb2.SessionTurns
) -> Sequence[session_pb2.ApplyTurnsResponse.Result]:
    request = session_pb2.ApplyTurnsRequest(sessions=runs)
    return (await client.call(service.ApplyTurns, request, CAP_MS)).results


async def test_an_entry_comes_back_as_it_was_sent(service: "SessionServiceAsyncStub") -> None:
    sent = opened()

    created = await create(service, sent)

    assert created == await get(service, sent.session_id)
    assert created.status == session_pb2.STATUS_OPEN
    assert len(created.head_digest) == 32
    assert not created.HasField("completed_at")
    for field in ("owner_id", "kind", "plan", "versions", "candidate_name", "metadata", "max_turns", "created_at"):
        assert getattr(created, field) == getattr(sent, field)


async def test_a_session_is_folded_to_its_end_and_completed(service: "SessionServiceAsyncStub") -> None:
    session_id = (await create(service, opened())).session_id
    turns, sealed_at = ledger(session_id, 3), stamp(OPENED_AT + timedelta(minutes=5))

    (first,) = await apply(service, session_pb2.SessionTurns(session_id=session_id, turns=turns[:2], last_seq=2))
    end = session_pb2.SessionTurns(session_id=session_id, turns=turns[2:], last_seq=3, sealed=True, sealed_at=sealed_at)
    (last,) = await apply(service, end)
    (again,) = await apply(service, end)

    assert (first.outcome, first.applied_seq, first.completed) == (Outcome.OUTCOME_OK, 2, False)
    assert (last.outcome, last.applied_seq, last.completed) == (Outcome.OUTCOME_OK, 3, True)
    assert (again.outcome, again.applied_seq, again.completed) == (Outcome.OUTCOME_DUPLICATE, 3, True)
    assert again.head_digest == turns[2].digest
    entry = await get(service, session_id)
    assert (entry.status, entry.completed_at) == (session_pb2.STATUS_COMPLETED, sealed_at)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.cost_nano_usd) == (300, 30, 63_000)


async def test_results_stand_in_the_order_of_the_request(service: "SessionServiceAsyncStub") -> None:
    known, absent = (await create(service, opened())).session_id, str(uuid4())
    turns = ledger(known, 2)

    results = await apply(
        service,
        session_pb2.SessionTurns(session_id=absent, last_seq=0),
        session_pb2.SessionTurns(session_id=known, turns=turns[1:], last_seq=2),
    )

    assert [(it.session_id, it.outcome) for it in results] == [
        (absent, Outcome.OUTCOME_ABSENT),
        (known, Outcome.OUTCOME_GAP),
    ]
    assert not results[0].head_digest


async def test_the_answer_to_a_diverged_entry_replaces_it(service: "SessionServiceAsyncStub") -> None:
    session_id = (await create(service, opened())).session_id
    turns = ledger(session_id, 4)
    await apply(service, session_pb2.SessionTurns(session_id=session_id, turns=turns, last_seq=4))
    restored = session_pb2.SessionTurns(session_id=session_id, turns=turns[:2], last_seq=2)

    (diverged,) = await apply(service, restored)
    restored.replaces_digest = diverged.head_digest
    (replaced,) = await apply(service, restored)

    assert (diverged.outcome, diverged.applied_seq) == (Outcome.OUTCOME_DIVERGED, 4)
    assert (replaced.outcome, replaced.applied_seq) == (Outcome.OUTCOME_OK, 2)
    assert (await get(service, session_id)).cost_nano_usd == 42_000


async def test_absent_erased_and_not_yours_are_one_answer(service: "SessionServiceAsyncStub") -> None:
    alices, erased = (await create(service, opened("alice"))).session_id, (await create(service, opened())).session_id
    await erase(service, erased)
    bob = session_pb2.Viewer(owner_id="bob")

    answers = set()
    for session_id, viewer in (
        (alices, bob),
        (erased, ANYBODY),
        (str(uuid4()), ANYBODY),
        (alices, session_pb2.Viewer()),
    ):
        with pytest.raises(NotFound) as refused:
            await get(service, session_id, viewer)
        answers.add((refused.value.detail, str(refused.value.metadata)))

    assert len(answers) == 1


async def test_an_erased_session_is_refused_as_erased_and_in_no_list(service: "SessionServiceAsyncStub") -> None:
    owner = f"erin-{uuid4()}"
    listed, late = await create(service, opened(owner)), opened(owner)

    for session_id in (listed.session_id, late.session_id, listed.session_id):
        await erase(service, session_id)

    for session in (listed, late):
        with pytest.raises(NotFound):
            await create(service, session)
        turns = ledger(session.session_id, 2)
        [result] = await apply(
            service, session_pb2.SessionTurns(session_id=session.session_id, turns=turns, last_seq=2)
        )
        assert (result.outcome, result.applied_seq, result.head_digest) == (Outcome.OUTCOME_ERASED, 0, b"")
    request = session_pb2.ListSessionsRequest(viewer=session_pb2.Viewer(owner_id=owner))
    assert not (await client.call(service.ListSessions, request, CAP_MS)).sessions


async def test_only_a_session_can_be_erased(service: "SessionServiceAsyncStub") -> None:
    with pytest.raises(Malformed):
        await erase(service, "42")


async def test_pages_go_on_where_the_token_says(service: "SessionServiceAsyncStub") -> None:
    owner = f"dave-{uuid4()}"
    made = {(await create(service, opened(owner))).session_id for _ in range(5)}
    viewer = session_pb2.Viewer(owner_id=owner, kind=session_pb2.KIND_INTERVIEW)

    seen, token, pages = list[str](), "", 0
    while token or not pages:
        request = session_pb2.ListSessionsRequest(viewer=viewer, page_size=2, page_token=token)
        page = await client.call(service.ListSessions, request, CAP_MS)
        seen += [session.session_id for session in page.sessions]
        token, pages = page.next_page_token, pages + 1

    assert pages == 3
    assert seen == sorted(made, reverse=True)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (session_pb2.ListSessionsRequest(page_token="bm90IG1pbmU="), ["page_token"]),
        (session_pb2.ListSessionsRequest(page_size=201), ["page_size"]),
        (session_pb2.ListSessionsRequest(page_size=-1), ["page_size"]),
    ],
)
async def test_a_list_that_cannot_be_is_refused_by_field(
    service: "SessionServiceAsyncStub", request_: session_pb2.ListSessionsRequest, fields: list[str]
) -> None:
    with pytest.raises(InvalidField) as refused:
        await client.call(service.ListSessions, request_, CAP_MS)

    assert [violation.field for violation in refused.value.violations] == fields


async def test_a_batch_with_one_bad_run_folds_nothing(service: "SessionServiceAsyncStub") -> None:
    session_id = (await create(service, opened())).session_id
    good = session_pb2.SessionTurns(session_id=session_id, turns=ledger(session_id, 1), last_seq=1)
    bad = session_pb2.SessionTurns(session_id=str(uuid4()), last_seq=-1)

    with pytest.raises(InvalidField) as refused:
        await apply(service, good, bad)

    assert [violation.field for violation in refused.value.violations] == ["sessions[1].last_seq"]
    assert (await get(service, session_id)).applied_seq == 0


async def test_a_session_id_that_is_none_is_malformed(service: "SessionServiceAsyncStub") -> None:
    with pytest.raises(Malformed):
        await get(service, "42")


async def test_a_database_that_breaks_under_a_call_shows_nothing_of_itself(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    async with serving(own.dsns["session"]) as service:
        session_id = (await create(service, opened())).session_id
        with psycopg.connect(own.owner_dsn) as connection:
            connection.execute("ALTER TABLE session.sessions RENAME TO hidden")

        with pytest.raises(ColloquyError) as broken:
            await get(service, session_id)

        assert broken.value.reason == "INTERNAL"
        assert "sessions" not in broken.value.detail


async def test_without_its_database_the_service_is_unavailable_and_says_no_more() -> None:
    async with serving("postgresql://session:secret@127.0.0.1:1/nowhere") as service:
        with pytest.raises(Unavailable) as gone:
            await get(service, str(uuid4()))

    assert gone.value.retry_after_ms
    assert gone.value.detail == Unavailable.summary
