"""The verifier's loop on real tables: whom it looks at, what it says, when it says that all is well again."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from libs.runtime.db import Database as Pool
from services.verifier.reader import Reader
from services.verifier.watch import WALKED, Watch
from tests.conftest import FreshDatabase
from tests.db.verifier_world import World, world

OVERCHARGE = "UPDATE session.sessions SET cost_nano_usd = cost_nano_usd + 1 WHERE session_id = '{id}'"
REFUND = "UPDATE session.sessions SET cost_nano_usd = cost_nano_usd - 1 WHERE session_id = '{id}'"


@pytest.fixture
async def contexts(fresh_database: FreshDatabase) -> AsyncIterator[World]:
    async with world(fresh_database()) as made:
        yield made


def inconsistent_sessions() -> float | None:
    return REGISTRY.get_sample_value("colloquy_inconsistent_sessions")


def checked() -> float:
    return REGISTRY.get_sample_value("colloquy_sessions_verified_total") or 0


async def test_nothing_is_said_of_sound_sessions(contexts: World) -> None:
    await contexts.interview()
    watch, before = Watch(Reader(contexts.pools)), checked()

    with capture_logs() as said:
        await watch.round()

    assert (inconsistent_sessions(), checked() - before, said) == (0, 1, [])


async def test_a_broken_session_is_counted_and_told_once_until_it_is_mended(contexts: World) -> None:
    broken, _ = await contexts.interview(), await contexts.interview()
    contexts.execute(OVERCHARGE.format(id=broken))
    watch = Watch(Reader(contexts.pools))

    with capture_logs() as said:
        await watch.round()
        await watch.round()
        while_broken = inconsistent_sessions()
        contexts.execute(REFUND.format(id=broken))
        await watch.round()

    assert while_broken == 1
    assert inconsistent_sessions() == 0
    assert said == [
        {
            "event": "session_inconsistent",
            "log_level": "error",
            "session_id": str(broken),
            "invariants": ["I2"],
            "rules": ["the_directory_counts_what_it_folded"],
        },
        {"event": "session_consistent_again", "log_level": "info", "session_id": str(broken)},
    ]


async def test_what_else_is_broken_in_a_broken_session_is_told_too(contexts: World) -> None:
    broken = await contexts.interview()
    contexts.execute(OVERCHARGE.format(id=broken))
    watch = Watch(Reader(contexts.pools))
    await watch.round()
    contexts.execute(f"UPDATE llm.sessions SET spent_nano_usd = 0 WHERE session_id = '{broken}'")

    with capture_logs() as said:
        await watch.round()

    [line] = said
    assert line["rules"] == ["money_adds_up", "the_directory_counts_what_it_folded"]


async def test_every_session_has_its_turn(contexts: World) -> None:
    sessions = sorted([await contexts.chat(0) for _ in range(2 * WALKED + 1)])
    for session_id in sessions:
        contexts.execute(f"UPDATE session.sessions SET owner_id = 'mallory' WHERE session_id = '{session_id}'")
    watch, found = Watch(Reader(contexts.pools)), []

    for _ in range(3):
        with capture_logs():
            await watch.round()
        found.append(inconsistent_sessions())

    assert found == [WALKED, 2 * WALKED, 2 * WALKED + 1]


async def test_what_is_changing_is_looked_at_at_once_and_again_when_it_has_settled(contexts: World) -> None:
    sessions = sorted([await contexts.chat(0) for _ in range(3 * WALKED)])
    changing, watch, before = sessions[-1], Watch(Reader(contexts.pools)), checked()
    held = await contexts.begun(changing)
    await contexts.called(held, "chat")
    await contexts.commit(held, None, 1)

    await watch.round()
    looked_at = checked() - before
    contexts.execute(f"UPDATE history.streams SET acked_rev = rev WHERE session_id = '{changing}'")  # nobody folded it
    with capture_logs() as said:
        await watch.round()

    assert looked_at == WALKED + 1
    assert [(line["session_id"], line["rules"]) for line in said] == [
        (str(changing), ["once_settled_the_directory_has_all"])
    ]


async def test_a_database_that_is_away_makes_it_unready_and_is_no_end(contexts: World) -> None:
    away = Pool("postgresql://nobody@127.0.0.1:1/nothing", "verifier-llm")
    watch = Watch(Reader({**contexts.pools, "llm": away}))

    with capture_logs() as said:
        await watch.keep(lambda _: over())

    assert not watch.ready
    assert [line["event"] for line in said] == ["verification_failed"]


async def over() -> bool:
    """The pause of a process that is told to stop."""
    return False
