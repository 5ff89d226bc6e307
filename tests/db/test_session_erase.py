"""Erasing an entry of the directory: what is left, and that no write brings anything back, whichever comes first."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from uuid import uuid4

import pytest

from libs.folding.runs import Digest, Outcome, Run, first_digest
from libs.runtime import db
from libs.runtime.errors import NotFound
from services.session import store
from services.session.domain import Kind, NanoUsd, NewSession, OwnerId, SessionId, Totals
from services.session.entries import AppliedTurn, Reading
from services.session.listing import NEWEST, PageRequest, Viewer
from services.session.store import Store
from services.session.usecases import Directory
from tests.databases import Database
from tests.db.erasure import open_transaction, remains, writing

OWNER, NAME, PAIR = "alice@example.org", "Zoë Quill", "requisition-4711"
EVERYONE = Viewer(None, None)
Write = Callable[[Directory, SessionId], Awaitable[object]]


@pytest.fixture(scope="module")
async def directory(database: Database) -> AsyncIterator[Directory]:
    pool = db.Database(database.dsns["session"], "session", pool_size=8, statement_timeout_ms=10_000)
    yield Directory(Store(pool))
    await pool.close()


def opened(session_id: SessionId) -> NewSession:
    return NewSession(
        session_id=session_id,
        owner_id=OwnerId(OWNER),
        tenant_id="acme",
        kind=Kind.INTERVIEW,
        plan="backend-engineer",
        versions={"bank": "backend-engineer/1"},
        candidate_name=NAME,
        metadata={"job": PAIR},
        max_turns=20,
        created_at=datetime(2999, 5, 6, tzinfo=UTC),  # first in every list, whoever else's sessions are there
    )


def run(session_id: SessionId) -> Reading:
    digest = Digest(sha256(session_id.bytes).digest())
    turn = AppliedTurn(1, first_digest(session_id), digest, Totals(100, 10, NanoUsd(21_000)))
    return Reading(Run(session_id, (turn,), 1))


async def create(directory: Directory, session_id: SessionId) -> None:
    await directory.create(opened(session_id))


async def fold(directory: Directory, session_id: SessionId) -> None:
    await directory.apply([run(session_id)])


WRITES = pytest.mark.parametrize("write", [create, fold])


def assert_nothing_personal(database: Database, session_id: SessionId) -> None:
    [row] = remains(database, "session", session_id)
    assert row["erased"]
    assert not [said for said in (OWNER, NAME, PAIR) if said in str(row)]


async def test_an_erase_leaves_what_was_counted_and_nobody_it_was_counted_of(
    directory: Directory, database: Database
) -> None:
    session_id = SessionId(uuid4())
    await create(directory, session_id)
    await fold(directory, session_id)
    [before] = remains(database, "session", session_id)

    await directory.erase(session_id)

    [after] = remains(database, "session", session_id)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"erased", "owner_id", "candidate_name", "metadata", "version"}
    assert (after["applied_seq"], after["prompt_tokens"], after["cost_nano_usd"]) == (1, 100, 21_000)
    assert_nothing_personal(database, session_id)


async def test_an_erase_again_changes_nothing(directory: Directory, database: Database) -> None:
    session_id = SessionId(uuid4())
    await create(directory, session_id)
    await directory.erase(session_id)
    before = remains(database, "session", session_id)

    await asyncio.gather(*(directory.erase(session_id) for _ in range(4)))

    assert remains(database, "session", session_id) == before


async def test_an_erased_session_is_in_no_list_and_can_neither_be_read_nor_entered_nor_folded(
    directory: Directory,
) -> None:
    kept, erased, never = SessionId(uuid4()), SessionId(uuid4()), SessionId(uuid4())
    await create(directory, kept)
    await create(directory, erased)

    for session_id in (erased, never):
        await directory.erase(session_id)

    for viewer in (EVERYONE, Viewer(OwnerId(OWNER), Kind.INTERVIEW)):
        page = await directory.page(viewer, PageRequest(200, NEWEST))
        assert {entry.facts.session_id for entry in page.entries} & {kept, erased, never} == {kept}
    for session_id in (erased, never):
        with pytest.raises(NotFound):
            await directory.get(session_id, EVERYONE)
        with pytest.raises(NotFound):
            await create(directory, session_id)
        [applied] = await directory.apply([run(session_id)])
        assert (applied.outcome, applied.position) == (Outcome.ERASED, None)


def test_every_statement_that_writes_is_tried_here() -> None:
    assert writing(store) == {"session_insert", "session_advance", "session_erase"}


@WRITES
async def test_a_write_that_waited_for_the_erase_changes_nothing(
    directory: Directory, database: Database, write: Write
) -> None:
    session_id = SessionId(uuid4())
    if write is fold:
        await create(directory, session_id)
    async with open_transaction(database.dsns["session"]) as (erasing, transaction):
        await Store(erasing).erase(session_id)

        writing = asyncio.ensure_future(write(directory, session_id))
        await transaction.is_waited_for()
        await transaction.commit()
        await asyncio.wait([writing])

    assert_nothing_personal(database, session_id)
    [row] = remains(database, "session", session_id)
    assert row["applied_seq"] == 0


@WRITES
async def test_an_erase_that_waited_for_a_write_clears_what_it_wrote(
    directory: Directory, database: Database, write: Write
) -> None:
    session_id = SessionId(uuid4())
    if write is fold:
        await create(directory, session_id)
    async with open_transaction(database.dsns["session"]) as (writing, transaction):
        await write(Directory(Store(writing)), session_id)

        erasing = asyncio.create_task(directory.erase(session_id))
        await transaction.is_waited_for()
        await transaction.commit()
        await erasing

    assert_nothing_personal(database, session_id)


async def test_whatever_the_order_nothing_is_left_of_whom_it_was(directory: Directory, database: Database) -> None:
    ids = [SessionId(uuid4()) for _ in range(30)]

    for session_id in ids:
        await asyncio.gather(
            create(directory, session_id),
            fold(directory, session_id),
            directory.erase(session_id),
            create(directory, session_id),
            fold(directory, session_id),
            return_exceptions=True,
        )

    for session_id in ids:
        assert_nothing_personal(database, session_id)
