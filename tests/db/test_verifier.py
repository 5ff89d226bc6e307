"""The verifier on real tables, which the services wrote: nothing is wrong with them until somebody breaks them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import count
from uuid import uuid4

import pytest

from libs.runtime.errors import Unavailable
from services.history.commands import Release
from services.history.domain import SessionId as LedgerId
from services.history.domain import TurnState
from services.verifier import statements, verification
from services.verifier.reader import Reader, _Others
from services.verifier.rows import SessionId
from services.verifier.rules import Invariant
from services.verifier.verification import Report, check, verify
from tests.conftest import FreshDatabase
from tests.databases import Server
from tests.db.history_world import ALICE
from tests.db.verifier_world import World, world


@pytest.fixture(scope="module")
async def contexts(database_server: Server) -> AsyncIterator[World]:
    """A database of its own, without the constraints that would refuse what is to be found broken."""
    own = database_server.create()
    try:
        async with world(own) as made:
            made.execute(
                """
                ALTER TABLE history.turns DROP CONSTRAINT turns_request_key, DROP CONSTRAINT turns_seq_follows_base;
                ALTER TABLE history.streams DROP CONSTRAINT streams_erased_is_empty
                """
            )
            yield made
    finally:
        database_server.drop(own.name)


async def test_nothing_is_wrong_with_what_the_services_wrote(contexts: World) -> None:
    sessions = [await contexts.interview(), await contexts.chat(), await contexts.interview(1), await contexts.chat(0)]

    report = await verify(contexts.database.dsns, sessions, quiet=True)

    assert report == Report(sessions=4)


async def test_nothing_is_wrong_while_a_turn_runs_is_given_back_or_waits_to_be_folded(contexts: World) -> None:
    running, given_back, behind = [await contexts.interview() for _ in range(3)]
    held = await contexts.begun(running)
    await contexts.intended(running, held.turn_id, "question")
    left = await contexts.begun(given_back)
    release = Release(TurnState.ABANDONED, "UNAVAILABLE")
    await contexts.history.history.release_turn(LedgerId(given_back), left.turn_id, left.head.fence, release)
    await contexts.exchange(behind, 3)

    report = await verify(contexts.database.dsns, [running, given_back, behind])

    assert report == Report(sessions=3)


async def test_nothing_is_wrong_after_an_end_that_a_turn_did_not_survive(contexts: World) -> None:
    session_id = await contexts.interview()
    held = await contexts.begun(session_id)
    await contexts.history.history.seal_stream(LedgerId(session_id), ALICE)
    await contexts.commit(held, 3, 0)
    await contexts.settle(session_id)

    assert await verify(contexts.database.dsns, [session_id], quiet=True) == Report(sessions=1)


async def test_nothing_is_wrong_after_an_interview_that_came_to_its_end(contexts: World) -> None:
    session_id = await contexts.interview()
    held = await contexts.begun(session_id)
    await contexts.commit(held, None, 0, final=True)
    await contexts.settle(session_id)

    assert await verify(contexts.database.dsns, [session_id], quiet=True) == Report(sessions=1)


async def test_nothing_is_wrong_with_what_an_erase_leaves_wherever_it_came(contexts: World) -> None:
    interview, chat, running, ended = [
        await contexts.interview(),
        await contexts.chat(),
        await contexts.interview(),
        await contexts.interview(),
    ]
    held = await contexts.begun(running)
    call = await contexts.intended(running, held.turn_id, "question")
    await contexts.history.history.seal_stream(LedgerId(ended), ALICE)
    for session_id in (interview, chat, running, ended):
        await contexts.erase(session_id)
    await contexts.finish(call)

    report = await verify(contexts.database.dsns, [interview, chat, running, ended], quiet=True)

    assert report == Report(sessions=4)


async def test_nothing_is_wrong_with_an_erase_under_way_or_of_a_session_that_was_half_made(contexts: World) -> None:
    under_way, half_made = await contexts.interview(), await contexts.opened()
    await contexts.history.history.erase_stream(LedgerId(under_way), ALICE)
    await contexts.erase(half_made)

    assert await verify(contexts.database.dsns, [under_way, half_made]) == Report(sessions=2)


# What is done to a session whose id is {id}, and the invariants that it breaks.
BROKEN = {
    "a turn is gone": (
        "I1 I2 I6 chain",
        "DELETE FROM history.turns WHERE session_id = '{id}' AND seq = 2",
    ),
    "a projection lags though all is acknowledged": (
        "I2",
        """
        UPDATE assessment.interviews SET applied_seq = 0, asked = '{{}}',
            head_digest = sha256('colloquy/stream/1'::bytea || uuid_send(session_id)) WHERE session_id = '{id}';
        UPDATE assessment.answers SET seq = NULL, folded_at = NULL WHERE session_id = '{id}'
        """,
    ),
    "a projection has folded another ledger": (
        "I2",
        "UPDATE session.sessions SET head_digest = sha256('x') WHERE session_id = '{id}'",
    ),
    "a turn is counted twice": (
        "I2",
        "UPDATE session.sessions SET cost_nano_usd = 2 * cost_nano_usd WHERE session_id = '{id}'",
    ),
    "an answer is missing": (
        "I2",
        "DELETE FROM assessment.answers WHERE session_id = '{id}' AND seq = 2",
    ),
    "a score comes from nowhere": (
        "I2 I5",
        """
        DELETE FROM llm.attempts WHERE session_id = '{id}' AND purpose = 'judge';
        DELETE FROM llm.calls WHERE session_id = '{id}' AND purpose = 'judge';
        UPDATE llm.sessions SET spent_nano_usd = 42000 WHERE session_id = '{id}'
        """,
    ),
    "a session is completed that is open": (
        "I2",
        "UPDATE session.sessions SET status = 'completed', completed_at = now() WHERE session_id = '{id}'",
    ),
    "two turns have one request": (
        "I3",
        """
        UPDATE history.turns t SET request_id = u.request_id FROM history.turns u
        WHERE t.session_id = '{id}' AND u.session_id = '{id}' AND t.seq = 3 AND u.seq = 2
        """,
    ),
    "a turn was made on another base": (
        "I4",
        "UPDATE history.turns SET base_seq = 1 WHERE session_id = '{id}' AND seq = 3",
    ),
    "a turn was claimed under an older fence": (
        "I4",
        """
        UPDATE history.turns SET fence = 9 - fence WHERE session_id = '{id}' AND seq = 2;
        UPDATE history.streams SET fence = 9 WHERE session_id = '{id}'
        """,
    ),
    "a call counts a repeat that was not made": (
        "I5",
        "UPDATE llm.calls SET repeats = 1 WHERE session_id = '{id}'",
    ),
    "more is spent than calls cost": (
        "I5",
        "UPDATE llm.sessions SET spent_nano_usd = spent_nano_usd + 1 WHERE session_id = '{id}'",
    ),
    "calls were made again that had succeeded": (
        "I5",
        """
        INSERT INTO llm.attempts (session_id, turn_id, purpose, fence, attempt, state, provider, model, cost_nano_usd,
            finished_at)
        SELECT session_id, turn_id, purpose, 2, 1, state, provider, model, 0, now()
        FROM llm.attempts WHERE session_id = '{id}';
        UPDATE llm.calls SET fence = 2, repeats = 1 WHERE session_id = '{id}'
        """,
    ),
    "a message is lost": (
        "I6 chain",
        "UPDATE history.turns SET user_text = NULL WHERE session_id = '{id}' AND seq = 2",
    ),
    "all is acknowledged while somebody holds a claim": (
        "I4 I7",
        """
        UPDATE history.streams
        SET active_turn = gen_random_uuid(), claim_id = gen_random_uuid(), lease_until = now() WHERE session_id = '{id}'
        """,
    ),
    "turns were committed after the end": (
        "I8",
        "UPDATE history.streams SET sealed = true, sealed_at = created_at, acked_rev = 0 WHERE session_id = '{id}'",
    ),
    "an erased stream has texts": (
        "I8",
        """
        UPDATE history.streams SET sealed = true, sealed_at = now(), erased = true, acked_rev = 0
        WHERE session_id = '{id}'
        """,
    ),
    "an erase is acknowledged that the others never heard of": (
        "I8",
        """
        UPDATE history.turns SET user_text = NULL, reply_text = NULL, record = NULL, fingerprint = NULL
        WHERE session_id = '{id}';
        UPDATE history.streams
        SET rev = rev + 1, acked_rev = rev + 1, sealed = true, sealed_at = now(), erased = true, salt = NULL,
            personal_facts = NULL, fingerprint = NULL
        WHERE session_id = '{id}'
        """,
    ),
    "a tombstone is in one context only": (
        "I8",
        "UPDATE llm.sessions SET erased = true WHERE session_id = '{id}'",
    ),
    "a reply was changed": (
        "chain",
        "UPDATE history.turns SET reply_text = 'Well.' WHERE session_id = '{id}' AND seq = 2",
    ),
    "a digest was changed": (
        "I2 chain",
        "UPDATE history.turns SET digest = sha256('x') WHERE session_id = '{id}' AND seq = 3",
    ),
}


@pytest.mark.parametrize(("expected", "damage"), BROKEN.values(), ids=BROKEN)
async def test_what_is_broken_in_the_tables_is_found(contexts: World, expected: str, damage: str) -> None:
    broken, healthy = await contexts.interview(), await contexts.interview()
    contexts.execute(damage.format(id=broken))

    report = await verify(contexts.database.dsns, [broken, healthy])

    assert {str(it.invariant) for it in report.violations} == set(expected.split()), report
    assert report.broken == {broken}
    assert report.sessions == 2


async def test_a_session_that_the_ledger_has_lost_is_found_among_all(contexts: World) -> None:
    lost = await contexts.chat()
    contexts.execute(
        f"DELETE FROM history.turns WHERE session_id = '{lost}';DELETE FROM history.streams WHERE session_id = '{lost}'"
    )

    report = await verify(contexts.database.dsns)

    [found] = [violation for violation in report.violations if violation.session_id == lost]
    assert (found.invariant, found.rule) == (Invariant.I6, "a_session_is_in_the_ledger")
    assert found.what == "session, llm knows the session, the ledger does not"


async def test_all_sessions_are_found_batch_by_batch(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "BATCH", 2)
    async with world(fresh_database()) as made:
        for _ in range(5):
            await made.chat(0)

        assert await verify(made.database.dsns, quiet=True) == Report(sessions=5)


async def test_one_that_nobody_settles_is_stale_and_broken_only_where_all_should_be_quiet(contexts: World) -> None:
    fresh, forgotten = await contexts.interview(), await contexts.interview()
    for session_id in (fresh, forgotten):
        held = await contexts.begun(session_id)
        await contexts.commit(held, 3, 0)
    contexts.execute(
        f"UPDATE history.streams SET changed_at = now() - interval '31 s' WHERE session_id = '{forgotten}'"
    )

    under_load = await verify(contexts.database.dsns, [fresh, forgotten])
    in_silence = await verify(contexts.database.dsns, [fresh, forgotten], quiet=True)

    assert under_load == Report(sessions=2, stale=(forgotten,))
    assert {(it.session_id, it.invariant) for it in in_silence.violations} == {
        (fresh, Invariant.I7),
        (forgotten, Invariant.I7),
    }


async def test_a_claim_that_is_held_is_not_stale_however_old(contexts: World) -> None:
    session_id = await contexts.interview()
    await contexts.begun(session_id)
    contexts.execute(
        f"UPDATE history.streams SET changed_at = now() - interval '31 s' WHERE session_id = '{session_id}'"
    )

    assert await verify(contexts.database.dsns, [session_id]) == Report(sessions=1)


class Overtaken(Reader):
    """A reader to whom something happens each time between the reading of the ledger and that of the rest."""

    def __init__(self, contexts: World, happens: Callable[[], Awaitable[object]]) -> None:
        super().__init__(contexts.pools)
        self._happens = happens

    async def _others(self, params: Mapping[str, object]) -> _Others:
        await self._happens()
        return await super()._others(params)


async def test_a_session_that_moves_on_while_it_is_read_is_read_again(contexts: World) -> None:
    session_id = await contexts.interview()
    news = [3]

    async def moves_on_once() -> None:
        while news:
            await contexts.exchange(session_id, news.pop())
            await contexts.settle(session_id)

    reader = Overtaken(contexts, moves_on_once)
    first, second = await reader.read([session_id]), await reader.read([session_id])

    assert (first.found, first.moved) == ([], [session_id])
    assert [found.session_id for found in second.found] == [session_id]


async def test_a_session_that_never_rests_is_busy_and_not_broken(contexts: World) -> None:
    session_id = await contexts.interview(2)
    numbers = count(2)

    async def moves_on() -> None:
        await contexts.exchange(session_id, next(numbers))
        await contexts.settle(session_id)

    report = await check(Overtaken(contexts, moves_on), [session_id])

    assert report == Report(busy=(session_id,))


async def test_a_session_that_is_opened_while_it_is_read_is_not_lost(contexts: World) -> None:
    opened: list[SessionId] = []
    session_id = SessionId(uuid4())

    async def is_opened() -> None:
        if not opened:
            opened.append(await contexts.chat(0, session_id=session_id))

    assert await check(Overtaken(contexts, is_opened), [session_id]) == Report(sessions=1)


async def test_what_one_context_holds_is_read_as_of_one_moment(contexts: World) -> None:
    session_id = await contexts.interview()
    params = {"session_ids": [session_id]}

    async with contexts.pools["llm"].transaction() as snapshot:
        await snapshot.execute(statements.SNAPSHOT)
        before = await snapshot.all(statements.ACCOUNTS, params)
        held = await contexts.begun(session_id)
        await contexts.called(held, "question")
        after = await snapshot.all(statements.ACCOUNTS, params)

    assert before == after


async def test_a_session_that_nobody_has_is_not_counted(contexts: World) -> None:
    assert await verify(contexts.database.dsns, [uuid4()]) == Report()


async def test_a_database_that_cannot_be_reached_is_an_error_and_no_finding(contexts: World) -> None:
    urls = {**contexts.database.dsns, "llm": "postgresql://nobody:secret@127.0.0.1:1/nothing"}

    with pytest.raises(Unavailable):
        await verify(urls, [uuid4()])
