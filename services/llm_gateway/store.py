"""The call ledger's tables, as values of its domain; the SQL is in `statements`."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from operator import attrgetter

from psycopg.types.numeric import Int8

from libs.runtime.db import Database, Row, UniqueViolation
from libs.runtime.errors import NotFound
from services.llm_gateway import statements
from services.llm_gateway.clearing import Clearable, ClearableRequest, Cursor, Settled, TurnKey
from services.llm_gateway.domain import (
    AttemptEnd,
    AttemptState,
    Call,
    CallKey,
    CallState,
    Completion,
    Failure,
    Fence,
    NanoUsd,
    Offer,
    Purpose,
    SessionId,
    Usage,
)
from services.llm_gateway.entries import Attempt, CallEntry


@dataclass(frozen=True, slots=True)
class Intent:
    """A call about to be made: the offer, the request to be sent and to whom, and what each attempt may cost."""

    offer: Offer
    provider: str
    model: str
    body: bytes
    prompt_tokens: int
    ceiling: NanoUsd
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """An intent that has been written, and its attempt under way; `attempt` counts from 1."""

    intent: Intent
    fence: Fence
    attempt: int = 1


class Store:
    """The ledger's tables."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def open(self, intent: Intent) -> Held | Call:
        """Write the first intent of a call with its first attempt; or find the call.

        Raises:
            NotFound: the session was erased.
        """
        try:
            row = await self._db.one(statements.OPEN, _intent(intent))
        except UniqueViolation:  # it appeared this instant
            return await self.read(intent.offer.key)
        if row is None:
            raise NotFound
        if row.opened is not None:
            return Held(intent, Fence(row.opened))
        return _found(intent.offer.key, row)

    async def repeat(self, intent: Intent, ended: Call) -> Held | None:
        """Write the next intent of a call that was found FAILED or UNKNOWN; None, and no change, where it has moved on
        since, or the session is gone."""
        found = {"fence": Int8(ended.fence), "ended": Int8(ended.attempt)}
        row = await self._db.one(statements.REPEAT, _intent(intent) | found)
        return None if row is None else Held(intent, Fence(row.fence))

    async def retry(self, held: Held, end: AttemptEnd) -> Held | None:
        """End the attempt and begin the next; None, and no change, where the fence or the session is gone."""
        following = Held(held.intent, held.fence, held.attempt + 1)
        row = await self._db.one(
            statements.RETRY, _intent(held.intent) | _end(held, end) | {"attempt": Int8(following.attempt)}
        )
        return None if row is None else following

    async def finish(self, held: Held, end: AttemptEnd, state: CallState, result: Completion | None) -> Call | None:
        """End the attempt and its call; None, and no change, where the fence is gone.

        Raises:
            NotFound: the session was erased; what the call cost is recorded, what it said is not.
        """
        row = await self._db.one(
            statements.FINISH,
            _key(held.intent.offer.key)
            | _end(held, end)
            | {
                "state": state.value,
                "error": end.failure.value if end.failure else None,
                "result": result.text if result else None,
                "finish_reason": result.finish_reason if result else None,
                "model": result.model if result else None,
                "ceiling": Int8(held.intent.ceiling),
            },
        )
        return None if row is None else _found(held.intent.offer.key, row)

    async def entries(self, turn: TurnKey) -> list[CallEntry]:
        """The calls of a turn by purpose, each with its attempts."""
        rows = await self._db.all(statements.ENTRIES, {"session_id": turn.session_id, "turn_id": turn.turn_id})
        return [_entry([*of_call]) for _, of_call in groupby(rows, key=attrgetter("purpose"))]

    async def clearable(self, request: ClearableRequest) -> Clearable:
        """Turns all of whose calls ended long enough ago and which hold a result or a context, the oldest first."""
        after = request.after
        rows = await self._db.all(
            statements.CLEARABLE,
            {
                "min_age_ms": Int8(request.min_age_ms),
                "after": after.dispatched_at,
                "after_session_id": after.turn.session_id,
                "after_turn_id": after.turn.turn_id,
                "max_calls": Int8(request.max_turns),
            },
        )
        turns = [TurnKey(row.session_id, row.turn_id) for row in rows]
        following = Cursor(rows[-1].dispatched_at, turns[-1]) if len(rows) == request.max_turns else None
        return Clearable(tuple(dict.fromkeys(turns)), following)

    async def clear(self, settled: Settled) -> None:
        """Clear results and contexts of these turns, but for calls under a live lease."""
        key = {"session_id": settled.session_id}
        async with self._db.transaction("llm_clear") as transaction:
            if await transaction.one(statements.HOLD, key):
                await transaction.execute(statements.CLEAR, key | {"turn_ids": list(settled.turn_ids)})

    async def erase(self, session_id: SessionId) -> None:
        """Leave a tombstone and clear what stands under it: both, or nothing."""
        key = {"session_id": session_id}
        async with self._db.transaction("llm_erase") as transaction:
            await transaction.execute(statements.BURY, key)
            await transaction.execute(statements.ERASE, key)

    async def read(self, key: CallKey) -> Call:
        """Read a call as it stands.

        Raises:
            NotFound: there is none, or the session was erased.
        """
        row = await self._db.one(statements.READ, _key(key))
        if row is None:
            raise NotFound
        return _found(key, row)


def _key(key: CallKey) -> dict[str, object]:
    return {"session_id": key.session_id, "turn_id": key.turn_id, "purpose": key.purpose}


# Numbers are bound as bigint, whatever their size: psycopg would take the smallest type that fits, and PostgreSQL would
# prepare the statement anew for each combination of them.
def _intent(intent: Intent) -> dict[str, object]:
    return _key(intent.offer.key) | {
        "attempt": Int8(1),
        "provider": intent.provider,
        "model": intent.model,
        "ceiling": Int8(intent.ceiling),
        "lease_ms": Int8(intent.lease_ms),
        "context": intent.offer.context,
        "prompt_version": intent.offer.prompt.version,
        "prompt_hash": sha256(intent.body).digest(),
    }


def _end(held: Held, end: AttemptEnd) -> dict[str, object]:
    return {
        "fence": Int8(held.fence),
        "ended": Int8(held.attempt),
        "attempt_state": end.state.value,
        "attempt_error": end.failure.value if end.failure else None,
        "status": None if end.status is None else Int8(end.status),
        "prompt_tokens": Int8(end.usage.prompt_tokens),
        "completion_tokens": Int8(end.usage.completion_tokens),
        "cost": Int8(end.usage.cost_nano_usd),
    }


def _found(key: CallKey, row: Row) -> Call:
    if row.erased:
        raise NotFound
    return _call(key, row)


def _call(key: CallKey, row: Row) -> Call:
    return Call(
        key,
        Fence(row.fence),
        row.attempt,
        CallState(row.state),
        row.context or b"",
        row.result or "",
        Usage(row.prompt_tokens, row.completion_tokens, NanoUsd(row.cost_nano_usd)),
        row.finish_reason or "",
        row.prompt_version,
        row.model or "",
        row.repeats,
        max(0, row.lease_left_ms or 0),
        row.duration_ms or 0,
        row.cleared,
        Failure(row.error) if row.error else None,
    )


def _entry(rows: Sequence[Row]) -> CallEntry:
    """A call of the rows of its attempts, each of which tells of the call as well."""
    row = rows[0]
    return CallEntry(
        Purpose(row.purpose),
        CallState(row.state),
        Fence(row.fence),
        row.repeats,
        max(0, row.lease_left_ms or 0),
        Failure(row.error) if row.error else None,
        Usage(row.prompt_tokens, row.completion_tokens, NanoUsd(row.cost_nano_usd)),
        row.finish_reason or "",
        row.prompt_version,
        row.model or "",
        row.dispatched_at,
        row.finished_at,
        row.cleared,
        tuple(map(_attempt, rows)),
    )


def _attempt(row: Row) -> Attempt:
    return Attempt(
        Fence(row.made_fence),
        row.made_attempt,
        AttemptState(row.made_state),
        row.made_provider,
        row.made_model,
        row.made_status,
        Failure(row.made_error) if row.made_error else None,
        Usage(row.made_prompt_tokens, row.made_completion_tokens, NanoUsd(row.made_cost_nano_usd)),
        row.made_dispatched_at,
        row.made_finished_at,
    )
