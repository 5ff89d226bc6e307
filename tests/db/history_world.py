"""A ledger on a real database, for the tests of history: its use cases, its tables, and the protocol's invariants."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg.rows import DictRow, dict_row

from libs.runtime.db import Database, Statement
from libs.tokens.counting import count
from services.history.commands import NewStream, NewTurn, Release, Reply, Viewer
from services.history.digest import content_digest, stream_digest, turn_digest
from services.history.domain import ClaimId, Kind, OwnerId, RequestId, SessionId, TurnState, WindowLimit
from services.history.operations import Operations
from services.history.store import Store
from services.history.usecases import CommitResult, History, Opened, Owner

ALICE = Viewer(OwnerId("alice"), any_owner=False, kind=None)
ABANDON = Release(TurnState.ABANDONED, "UNAVAILABLE")
OPERATOR = Viewer(OwnerId("operator"), any_owner=True, kind=None)
Connection = psycopg.AsyncConnection[DictRow]


def chat(**changes: object) -> NewStream:
    """A stream of alice's without an opening; a lease of a minute and no pace, unless told otherwise."""
    fields: dict[str, object] = {
        "session_id": SessionId(uuid4()),
        "viewer": ALICE,
        "tenant_id": "",
        "kind": Kind.CHAT,
        "request_id": RequestId(uuid4()),
        "fingerprint": b"s" * 32,
        "facts": b"facts",
        "personal_facts": b"name",
        "max_turns": 100,
        "min_interval_ms": 0,
        "lease_ms": 60_000,
        "claim_id": ClaimId(uuid4()),
        "with_opening": False,
    }
    return NewStream(**(fields | changes))  # type: ignore[arg-type]


def interview(**changes: object) -> NewStream:
    return chat(**({"kind": Kind.INTERVIEW, "with_opening": True} | changes))


def message(session_id: SessionId, text: str = "hello", /, **changes: object) -> NewTurn:
    new = NewTurn(
        session_id=session_id,
        viewer=ALICE,
        request_id=RequestId(uuid4()),
        claim_id=ClaimId(uuid4()),
        text=text,
        in_reply_to=None,
        window=WindowLimit(10, 3000),
    )
    return replace(new, **changes)  # type: ignore[arg-type]


def reply(text: str = "Why?", *, item_asked: str = "", record: bytes = b"record", final: bool = False) -> Reply:
    return Reply(text, record, item_asked, final)


def owner(answer: object) -> Owner:
    """The claim that a begun or opened turn must have given."""
    held = answer.opening if isinstance(answer, Opened) else answer
    assert isinstance(held, Owner), held
    return held


def cleared(stream: DictRow, turns: Sequence[DictRow]) -> Iterator[tuple[DictRow, Sequence[str]]]:
    """The rows of a session, each with those of its columns that Erase clears."""
    yield stream, ("personal_facts", "fingerprint", "salt", "active_turn", "claim_id", "lease_until")
    for turn in turns:
        yield turn, ("user_text", "reply_text", "record", "fingerprint")


@dataclass(frozen=True, slots=True)
class World:
    """A ledger, and a way round it to its tables."""

    history: History
    operations: Operations
    database: Database
    dsn: str

    async def opened(self, **changes: object) -> SessionId:
        """A new chat."""
        return (await self.history.open_stream(chat(**changes))).head.session_id

    async def commit(self, held: Owner, said: Reply | None = None) -> CommitResult:
        """What the holder of a claim says."""
        return await self.history.commit_turn(held.head.session_id, held.turn_id, held.head.fence, said or reply())

    async def exchange(self, session_id: SessionId, text: str = "hello", said: Reply | None = None) -> CommitResult:
        """A message and its reply."""
        return await self.commit(owner(await self.history.begin_turn(message(session_id, text))), said)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """A connection of the test's own, in autocommit."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection:
            yield connection

    @asynccontextmanager
    async def holding(self, statement: Statement, params: Mapping[str, object]) -> AsyncIterator["Holder"]:
        """A statement of the store's that has changed its rows, and commits at the end of the block, or before."""
        async with self.connected() as connection, connection.transaction():
            cursor = await connection.execute(statement.sql.encode(), params)
            assert cursor.rowcount == 1, "the statement has changed what it was meant to change"
            yield Holder(connection, self)

    async def lease_over(self, session_id: SessionId) -> None:
        """Wait until the lease that is held there has ended, by the database's clock."""
        async with self.connected() as connection:
            await connection.execute(
                "SELECT pg_sleep(greatest(0, extract(epoch FROM lease_until - clock_timestamp())))"
                " FROM history.streams WHERE session_id = %s",
                [session_id],
            )

    async def lapse(self, session_id: SessionId) -> None:
        """End the lease that is held there, as if its turn had run for longer."""
        async with self.connected() as connection:
            await connection.execute(
                "UPDATE history.streams SET lease_until = lease_until - interval '1 hour' WHERE session_id = %s",
                [session_id],
            )

    async def rows(self, table: LiteralString, session_id: SessionId) -> list[dict[str, Any]]:
        """All rows of one session in a table of the schema."""
        query: LiteralString = "SELECT * FROM history." + table + " WHERE session_id = %s"
        async with self.connected() as connection:
            return await (await connection.execute(query, [session_id])).fetchall()

    async def check(self, session_id: SessionId) -> None:
        """The invariants that one session's tables can show: I1, I3, I4, I8, one claim at most, and the chain; of an
        erased session also that nothing is left to read."""
        [stream] = await self.rows("streams", session_id)
        turns = await self.rows("turns", session_id)
        committed = sorted((turn for turn in turns if turn["state"] == "COMMITTED"), key=lambda turn: turn["seq"])
        running = [turn for turn in turns if turn["state"] == "RUNNING"]

        assert [turn["seq"] for turn in committed] == list(range(1, stream["last_seq"] + 1)), "I1"
        assert len({turn["request_id"] for turn in turns}) == len(turns), "I3"
        assert all(turn["seq"] == turn["base_seq"] + 1 for turn in committed), "I4"
        assert [turn["turn_id"] for turn in running] == [it for it in [stream["active_turn"]] if it], "one claim"
        assert all(turn["fence"] == stream["fence"] and turn["base_seq"] == stream["last_seq"] for turn in running)
        if stream["sealed"]:
            assert not running, "I8"
            assert {turn["state"] for turn in turns} <= {"COMMITTED", "FAILED"}, "I3"
            assert all(turn["committed_at"] <= stream["sealed_at"] for turn in committed), "I8"
        assert stream["acked_rev"] <= stream["rev"]
        if stream["erased"]:
            assert stream["sealed"], "I8"
            assert {row[column] for row, columns in cleared(stream, turns) for column in columns} <= {None}, "Erase"
        self._check_chain(session_id, stream, committed)

    @staticmethod
    def _check_chain(session_id: SessionId, stream: DictRow, committed: list[DictRow]) -> None:
        digest = stream_digest(session_id)
        for turn in committed:
            content = turn["content"]
            if not stream["erased"]:
                content = content_digest(stream["salt"], turn["user_text"], turn["reply_text"], turn["record"])
            digest = turn_digest(digest, session_id, turn["turn_id"], turn["seq"], content)
            assert (turn["content"], turn["digest"]) == (content, digest), "the chain"
        assert stream["head_digest"] == digest, "the chain"


@dataclass(frozen=True, slots=True)
class Holder:
    """A transaction that holds a stream's lock."""

    connection: Connection
    world: World

    async def waited_for(self, waiters: int = 1) -> None:
        """Wait until so many statements wait for this transaction, directly or behind one another."""
        async with self.world.connected() as watcher:
            while True:
                cursor = await watcher.execute(
                    "SELECT count(*) AS waiting FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock' AND cardinality(pg_blocking_pids(pid)) > 0"
                )
                row = await cursor.fetchone()
                if row is not None and row["waiting"] >= waiters:
                    return
                await watcher.execute("SELECT pg_sleep(0.005)")


@asynccontextmanager
async def ledger(dsn: str) -> AsyncIterator[World]:
    """A ledger on the database that `dsn` names, with enough connections for races."""
    # A statement that a test holds up may wait for as long as the test takes.
    database = Database(dsn, "history", pool_size=16, statement_timeout_ms=60_000)
    try:
        store = Store(database)
        yield World(History(store, count), Operations(store), database, dsn)
    finally:
        await database.close()
