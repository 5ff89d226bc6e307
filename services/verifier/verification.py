"""Checks sessions: reads them in all contexts, applies the rules, says what is broken.

    report = await verify(urls)                              # every session
    report = await verify(urls, session_ids, quiet=True)     # these, and each of them must be settled by now

`urls` are the DSNs of the four contexts by name, as `services.cli.database.database_urls` gives them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from libs.runtime.db import Database
from services.verifier.reader import START, Reader
from services.verifier.rows import Orphan, Session, SessionId
from services.verifier.rules import Invariant, Violation, violations

BATCH: Final = 50
"""Sessions that are in memory together; one of a hundred long turns has some hundred KB."""
READINGS: Final = 4
"""How often a session is read that others write to meanwhile; a turn under way writes three times in two seconds."""
PAUSE_SECONDS: Final = 0.1
STATEMENT_TIMEOUT_MS: Final = 30_000
STALE_AFTER: Final = timedelta(seconds=30)
"""Within which everything is settled once no fault is left (I7)."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in so many sessions.

    stale: unsettled for more than 30 s; a violation only where somebody knows that there was no fault meanwhile.
    busy: written to each time they were read, so nothing is said of them.
    """

    sessions: int = 0
    violations: tuple[Violation, ...] = ()
    stale: tuple[SessionId, ...] = ()
    busy: tuple[SessionId, ...] = ()

    @classmethod
    def merged(cls, reports: Sequence["Report"]) -> "Report":
        """What they found together."""
        return cls(
            sum(report.sessions for report in reports),
            tuple(violation for report in reports for violation in report.violations),
            tuple(session_id for report in reports for session_id in report.stale),
            tuple(session_id for report in reports for session_id in report.busy),
        )

    @property
    def broken(self) -> frozenset[SessionId]:
        """The sessions in which anything is violated."""
        return frozenset(violation.session_id for violation in self.violations)


async def verify(urls: Mapping[str, str], session_ids: Iterable[UUID] | None = None, *, quiet: bool = False) -> Report:
    """Check sessions, all where none are named; with `quiet` one that is not settled violates I7.

    Raises what `Database.one` raises: Unavailable where a database cannot be reached.
    """
    async with connected(urls) as reader:
        return Report.merged([found async for found in walk(reader, session_ids, quiet=quiet)])


async def walk(
    reader: Reader, session_ids: Iterable[UUID] | None = None, *, quiet: bool = False
) -> AsyncIterator[Report]:
    """As `verify`, batch by batch: what was found in each is told, and forgotten."""
    batches = _every_batch(reader) if session_ids is None else _batches(session_ids)
    async for batch in batches:
        yield await check(reader, batch, quiet=quiet)


async def check(reader: Reader, session_ids: Sequence[SessionId], *, quiet: bool = False) -> Report:
    """Check some sessions at once, those that are being written to again after a moment."""
    judged: list[Report] = []
    left = session_ids
    for attempt in range(READINGS):
        if attempt:
            await asyncio.sleep(PAUSE_SECONDS)
        reading = await reader.read(left)
        judged += [_judged(found, quiet=quiet) for found in reading.found]
        if not (left := reading.moved):
            break
    return Report.merged([*judged, Report(busy=tuple(left))])


@asynccontextmanager
async def connected(urls: Mapping[str, str]) -> AsyncIterator[Reader]:
    """A reader of these databases for the length of the block."""
    databases = {
        context: Database(url, f"verifier-{context}", pool_size=1, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
        for context, url in urls.items()
    }
    try:
        yield Reader(databases)
    finally:
        for database in databases.values():
            await database.close()


def _judged(found: Session | Orphan, *, quiet: bool) -> Report:
    broken, stale = violations(found), False
    if isinstance(found, Session) and not found.stream.settled:
        stale = found.unsettled_for() > STALE_AFTER
        if quiet:
            what = f"rev {found.stream.acked_rev} of {found.stream.rev} is acknowledged, and all should be quiet"
            broken.append(Violation(Invariant.I7, found.session_id, "everything_is_settled", what))
    return Report(1, tuple(broken), (found.session_id,) if stale else ())


async def _every_batch(reader: Reader) -> AsyncIterator[Sequence[SessionId]]:
    after = START
    while batch := await reader.page(after, BATCH):
        yield batch
        after = batch[-1]


async def _batches(session_ids: Iterable[UUID]) -> AsyncIterator[Sequence[SessionId]]:
    ids = sorted({SessionId(session_id) for session_id in session_ids})
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]
