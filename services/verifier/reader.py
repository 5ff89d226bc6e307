"""Reads sessions in the databases of all contexts, a few statements for many sessions.

The contexts share no snapshot, for they may be in four databases. So the ledger is read first, and its heads once more
at the end: where a head has the same rev and the same acknowledgement, nothing of that ledger was written while the
others were read. What has moved is left out, to be read again. Within one context all is of one snapshot.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

from google.protobuf.message import DecodeError

from colloquy.gateway.v1 import record_pb2
from libs.runtime.db import Database, Row, Transaction
from migrations.readiness import is_migrated
from services.verifier import statements
from services.verifier.rows import (
    Account,
    Answer,
    Attempt,
    Call,
    Entry,
    Facts,
    Interview,
    Orphan,
    Session,
    SessionId,
    Stream,
    Turn,
    Usage,
)

START: Final = SessionId(UUID(int=0))
"""Comes before every session."""

_ByKey: TypeAlias = Mapping[SessionId, Row]
_Groups: TypeAlias = Mapping[SessionId, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found; `moved` were written to meanwhile. A session that no context has is in neither."""

    found: Sequence[Session | Orphan]
    moved: Sequence[SessionId]


@dataclass(frozen=True, slots=True)
class _Ledger:
    streams: _ByKey
    turns: _Groups


@dataclass(frozen=True, slots=True)
class _Others:
    entries: _ByKey
    interviews: _ByKey
    answers: _Groups
    accounts: _ByKey
    calls: _Groups
    attempts: _Groups

    def holders(self, session_id: SessionId) -> list[str]:
        """The contexts that have the session."""
        heads = {"session": self.entries, "assessment": self.interviews, "llm": self.accounts}
        return [context for context, rows in heads.items() if session_id in rows]


class Reader:
    """The tables of all contexts; `databases` by context. Every function may raise what `Database.one` raises."""

    def __init__(self, databases: Mapping[str, Database]) -> None:
        self._databases = databases

    async def behind(self) -> list[str]:
        """The contexts whose schema is not what this was written for."""
        return [context for context, database in self._databases.items() if not await is_migrated(database, context)]

    async def page(self, after: SessionId, limit: int) -> list[SessionId]:
        """The next sessions that any context has, in the order of their ids."""
        found: set[SessionId] = set()
        for context, statement in statements.PAGES.items():
            rows = await self._databases[context].all(statement, {"after": after, "limit": limit})
            found.update(row.session_id for row in rows)
        return sorted(found)[:limit]

    async def unsettled(self, after: SessionId, limit: int) -> list[SessionId]:
        """The next sessions that are not settled: they have just changed, or nobody brings them to an end."""
        rows = await self._databases["history"].all(statements.UNSETTLED, {"after": after, "limit": limit})
        return [row.session_id for row in rows]

    async def read(self, session_ids: Sequence[SessionId]) -> Reading:
        """These sessions, as the contexts have them."""
        params = {"session_ids": list(session_ids)}
        ledger = await self._ledger(params)
        others = await self._others(params)
        heads = _by_key(await self._databases["history"].all(statements.REVS, params))
        found: list[Session | Orphan] = []
        moved: list[SessionId] = []
        for session_id in session_ids:
            before, after = ledger.streams.get(session_id), heads.get(session_id)
            if before and after and (before.rev, before.acked_rev) == (after.rev, after.acked_rev):
                found.append(_session(session_id, ledger, others))
            elif before or after:
                moved.append(session_id)
            elif holders := others.holders(session_id):
                found.append(Orphan(session_id, holders))
        return Reading(found, moved)

    async def _ledger(self, params: Mapping[str, object]) -> _Ledger:
        async with self._snapshot("history") as history:
            return _Ledger(
                _by_key(await history.all(statements.STREAMS, params)),
                _grouped(await history.all(statements.TURNS, params)),
            )

    async def _others(self, params: Mapping[str, object]) -> _Others:
        """llm after assessment, so that what the one has scored the other has judged."""
        entries = _by_key(await self._databases["session"].all(statements.ENTRIES, params))
        async with self._snapshot("assessment") as assessment:
            interviews = _by_key(await assessment.all(statements.INTERVIEWS, params))
            answers = _grouped(await assessment.all(statements.ANSWERS, params))
        async with self._snapshot("llm") as llm:
            accounts = _by_key(await llm.all(statements.ACCOUNTS, params))
            calls = _grouped(await llm.all(statements.CALLS, params))
            attempts = _grouped(await llm.all(statements.ATTEMPTS, params))
        return _Others(entries, interviews, answers, accounts, calls, attempts)

    @asynccontextmanager
    async def _snapshot(self, context: str) -> AsyncIterator[Transaction]:
        async with self._databases[context].transaction() as transaction:
            await transaction.execute(statements.SNAPSHOT)
            yield transaction


def _by_key(rows: Sequence[Row]) -> dict[SessionId, Row]:
    return {row[0]: row for row in rows}


def _grouped(rows: Sequence[Row]) -> dict[SessionId, list[Row]]:
    groups: dict[SessionId, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[0], []).append(row)
    return groups


def _session(session_id: SessionId, ledger: _Ledger, others: _Others) -> Session:
    entry, interview, account = (rows.get(session_id) for rows in (others.entries, others.interviews, others.accounts))
    return Session(
        stream=_stream(ledger.streams[session_id]),
        turns=[_turn(row) for row in ledger.turns.get(session_id, ())],
        entry=entry and Entry(*_with_usage(entry)),
        interview=interview and Interview(*interview[1:]),
        answers=[Answer(*row[1:]) for row in others.answers.get(session_id, ())],
        account=account and Account(*account[1:]),
        calls=[Call(*_with_usage(row)) for row in others.calls.get(session_id, ())],
        attempts=[Attempt(*_with_usage(row)) for row in others.attempts.get(session_id, ())],
    )


def _stream(row: Row) -> Stream:
    *columns, facts, personal_facts = row
    return Stream(*[*columns, _facts(facts, personal_facts or b"")])


def _turn(row: Row) -> Turn:
    usage = None if row.record is None else _usage(row.record)
    return Turn(*[*row[1:], usage])


def _with_usage(row: Row) -> list[Any]:
    """A row whose last three columns are tokens and cost, without its session."""
    return [*row[1:-3], Usage(*row[-3:])]


def _facts(facts: bytes, personal_facts: bytes) -> Facts | None:
    try:
        opened = record_pb2.SessionFacts.FromString(facts)
        personal = record_pb2.PersonalFacts.FromString(personal_facts)
    except DecodeError:
        return None
    return Facts(opened.plan, dict(opened.versions), personal.candidate_name, dict(personal.metadata))


def _usage(record: bytes) -> Usage | None:
    try:
        used = record_pb2.TurnRecord.FromString(record).usage
    except DecodeError:
        return None
    return Usage(used.prompt_tokens, used.completion_tokens, used.cost_nano_usd)
