"""Any two writes of the ledger at once: the second waits for the lock of the first, and answers by what that has left.

A third transaction holds the head until both are seen to wait, so their order is known and both have read before one
has written: the window in which a statement that trusts what it has read is wrong. What they must answer, and what the
tables must hold, the model says. Which writes can meet, and where, it says too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest

from tests.databases import Database
from tests.db.history_world import Connection, Holder, World, ledger
from tests.prove.model.ledger import ABANDONED, Reply, opened
from tests.prove.reference import REQUESTS, Real, Reference, comparable

ROOM: Final = 9  # turns that a session may have here
LEASE_MS: Final = 3_600_000
SAYS: Final = Reply(0, 0, phrased=True, final=False)

Call = Callable[[Any], Any]
"""What is asked, of the real ledger or of the model."""

_BEGUN: Final[list[Call]] = [
    lambda it: it.begin(0, 1),
    lambda it: it.commit(0, 1, SAYS),
    lambda it: it.begin(1, 2),
]
SESSIONS: Final[dict[str, list[Call]]] = {
    "is quiet": _BEGUN[:2],
    "has a turn running": _BEGUN,
    "has a turn expired": [*_BEGUN, lambda it: it.expire()],
    "has a turn given back": [*_BEGUN, lambda it: it.release(1, 2, ABANDONED, "UNAVAILABLE")],
    "has a turn running and another given back": [
        *_BEGUN[:2],
        lambda it: it.begin(2, 2),
        lambda it: it.release(2, 2, ABANDONED, "UNAVAILABLE"),
        lambda it: it.begin(1, 3),
    ],
    "has a turn taken over": [*_BEGUN, lambda it: it.expire(), lambda it: it.begin(1, 3)],
    "has a turn whose base was built upon": [
        *_BEGUN,
        lambda it: it.release(1, 2, ABANDONED, "UNAVAILABLE"),
        lambda it: it.begin(2, 3),
        lambda it: it.commit(2, 3, SAYS),
    ],
}


def writes(fence: int, rev: int, claim: int) -> dict[str, Call]:
    """The ledger's writes, under the fence and the rev of a session as it stands; `claim` is a claim id of its own."""
    return {
        "another message": lambda it: it.begin(3, claim),
        "the same message": lambda it: it.begin(1, claim),
        "a commit": lambda it: it.commit(1, fence, SAYS),
        "the last commit": lambda it: it.commit(1, fence, SAYS._replace(final=True)),
        "a release": lambda it: it.release(1, fence, ABANDONED, "UNAVAILABLE"),
        "an end": lambda it: it.seal(),
        "an erase": lambda it: it.erase(),
        "a reset": lambda it: it.reset(),
        "an acknowledgement": lambda it: it.acknowledge(rev),
    }


def told(session: str) -> Reference:
    """The model of a session."""
    model = Reference(opened(len(REQUESTS)), ROOM)
    for call in SESSIONS[session]:
        call(model)
    return model


def meetings() -> Iterator[tuple[str, str, str]]:
    """Two writes, each of which would change the session, and so takes its lock."""
    for session in SESSIONS:
        stream = told(session).ledger.stream
        writing = []
        for name, call in writes(stream.fence, stream.rev, 9).items():
            model = told(session)
            before = model.ledger
            call(model)
            if model.ledger != before:
                writing.append(name)
        yield from ((session, first, second) for first in writing for second in writing)


@pytest.fixture(scope="module")
async def world(database: Database) -> AsyncIterator[World]:
    async with ledger(database.dsns["history"]) as world:
        yield world


@pytest.fixture(scope="module")
async def connection(world: World) -> AsyncIterator[Connection]:
    async with world.connected() as connection:
        yield connection


@pytest.mark.parametrize(("session", "first", "second"), [*meetings()])
async def test_a_write_that_waited_for_another_answers_by_what_that_has_left(
    world: World, connection: Connection, session: str, first: str, second: str
) -> None:
    model = told(session)
    stream = model.ledger.stream
    ahead, behind = writes(stream.fence, stream.rev, 10)[first], writes(stream.fence, stream.rev, 11)[second]
    real = Real(world, connection, await world.opened(max_turns=ROOM, lease_ms=LEASE_MS))
    for call in SESSIONS[session]:
        await call(real)

    async with world.connected() as keeper, keeper.transaction():
        await keeper.execute("SELECT FROM history.streams WHERE session_id = %s FOR UPDATE", [real.session_id])
        holder = Holder(keeper, world)
        leading = asyncio.ensure_future(ahead(real))
        await holder.waited_for(1)
        following = asyncio.ensure_future(behind(real))
        await holder.waited_for(2)

    assert await leading == ahead(model)
    assert await following == behind(model)
    assert await real.read() == comparable(model.ledger)
