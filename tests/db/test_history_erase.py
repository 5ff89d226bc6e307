"""Erase: what it leaves of a session, to whom it answers, and that nothing written late brings anything back."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from libs.runtime.errors import NotFound
from services.history.commands import Release, Viewer
from services.history.domain import ClaimId, Kind, OwnerId, SessionId, TurnState
from tests.databases import Database
from tests.db.history_world import ABANDON, ALICE, OPERATOR, World, chat, interview, ledger, message, owner, reply

BOB = Viewer(OwnerId("bob"), any_owner=False, kind=None)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with ledger(database.dsns["history"]) as world:
        yield world


async def talked(world: World) -> SessionId:
    """A session with a turn of each state."""
    session_id = await world.opened()
    for text in ("first", "second"):
        await world.exchange(session_id, text, reply(f"reply to {text}", item_asked=text))
    for release in (Release(TurnState.FAILED, "INVALID_FIELD"), ABANDON):
        held = owner(await world.history.begin_turn(message(session_id, str(release.state))))
        await world.history.release_turn(session_id, held.turn_id, held.head.fence, release)
    await world.history.begin_turn(message(session_id, "running"))
    return session_id


# What is left


async def test_an_erase_leaves_ids_counts_and_digests_and_nothing_to_read(world: World) -> None:
    session_id = await talked(world)
    [stream], turns = await world.rows("streams", session_id), await world.rows("turns", session_id)

    head = await world.history.erase_stream(session_id, ALICE)
    [left], turns_left = await world.rows("streams", session_id), await world.rows("turns", session_id)

    changed = {name for name in stream if stream[name] != left[name]}
    assert changed == {
        *("erased", "personal_facts", "fingerprint", "salt", "active_turn", "claim_id", "lease_until"),
        *("sealed", "sealed_at", "fence", "rev", "changed_at"),
    }
    assert (head.erased, head.sealed, head.rev, head.personal_facts) == (True, True, stream["rev"] + 1, b"")
    assert (left["rev"], left["fence"], left["facts"]) == (stream["rev"] + 1, stream["fence"] + 1, b"facts")
    assert len(turns_left) == len(turns)
    before = {turn["turn_id"]: turn for turn in turns}
    for turn in turns_left:
        for name in {*turn} - {"user_text", "reply_text", "record", "fingerprint", "state", "reason"}:
            assert turn[name] == before[turn["turn_id"]][name], name
    await world.check(session_id)


async def test_an_erase_fails_what_waits_for_an_answer_and_keeps_what_had_one(world: World) -> None:
    session_id = await talked(world)

    await world.history.erase_stream(session_id, ALICE)

    ends = sorted((turn["state"], turn["reason"] or "") for turn in await world.rows("turns", session_id))
    assert ends == [
        ("COMMITTED", ""),
        ("COMMITTED", ""),
        ("FAILED", "INVALID_FIELD"),
        ("FAILED", "SESSION_CLOSED"),
        ("FAILED", "SESSION_CLOSED"),
    ]


async def test_an_ended_session_keeps_the_moment_of_its_end(world: World) -> None:
    session_id = await world.opened()
    ended = await world.history.seal_stream(session_id, ALICE)

    head = await world.history.erase_stream(session_id, ALICE)

    assert (head.sealed_at, head.fence) == (ended.sealed_at, ended.fence + 1)
    await world.check(session_id)


async def test_an_opening_that_was_never_answered_is_erased_with_its_session(world: World) -> None:
    new = interview()
    held = owner(await world.history.open_stream(new))

    await world.history.erase_stream(new.session_id, OPERATOR)

    with pytest.raises(NotFound):
        await world.commit(held, reply("Welcome."))
    await world.check(new.session_id)


# To whom it answers


async def test_an_erase_is_answered_the_same_however_often_it_is_sent(world: World) -> None:
    session_id = await talked(world)

    first = await world.history.erase_stream(session_id, ALICE)
    again = [await world.history.erase_stream(session_id, viewer) for viewer in (ALICE, OPERATOR)]

    assert again == [first, first]


async def test_what_is_not_yours_cannot_be_erased_and_answers_like_what_is_not_there(world: World) -> None:
    session_id, erased = await world.opened(), await world.opened()
    await world.history.erase_stream(erased, ALICE)
    interviews = replace(ALICE, kind=Kind.INTERVIEW)

    for session, viewer in [(SessionId(uuid4()), OPERATOR), (session_id, BOB), (erased, BOB), (session_id, interviews)]:
        with pytest.raises(NotFound):
            await world.history.erase_stream(session, viewer)

    assert not (await world.history.get_stream(session_id, ALICE)).head.erased


async def test_an_erased_session_takes_and_tells_nothing_any_more(world: World) -> None:
    new = chat()
    session_id = (await world.history.open_stream(new)).head.session_id
    answered, waiting = message(session_id, "answered"), message(session_id, "waiting")
    done = owner(await world.history.begin_turn(answered))
    await world.commit(done)
    held = owner(await world.history.begin_turn(waiting))
    await world.history.erase_stream(session_id, ALICE)
    history = world.history

    attempts = [
        *(history.begin_turn(replace(it, claim_id=ClaimId(uuid4()))) for it in (answered, waiting)),
        history.begin_turn(message(session_id)),
        history.open_stream(new),
        history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON),
        history.seal_stream(session_id, ALICE),
        world.commit(held),
        world.commit(done),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt

    assert len(await world.rows("turns", session_id)) == 2
    await world.check(session_id)


async def test_an_erased_session_is_acknowledged_at_the_rev_that_the_erase_gave_it(world: World) -> None:
    session_id = await world.opened()
    done = await world.exchange(session_id)
    head = await world.history.erase_stream(session_id, ALICE)
    assert done.rev is not None

    stale = await world.history.acknowledge_streams([(session_id, done.rev)])
    settled = await world.history.acknowledge_streams([(session_id, head.rev)])

    [stream] = await world.rows("streams", session_id)
    assert (stale, settled, stream["acked_rev"]) == (0, 1, head.rev)
