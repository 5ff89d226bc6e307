"""`colloquy verify`: what is broken in the tables, straight from the databases, whether services run or not."""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from time import perf_counter
from uuid import UUID

import psycopg

from libs.runtime.errors import Unavailable
from services.cli.database import database_urls
from services.cli.errors import CommandError
from services.verifier.verification import STALE_AFTER, Report, connected, walk

CONNECT_SECONDS = 2


async def verify(given: Mapping[str, str], session_id: UUID | None, *, as_json: bool) -> int:
    """Check one session, or all there are, and print what is broken as it is found; 1 if anything is.

    Raises:
        ConfigError: a database is not named.
        CommandError: one cannot be read, or there is no such session.
    """
    started, reports, urls = perf_counter(), [], database_urls(given)
    try:
        async with connected(urls) as reader:
            if behind := await reader.behind():
                raise CommandError(f"not migrated: {', '.join(behind)}; `colloquy migrate` does that")
            async for found in walk(reader, None if session_id is None else [session_id]):
                reports.append(found)
                if not as_json:
                    sys.stdout.writelines(_lines(found))
    except Unavailable as error:
        raise CommandError(await _unreachable(urls) or f"a database failed: {error.__cause__ or error}") from error
    report = Report.merged(reports)
    if session_id is not None and not (report.sessions or report.busy):
        raise CommandError(f"no context has a session {session_id}")
    seconds = perf_counter() - started
    sys.stdout.write(_json(report, seconds) if as_json else _summary(report, seconds))
    return 1 if report.violations else 0


async def _unreachable(urls: Mapping[str, str]) -> str:
    """Which contexts' databases cannot be reached, why, and what to do; empty where all can.

    Asked once reading has failed, for an error of the database says nothing of the context, nor of the address.
    """
    whys = await asyncio.gather(*map(_why_unreachable, urls.values()))
    contexts: dict[tuple[str, str], list[str]] = {}
    for (context, url), why in zip(urls.items(), whys, strict=True):
        if why:
            contexts.setdefault((_place(url), why), []).append(context)
    said = [f"{', '.join(names)} at {place} cannot be reached: {why}" for (place, why), names in contexts.items()]
    todo = "start PostgreSQL there (`colloquy run` starts its own), or correct the database URL"
    return f"the database of {'; that of '.join(said)}; {todo}" if said else ""


async def _why_unreachable(url: str) -> str:
    try:
        connection = await psycopg.AsyncConnection.connect(url, connect_timeout=CONNECT_SECONDS)
    except psycopg.OperationalError as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    await connection.close()
    return ""


def _place(url: str) -> str:
    """Where a database is, without who logs in and how."""
    return url.partition("://")[2].rpartition("@")[2].partition("?")[0]


def _lines(report: Report) -> Iterator[str]:
    for it in report.violations:
        yield f"{it.session_id}  {it.invariant}  {it.what}\n"
    for session_id in report.stale:
        yield f"{session_id}  stale  not settled for more than {STALE_AFTER.seconds} s\n"
    for session_id in report.busy:
        yield f"{session_id}  busy  written to each time it was read\n"


def _summary(report: Report, seconds: float) -> str:
    return (
        f"sessions: {report.sessions} checked in {seconds:.1f} s, {len(report.broken)} broken "
        f"({len(report.violations)} violations), {len(report.stale)} stale, {len(report.busy)} busy\n"
    )


def _json(report: Report, seconds: float) -> str:
    said = {
        "sessions": report.sessions,
        "broken": len(report.broken),
        "violations": [
            {"invariant": it.invariant, "session_id": str(it.session_id), "rule": it.rule, "what": it.what}
            for it in report.violations
        ],
        "stale": [str(session_id) for session_id in report.stale],
        "busy": [str(session_id) for session_id in report.busy],
        "seconds": round(seconds, 3),
    }
    return json.dumps(said, indent=2) + "\n"
