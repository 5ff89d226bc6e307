"""The call ledger for tests on a real PostgreSQL: its store, the tables behind it, and calls to make.

from tests.db.llm_world import Ledger, ledger  # the fixture
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from libs.runtime import db
from services.llm_gateway.domain import (
    AttemptEnd,
    AttemptState,
    CallKey,
    CallState,
    Completion,
    Failure,
    Message,
    NanoUsd,
    Offer,
    Prompt,
    Purpose,
    Role,
    SessionId,
    TurnId,
    Usage,
)
from services.llm_gateway.store import Held, Intent, Store
from tests.databases import Database

CEILING, COST = NanoUsd(75_000), NanoUsd(21_000)
SETTLED = AttemptEnd(AttemptState.SETTLED, Usage(100, 10, COST), 200)
UNUSABLE = replace(SETTLED, failure=Failure.NOT_JSON)
RELEASED = AttemptEnd(AttemptState.RELEASED, Usage(), 429, Failure.RATE_LIMITED)
UNKNOWN = AttemptEnd(AttemptState.UNKNOWN, Usage(cost_nano_usd=CEILING), 500, Failure.SERVER_ERROR)
RESULT = Completion("And then?", "stop", "gpt-4o-mini-2024-07-18")


class Ledger:
    """A store, and the tables behind it as the database has them."""

    def __init__(self, store: Store, database: Database) -> None:
        self.store, self.database, self.dsn = store, database, database.dsns["llm"]

    def rows(self, table: str, key: CallKey) -> list[dict[str, Any]]:
        order = {"attempts": "ORDER BY turn_id, purpose, fence, attempt", "calls": "ORDER BY turn_id, purpose"}
        with psycopg.connect(self.dsn, row_factory=dict_row) as connection:
            query = f"SELECT * FROM llm.{table} WHERE session_id = %s {order.get(table, '')}".encode()
            return connection.execute(query, [key.session_id]).fetchall()

    def spent(self, key: CallKey) -> int:
        """The session's account; each time it is checked that its calls and its attempts add up to it, and that what
        is under way is the last attempt of a call that is."""
        spent: int = self.rows("sessions", key)[0]["spent_nano_usd"]
        calls, attempts = self.rows("calls", key), self.rows("attempts", key)
        for rows in (calls, attempts):
            assert sum(row["cost_nano_usd"] for row in rows) == spent

        def place(row: dict[str, Any]) -> tuple[object, ...]:
            return row["turn_id"], row["purpose"], row["fence"], row["attempt"]

        under_way = [place(call) for call in calls if call["state"] == "INFLIGHT"]
        assert [place(attempt) for attempt in attempts if attempt["state"] == "dispatched"] == under_way
        assert all(call["repeats"] == call["fence"] - 1 for call in calls)
        return spent

    async def opened(self, intent: Intent) -> Held:
        """The intent, which is the first of its call."""
        held = await self.store.open(intent)
        assert isinstance(held, Held)
        return held

    async def made(self, intent: Intent, result: Completion = RESULT) -> Held:
        """The same with its result, DONE."""
        held = await self.opened(intent)
        await self.store.finish(held, SETTLED, CallState.DONE, result)
        return held

    async def repeat(self, intent: Intent) -> Held | None:
        """The next intent of the call as it stands now."""
        return await self.store.repeat(intent, await self.store.read(intent.offer.key))

    def execute(self, statement: str, key: CallKey) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement.encode(), {"session_id": key.session_id})

    def expire(self, key: CallKey) -> None:
        self.execute("UPDATE llm.calls SET lease_until = now() WHERE session_id = %(session_id)s", key)

    def age(self, key: CallKey, hours: int) -> None:
        """Let all that happened to the session's calls have been so long ago."""
        ages = ", ".join(
            f"{column} = {column} - interval '{hours} hours'"
            for column in ("dispatched_at", "finished_at", "lease_until")
        )
        self.execute(f"UPDATE llm.calls SET {ages} WHERE session_id = %(session_id)s", key)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    pool = db.Database(database.dsns["llm"], "llm", pool_size=12, statement_timeout_ms=10_000)
    yield Ledger(Store(pool), database)
    await pool.close()


def intent(
    session_id: SessionId | None = None,
    context: bytes = b"item-7",
    lease_ms: int = 60_000,
    turn_id: TurnId | None = None,
    purpose: str = "question",
) -> Intent:
    """A call that nobody has asked for yet."""
    key = CallKey(session_id or SessionId(uuid4()), turn_id or TurnId(uuid4()), Purpose(purpose))
    offer = Offer(key, Prompt((Message(Role.USER, "Hello"),), "question/v1", 100), context)
    return Intent(offer, "127.0.0.1", "gpt-4o-mini", b"{}", 100, CEILING, lease_ms)
