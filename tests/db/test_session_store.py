"""The directory on a real PostgreSQL: what a batch does, what folders do to each other, what statements read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from libs.folding.runs import Digest, Outcome, Position, Run, first_digest
from libs.runtime import db, telemetry
from libs.runtime.errors import NotFound
from services.session import store as statements
from services.session.domain import Kind, NanoUsd, NewSession, OwnerId, SessionId, Status, Totals
from services.session.entries import AppliedTurn, Entry, Reading, gained
from services.session.listing import NEWEST, PageRequest, Viewer
from services.session.store import Store
from services.session.usecases import Applied, Directory
from tests.conftest import FreshDatabase
from tests.databases import Database
from tests.db.plans import plan_nodes

OPENED_AT = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
SEALED_AT = OPENED_AT + timedelta(minutes=30)
EVERYONE = Viewer(None, None)


@pytest.fixture(scope="module")
async def directory(database: Database) -> AsyncIterator[Directory]:
    pool = db.Database(database.dsns["session"], "session", pool_size=24, statement_timeout_ms=10_000)
    yield Directory(Store(pool))
    await pool.close()


def opened(owner: str = "alice", kind: Kind = Kind.INTERVIEW, created_at: datetime = OPENED_AT) -> NewSession:
    return NewSession(
        SessionId(uuid4()),
        OwnerId(owner),
        "",
        kind,
        "backend-engineer",
        {"bank": "1"},
        "Zoë",
        {"a": "b"},
        20,
        created_at,
    )


def ledger(session_id: SessionId, length: int, seed: str = "") -> tuple[AppliedTurn, ...]:
    turns: list[AppliedTurn] = []
    digest = first_digest(session_id)
    for seq in range(1, length + 1):
        following = Digest(sha256(f"{seed}{session_id}{seq}".encode()).digest())
        turns.append(AppliedTurn(seq, digest, following, Totals(seq, 2 * seq, NanoUsd(3 * seq))))
        digest = following
    return tuple(turns)


def run(turns: Sequence[AppliedTurn], session_id: SessionId, last_seq: int, *, sealed: bool = False) -> Reading:
    return Reading(Run(session_id, tuple(turns), last_seq, sealed), SEALED_AT if sealed else None)


def whole(turns: Sequence[AppliedTurn], session_id: SessionId, *, sealed: bool = False) -> Reading:
    return run(turns, session_id, len(turns), sealed=sealed)


async def folded(directory: Directory, *readings: Reading) -> list[Outcome]:
    return [applied.outcome for applied in await directory.apply(readings)]


def statements_sent(name: str) -> float:
    telemetry.flush()
    return REGISTRY.get_sample_value("colloquy_db_statement_seconds_count", {"statement": name}) or 0


async def test_a_session_is_entered_once_and_stays_as_it_is(directory: Directory) -> None:
    new = opened()
    entered = await directory.create(new)
    other = NewSession(new.session_id, OwnerId("mallory"), "t", Kind.CHAT, "", {}, "", {}, 1, SEALED_AT)

    again = await directory.create(other)

    assert again == entered
    assert entered.facts == new
    assert entered.status is Status.OPEN
    assert entered.position == Position(0, first_digest(new.session_id))


async def test_creations_that_race_all_find_the_same_entry(directory: Directory) -> None:
    new = opened()

    entries = await asyncio.gather(*(directory.create(new) for _ in range(20)))

    assert all(entry == entries[0] for entry in entries)


async def test_a_tombstone_refuses_the_entry(directory: Directory) -> None:
    new = opened()
    await directory.erase(new.session_id)

    with pytest.raises(NotFound):
        await directory.create(new)
    with pytest.raises(NotFound):
        await directory.get(new.session_id, EVERYONE)
    page = await directory.page(EVERYONE, PageRequest(200, NEWEST))
    assert new.session_id not in {entry.facts.session_id for entry in page.entries}


async def test_a_tombstone_refuses_the_fold_as_erased(directory: Directory) -> None:
    session_id = SessionId(uuid4())
    await directory.erase(session_id)

    (applied,) = await directory.apply([whole(ledger(session_id, 2), session_id)])

    assert applied == Applied(session_id, Outcome.ERASED)


async def test_a_batch_has_an_exact_outcome_for_each_session_in_its_order(directory: Directory) -> None:
    behind, ahead, other, done = [await directory.create(opened()) for _ in range(4)]
    ids = [entry.facts.session_id for entry in (behind, ahead, other, done)]
    turns = [ledger(session_id, 4) for session_id in ids]
    await folded(directory, whole(turns[1], ids[1]), whole(ledger(ids[2], 2, "x"), ids[2]), whole(turns[3], ids[3]))
    absent, erased = SessionId(uuid4()), SessionId(uuid4())
    await directory.erase(erased)

    results = await directory.apply(
        [
            whole(ledger(absent, 1), absent),
            run(turns[0][1:], ids[0], 4),
            run(turns[1][:2], ids[1], 2),
            run(turns[2][2:], ids[2], 4),
            run((), ids[3], 4, sealed=True),
            whole(ledger(erased, 1), erased),
        ]
    )

    assert [(result.session_id, result.outcome) for result in results] == [
        (absent, Outcome.ABSENT),
        (ids[0], Outcome.GAP),
        (ids[1], Outcome.DIVERGED),
        (ids[2], Outcome.DIVERGED),
        (ids[3], Outcome.OK),
        (erased, Outcome.ERASED),
    ]
    assert results[2].position == Position(4, turns[1][3].digest)
    assert results[4].position == Position(4, turns[3][3].digest, completed=True)


async def test_runs_that_continue_their_entries_are_folded_in_one_statement(directory: Directory) -> None:
    ids = [(await directory.create(opened())).facts.session_id for _ in range(50)]
    turns = {session_id: ledger(session_id, 3) for session_id in ids}
    before = statements_sent("session_advance")

    first = await folded(directory, *(run(turns[it][:1], it, 1) for it in ids))
    second = await folded(directory, *(run(turns[it][1:], it, 3) for it in ids))
    repeated = await folded(directory, *(whole(turns[it], it) for it in ids))

    assert statements_sent("session_advance") - before == 3
    assert set(first) == set(second) == {Outcome.OK}
    assert set(repeated) == {Outcome.DUPLICATE}


async def test_totals_and_completion_follow_the_ledger(directory: Directory) -> None:
    session_id = (await directory.create(opened())).facts.session_id
    turns = ledger(session_id, 3)

    await folded(directory, run(turns[:2], session_id, 3, sealed=True))
    half = await directory.get(session_id, EVERYONE)
    await folded(directory, run(turns, session_id, 3, sealed=True))
    full = await directory.get(session_id, EVERYONE)

    assert (half.status, half.completed_at, half.totals) == (Status.OPEN, None, Totals(3, 6, NanoUsd(9)))
    assert (full.status, full.completed_at) == (Status.COMPLETED, SEALED_AT)
    assert full.totals == Totals(6, 12, NanoUsd(18))


async def test_a_restored_ledger_is_folded_anew_with_an_alert(directory: Directory) -> None:
    session_id = (await directory.create(opened())).facts.session_id
    await folded(directory, whole(ledger(session_id, 5, "lost"), session_id, sealed=True))
    restored = ledger(session_id, 2)

    (ahead,) = await directory.apply([whole(restored, session_id)])
    assert ahead.outcome is Outcome.DIVERGED
    assert ahead.position
    with capture_logs() as logs:
        outcomes = await folded(directory, Reading(Run(session_id, restored, 2, replaces=ahead.position.head_digest)))

    entry = await directory.get(session_id, EVERYONE)
    assert outcomes == [Outcome.OK]
    assert entry.position == Position(2, restored[1].digest)
    assert entry.totals == Totals(3, 6, NanoUsd(9))
    assert entry.status is Status.OPEN
    assert [(log["event"], log["log_level"], log["session_id"]) for log in logs] == [
        ("projection_refolded", "error", str(session_id))
    ]


async def test_of_equal_batches_that_race_each_session_is_folded_once_without_a_deadlock(directory: Directory) -> None:
    ids = [(await directory.create(opened())).facts.session_id for _ in range(8)]
    runs = [whole(ledger(session_id, 3), session_id, sealed=True) for session_id in ids]
    before = statements_sent("session_advance")

    outcomes = await asyncio.gather(*(folded(directory, *(runs[turn:] + runs[:turn])) for turn in range(8)))

    for index in range(8):
        of_one = [outcomes[turn][(index - turn) % 8] for turn in range(8)]
        assert sorted(of_one) == [Outcome.DUPLICATE] * 7 + [Outcome.OK]
    assert statements_sent("session_advance") - before == 8
    for session_id in ids:
        assert (await directory.get(session_id, EVERYONE)).totals == Totals(6, 12, NanoUsd(18))


async def test_overlapping_runs_that_race_add_up_to_one_fold(directory: Directory) -> None:
    ids = [(await directory.create(opened())).facts.session_id for _ in range(4)]
    turns = {session_id: ledger(session_id, 12) for session_id in ids}

    async def folder(width: int, order: list[SessionId]) -> None:
        for end in range(width, 13, width):
            batch = [run(turns[it][:end], it, end, sealed=end == 12) for it in order]
            assert set(await folded(directory, *batch)) <= {Outcome.OK, Outcome.DUPLICATE, Outcome.DIVERGED}

    await asyncio.gather(*(folder(width, order) for width in (1, 2, 3, 4, 6) for order in (ids, ids[::-1])))

    for session_id in ids:
        entry = await directory.get(session_id, EVERYONE)
        assert entry.position == Position(12, turns[session_id][-1].digest, completed=True)
        assert entry.totals == gained(turns[session_id])


async def waiting_for_a_lock(connection: psycopg.AsyncConnection[Any]) -> None:
    """Until somebody waits for what `connection` has locked."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    async with asyncio.timeout(30):
        while not ((await (await connection.execute(query)).fetchone()) or (0,))[0]:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.005)


async def test_a_fold_that_waited_for_a_lock_sees_what_it_waited_for(directory: Directory, database: Database) -> None:
    session_id = (await directory.create(opened())).facts.session_id
    turns = ledger(session_id, 2)
    async with await psycopg.AsyncConnection.connect(database.owner_dsn) as other:
        await other.execute(
            "UPDATE session.sessions SET applied_seq = 1, head_digest = %s, prompt_tokens = 100 WHERE session_id = %s",
            [turns[0].digest, session_id],
        )
        before = statements_sent("session_advance")

        folding = asyncio.create_task(folded(directory, run(turns[1:], session_id, 2)))
        await waiting_for_a_lock(other)
        await other.commit()

        assert await folding == [Outcome.OK]
    entry = await directory.get(session_id, EVERYONE)
    assert statements_sent("session_advance") - before == 1
    assert entry.position == Position(2, turns[1].digest)
    assert entry.totals.prompt_tokens == 100 + turns[1].totals.prompt_tokens


async def test_a_fold_that_loses_a_deadlock_is_folded_all_the_same(directory: Directory, database: Database) -> None:
    lock = "SELECT FROM session.sessions WHERE session_id = %s FOR UPDATE"
    has_lost = False
    while not has_lost:
        ids = sorted([(await directory.create(opened())).facts.session_id for _ in range(2)])
        runs = [whole(ledger(session_id, 2), session_id) for session_id in ids]
        before = statements_sent("session_advance")
        async with await psycopg.AsyncConnection.connect(database.owner_dsn) as other:
            await other.execute(lock, [ids[1]])

            folding = asyncio.create_task(folded(directory, *runs))
            await waiting_for_a_lock(other)
            # PostgreSQL undoes whoever has waited for a second: the fold, unless this process is held up before this.
            with suppress(psycopg.errors.DeadlockDetected):
                await other.execute(lock, [ids[0]])
                has_lost = True
            await other.rollback()

        assert await folding == [Outcome.OK, Outcome.OK]

    assert statements_sent("session_advance") - before >= 2  # it may come back before the other has got its lock


async def test_a_viewer_sees_their_own_sessions_of_the_kind_they_ask_for(directory: Directory) -> None:
    alice, bob = f"alice-{uuid4()}", f"bob-{uuid4()}"
    interview = await directory.create(opened(alice))
    chat = await directory.create(opened(alice, Kind.CHAT, OPENED_AT + timedelta(seconds=1)))
    await directory.create(opened(bob))
    first = PageRequest(50, NEWEST)

    both = await directory.page(Viewer(OwnerId(alice), None), first)
    interviews = await directory.page(Viewer(OwnerId(alice), Kind.INTERVIEW), first)

    assert both.entries == (chat, interview)
    assert interviews.entries == (interview,)
    assert await directory.get(chat.facts.session_id, Viewer(OwnerId(alice), None)) == chat
    for stranger in (Viewer(OwnerId(bob), None), Viewer(OwnerId(alice), Kind.INTERVIEW), Viewer(OwnerId(""), None)):
        with pytest.raises(NotFound):
            await directory.get(chat.facts.session_id, stranger)


async def test_pages_show_every_session_once_newest_first_while_new_ones_come(directory: Directory) -> None:
    viewer = Viewer(OwnerId(f"carol-{uuid4()}"), None)
    assert viewer.owner_id
    made = [
        await directory.create(opened(viewer.owner_id, kind, OPENED_AT + timedelta(seconds=second // 4)))
        for second in range(12)
        for kind in Kind
    ]
    expected = sorted(made, key=lambda entry: (entry.facts.created_at, entry.facts.session_id), reverse=True)

    seen: list[Entry] = []
    after = NEWEST
    while True:
        page = await directory.page(viewer, PageRequest(7, after))
        seen += page.entries
        await directory.create(opened(viewer.owner_id, created_at=SEALED_AT))
        if page.next is None:
            break
        after = page.next

    assert seen == expected


SESSIONS = 20_000


@pytest.fixture
def crowded(fresh_database: FreshDatabase) -> Database:
    """Twenty thousand sessions: half of them one owner's chats, the other half a hundred owners' of both kinds."""
    own = fresh_database()
    with psycopg.connect(own.owner_dsn, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO session.sessions (session_id, owner_id, kind, max_turns, head_digest, created_at)
            SELECT gen_random_uuid(), CASE WHEN n %% 2 = 0 THEN 'heavy' ELSE 'owner' || n %% 100 END,
                   CASE WHEN n %% 2 = 0 OR n %% 3 = 0 THEN 'chat' ELSE 'interview' END,
                   20, sha256(n::text::bytea), now() - n * interval '1 minute'
            FROM generate_series(1, %s) AS n
            """,
            [SESSIONS],
        )
        connection.execute("VACUUM ANALYZE session.sessions")
    return own


def scans(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [node for node in nodes if node.get("Relation Name") == "sessions" and node["Node Type"] != "ModifyTable"]


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("owner", [None, "heavy", "owner1", "nobody"])
def test_a_page_is_read_from_its_index_and_no_further(crowded: Database, owner: str | None, mode: str) -> None:
    statement = statements._PAGE_OF_ALL if owner is None else statements._PAGE_OF_OWNER
    for kinds in (["interview"], ["chat"], ["interview", "chat"]):
        for after in (NEWEST.created_at, datetime.now(UTC) - timedelta(days=7)):
            wanted = {"owner_ids": [owner] * len(kinds), "kinds": kinds}
            params = {**wanted, "created_at": after, "session_id": uuid4(), "limit": 51}
            nodes = plan_nodes(crowded.dsns["session"], statement, params, mode)

            (scan,) = scans(nodes)
            index = "sessions_by_kind" if owner is None else "sessions_by_owner"
            assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", index)
            assert scan["Actual Rows"] <= 51
            assert scan.get("Rows Removed by Filter", 0) == 0


@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_an_entry_is_read_by_its_key(crowded: Database, mode: str) -> None:
    params = {"session_id": uuid4(), "owner_id": "owner1", "kinds": ["interview", "chat"]}

    (scan,) = scans(plan_nodes(crowded.dsns["session"], statements._GET, params, mode))

    assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", "sessions_pkey")


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("size", [1, 200])
def test_a_fold_finds_its_entries_by_their_keys(crowded: Database, size: int, mode: str) -> None:
    ids = [uuid4() for _ in range(size)]
    params: dict[str, object] = {"session_ids": ids, "step_ids": ids, "completed": [OPENED_AT] * size}
    params |= dict.fromkeys(("base_digests", "digests"), [bytes(32)] * size)
    params |= dict.fromkeys(("base_completed", "refolded"), [False] * size)
    params |= dict.fromkeys(("base_seqs", "seqs", "prompt_tokens", "completion_tokens", "costs"), [1] * size)

    nodes = plan_nodes(crowded.dsns["session"], statements._ADVANCE, params, mode)

    assert {node["Node Type"] for node in scans(nodes)} <= {"Index Scan", "Bitmap Heap Scan"}
    assert {node.get("Index Name") for node in nodes} <= {"sessions_pkey", None}


def test_a_fold_touches_no_index(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    with psycopg.connect(own.owner_dsn, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO session.sessions (session_id, owner_id, kind, max_turns, head_digest)
            SELECT gen_random_uuid(), 'owner', 'chat', 20, sha256('') FROM generate_series(1, 10)
            """
        )
        for _ in range(5):
            connection.execute("UPDATE session.sessions SET applied_seq = applied_seq + 1, version = version + 1")
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sessions'"
        ).fetchone()

    assert row == (50, 50)
