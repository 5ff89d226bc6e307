"""What PostgreSQL holds when a run is over: the rows that clients' journals and the model's calls are held against."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from colloquy.gateway.v1 import record_pb2


@dataclass(frozen=True, slots=True)
class Turn:
    """A row of `history.turns`; ids as text, what is absent empty or 0."""

    session: str
    request: str
    turn: str
    state: str
    reason: str
    seq: int
    user_text: str
    reply_text: str
    record: bytes

    @property
    def committed_by(self) -> str:
        """`owner`, `takeover` or `repair`; of a turn that is not committed its state."""
        if self.state != "COMMITTED":
            return self.state.lower()
        return record_pb2.TurnRecord.FromString(self.record).committed_by or "owner"


@dataclass(frozen=True, slots=True)
class Stream:
    """A row of `history.streams`."""

    session: str
    kind: str
    owner: str
    last_seq: int
    sealed: bool
    erased: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of `llm.attempts`; `key` is that of its call, as the model was told it."""

    key: str
    fence: int
    attempt: int
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """Turns by request, streams by session, attempts in the order in which they were made."""

    turns: Mapping[str, Turn]
    streams: Mapping[str, Stream]
    attempts: Sequence[Attempt]


_TURNS = """
    SELECT session_id::text AS session, request_id::text AS request, turn_id::text AS turn, state,
           coalesce(reason, '') AS reason, coalesce(seq, 0) AS seq, coalesce(user_text, '') AS user_text,
           coalesce(reply_text, '') AS reply_text, coalesce(record, '') AS record
      FROM history.turns
"""
_STREAMS = "SELECT session_id::text AS session, kind, owner_id AS owner, last_seq, sealed, erased FROM history.streams"
_ATTEMPTS = """
    SELECT concat_ws('/', session_id, turn_id, purpose) AS key, fence, attempt, state, coalesce(error, '') AS error
      FROM llm.attempts
     ORDER BY session_id, turn_id, purpose, fence, attempt
"""
_UNSETTLED = """
    SELECT (SELECT count(*) FROM history.streams WHERE acked_rev < rev OR active_turn IS NOT NULL)
         + (SELECT count(*) FROM llm.calls WHERE state = 'INFLIGHT' AND lease_until > now())
"""
_AGE_CALLS = """
    UPDATE llm.calls AS call
       SET dispatched_at = dispatched_at - interval '2 hours', finished_at = finished_at - interval '2 hours',
           lease_until = lease_until - interval '2 hours'
      FROM history.turns AS turn
     WHERE turn.session_id = call.session_id AND turn.turn_id = call.turn_id AND turn.state = 'COMMITTED'
       AND call.state = 'DONE' AND call.context IS NOT NULL AND call.finished_at > now() - interval '1 hour'
       AND turn.committed_at < now() - interval '5 seconds'
       AND (turn.item_answered IS NULL
            OR EXISTS (SELECT FROM assessment.answers AS answer WHERE answer.session_id = call.session_id
                          AND answer.turn_id = call.turn_id AND answer.state <> 'PENDING'))
"""


async def read(dsn: str) -> Ledger:
    """All of it, in one snapshot."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        async with connection.cursor(row_factory=class_row(Turn)) as cursor:
            turns = await (await cursor.execute(_TURNS)).fetchall()
        async with connection.cursor(row_factory=class_row(Stream)) as cursor:
            streams = await (await cursor.execute(_STREAMS)).fetchall()
        async with connection.cursor(row_factory=class_row(Attempt)) as cursor:
            attempts = await (await cursor.execute(_ATTEMPTS)).fetchall()
    return Ledger({it.request: it for it in turns}, {it.session: it for it in streams}, attempts)


async def unsettled(dsn: str) -> int | None:
    """How many streams have something left to do, and model calls are under way; None while the server is away."""
    try:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            [count] = await (await connection.execute(_UNSETTLED)).fetchone() or (0,)
            return int(count)
    except psycopg.OperationalError:
        return None


async def age_calls(dsn: str) -> None:
    """Make the model calls of turns that are over and scored look two hours old: so they would be then."""
    with suppress(psycopg.OperationalError):  # the server may be away, and is asked again
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute(_AGE_CALLS)
