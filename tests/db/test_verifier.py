"""The verifier on real tables, which the services wrote: nothing is wrong with them until somebody breaks them."""

from collections.abc import AsyncIterator

import pytest

from services.verifier.verification import Report, verify
from tests.databases import Database
from tests.db.verifier_world import World, world


@pytest.fixture(scope="module")
async def contexts(database: Database) -> AsyncIterator[World]:
    async with world(database) as made:
        yield made


async def test_nothing_is_wrong_with_what_the_services_wrote(contexts: World) -> None:
    sessions = [await contexts.interview(), await contexts.chat(), await contexts.interview(1)]

    report = await verify(contexts.database.dsns, sessions, quiet=True)

    assert report == Report(sessions=3)


# What each invariant looks like when it is broken, in the tables that show it, past every constraint.
BROKEN = {
    "I1: a turn is gone": (
        "chain I1 I2 I6",
        "DELETE FROM history.turns WHERE session_id = '{id}' AND seq = 2",
    ),
    "I2: the directory counts another cost": (
        "I2",
        "UPDATE session.sessions SET cost_nano_usd = cost_nano_usd + 1 WHERE session_id = '{id}'",
    ),
}


@pytest.mark.parametrize(("expected", "statement"), BROKEN.values(), ids=BROKEN)
async def test_what_is_broken_in_the_tables_is_found(contexts: World, expected: str, statement: str) -> None:
    broken, healthy = await contexts.interview(), await contexts.interview()
    contexts.execute(statement.format(id=broken))

    report = await verify(contexts.database.dsns, [broken, healthy])

    assert report.sessions == 2
    assert report.broken == {broken}
    assert {violation.invariant for violation in report.violations} == set(expected.split())
