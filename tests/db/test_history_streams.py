"""Streams, one caller at a time: how they are opened, read and acknowledged."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from libs.runtime.errors import (
    NotFound,
    RequestIdReused,
)
from services.history.admission import InProgress, Replay
from services.history.commands import Release, TurnRange, Viewer
from services.history.digest import stream_digest
from services.history.domain import (
    ClaimId,
    Kind,
    OwnerId,
    Rev,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from services.history.usecases import CommitOutcome
from tests.databases import Database
from tests.db.history_world import ABANDON, ALICE, World, chat, interview, ledger, message, owner, reply

ALL = TurnRange(0, 0, 200, newest=False)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with ledger(database.dsns["history"]) as world:
        yield world


def other_claim() -> ClaimId:
    return ClaimId(uuid4())


def committed(turn: Turn | None) -> Turn:
    assert turn is not None
    assert turn.state is TurnState.COMMITTED
    return turn


async def test_a_chat_opens_without_a_turn(world: World) -> None:
    new = chat(tenant_id="acme")

    opened = await world.history.open_stream(new)

    assert opened.opening is None
    assert (opened.head.last_seq, opened.head.fence, opened.head.rev, opened.head.acked_rev) == (0, 0, 1, 0)
    assert (opened.head.owner_id, opened.head.tenant_id, opened.head.kind) == ("alice", "acme", Kind.CHAT)
    assert opened.head.digest == stream_digest(new.session_id)
    assert await world.rows("turns", new.session_id) == []


async def test_opening_a_chat_again_answers_the_same(world: World) -> None:
    new = chat()

    first = await world.history.open_stream(new)
    second = await world.history.open_stream(replace(new, claim_id=other_claim()))

    assert (second.head, second.replayed) == (first.head, True)


async def test_an_interview_opens_with_its_first_turn_claimed(world: World) -> None:
    new = interview()

    held = owner(await world.history.open_stream(new))
    result = await world.commit(held, reply("Welcome.", item_asked="item-1"))
    [row] = await world.rows("turns", new.session_id)

    assert (held.lease_ms, held.takeover, held.window, held.last_turn) == (60_000, False, (), None)
    assert (row["request_id"], row["user_text"], row["user_tokens"], row["seq"]) == (new.request_id, None, 0, 1)
    assert committed(result.turn).user_text is None
    await world.check(new.session_id)


async def test_opening_an_interview_again_is_answered_like_a_message(world: World) -> None:
    new = interview()
    held = owner(await world.history.open_stream(new))

    same_claim = await world.history.open_stream(new)
    other = await world.history.open_stream(replace(new, claim_id=other_claim()))
    done = await world.commit(held)
    replayed = await world.history.open_stream(replace(new, claim_id=other_claim()))

    assert owner(same_claim).turn_id == held.turn_id
    assert owner(same_claim).head == held.head
    assert 0 < owner(same_claim).lease_ms <= 60_000
    assert isinstance(other.opening, InProgress)
    assert replayed.opening == Replay(committed(done.turn))
    assert replayed.head.last_seq == 1


async def test_an_expired_opening_is_taken_over(world: World) -> None:
    new = interview(lease_ms=1)
    first = owner(await world.history.open_stream(new))
    await world.lease_over(new.session_id)

    second = owner(await world.history.open_stream(replace(new, claim_id=other_claim())))
    late = await world.commit(first)
    done = await world.commit(second)

    assert second.takeover
    assert (second.turn_id, second.head.fence) == (first.turn_id, 2)
    assert late.outcome is CommitOutcome.FENCED
    assert done.outcome is CommitOutcome.COMMITTED
    await world.check(new.session_id)


async def test_an_opening_given_back_waits_for_a_message_that_came_first(world: World) -> None:
    new = interview()
    held = owner(await world.history.open_stream(new))
    await world.history.release_turn(new.session_id, held.turn_id, held.head.fence, ABANDON)
    other = owner(await world.history.begin_turn(message(new.session_id)))

    waiting = await world.history.open_stream(new)
    await world.commit(other)
    replayed = await world.history.open_stream(new)

    assert isinstance(waiting.opening, InProgress)
    assert waiting.opening.turn.turn_id == other.turn_id
    assert isinstance(replayed.opening, Replay)
    assert (replayed.opening.turn.state, replayed.opening.turn.reason) == (TurnState.FAILED, "CONFLICT")
    await world.check(new.session_id)


@pytest.mark.parametrize("change", [{"fingerprint": b"x" * 32}, {"kind": Kind.INTERVIEW}, {"with_opening": True}])
async def test_a_session_id_means_one_session(world: World, change: dict[str, object]) -> None:
    new = chat()
    await world.history.open_stream(new)

    with pytest.raises(RequestIdReused):
        await world.history.open_stream(replace(new, **change))  # type: ignore[arg-type]


async def test_a_session_of_somebody_else_is_not_opened_again(world: World) -> None:
    new = chat()
    await world.history.open_stream(new)

    with pytest.raises(NotFound):
        await world.history.open_stream(replace(new, viewer=replace(ALICE, owner_id=OwnerId("bob"))))


# Reading


async def test_what_is_not_there_not_yours_of_another_kind_or_erased_is_the_same(world: World) -> None:
    session_id, erased = await world.opened(), await world.opened()
    await world.history.erase_stream(erased, ALICE)
    bob, interviews = replace(ALICE, owner_id=OwnerId("bob")), replace(ALICE, kind=Kind.INTERVIEW)
    cases = [(SessionId(uuid4()), ALICE), (session_id, bob), (session_id, interviews), (erased, ALICE)]
    refusals = []

    for session, viewer in cases:
        attempts = [
            world.history.get_stream(session, viewer),
            world.history.list_turns(session, viewer, ALL),
            world.history.seal_stream(session, viewer),
            world.history.begin_turn(message(session, viewer=viewer)),
        ]
        for attempt in attempts:
            with pytest.raises(NotFound) as caught:
                await attempt
            refusals.append((caught.value.detail, caught.value.metadata, caught.value.violations))

    assert len(refusals) == 16
    assert all(refusal == refusals[0] for refusal in refusals)
    assert await world.history.get_streams([session for session, _ in cases], bob) == []


async def test_a_viewer_with_the_right_role_sees_streams_of_any_owner(world: World) -> None:
    session_id = await world.opened()

    sight = await world.history.get_stream(session_id, Viewer(OwnerId("operator"), any_owner=True, kind=Kind.CHAT))

    assert sight.head.session_id == session_id


async def test_the_pending_turn_is_the_one_that_was_claimed_last(world: World) -> None:
    session_id = await world.opened()
    first, second = message(session_id, "first"), message(session_id, "second")
    for new in (first, second):
        held = owner(await world.history.begin_turn(new))
        await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)

    newest = await world.history.get_stream(session_id, ALICE)
    held = owner(await world.history.begin_turn(first))
    running = await world.history.get_stream(session_id, ALICE)

    assert newest.pending is not None
    assert newest.pending.user_text == "second"
    assert newest.head.active_turn is None
    assert running.pending is not None
    assert (running.pending.turn_id, running.pending.state) == (held.turn_id, TurnState.RUNNING)


async def test_many_streams_are_read_in_the_order_asked(world: World) -> None:
    sessions = [await world.opened() for _ in range(5)]
    await world.history.begin_turn(message(sessions[3]))

    sights = await world.history.get_streams([*reversed(sessions), SessionId(uuid4())], ALICE)

    assert [sight.head.session_id for sight in sights] == sessions[::-1]
    assert [sight.pending is not None for sight in sights] == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("asked", "seqs"),
    [
        (ALL, [1, 2, 3, 4, 5]),
        (TurnRange(0, 0, 2, newest=True), [4, 5]),
        (TurnRange(0, 4, 2, newest=True), [2, 3]),
        (TurnRange(3, 0, 200, newest=False), [4, 5]),
        (TurnRange(5, 0, 200, newest=False), []),
    ],
)
async def test_turns_are_listed_by_seq(world: World, asked: TurnRange, seqs: list[int]) -> None:
    session_id = await world.opened()
    for _ in range(5):
        await world.exchange(session_id)
    await world.history.begin_turn(message(session_id))

    head, turns = await world.history.list_turns(session_id, ALICE, asked)

    assert [turn.seq for turn in turns] == seqs
    assert head.last_seq == 5


async def test_the_states_of_turns_are_read_together_whoever_they_belong_to(world: World) -> None:
    sessions = [await world.opened() for _ in range(4)]
    turns = [owner(await world.history.begin_turn(message(session_id))) for session_id in sessions]
    done = committed((await world.commit(turns[0])).turn)
    for held, state in [(turns[1], TurnState.ABANDONED), (turns[2], TurnState.FAILED)]:
        release = Release(state, "UNAVAILABLE")
        await world.history.release_turn(held.head.session_id, held.turn_id, held.head.fence, release)
    await world.history.erase_stream(sessions[2], ALICE)
    known = [(held.head.session_id, held.turn_id) for held in turns]

    found = await world.history.get_turn_states(
        [*known, (sessions[0], turns[1].turn_id), (sessions[0], TurnId(uuid4()))]
    )

    assert {(it.session_id, it.turn_id): (it.state, it.committed_at) for it in found} == dict(
        zip(
            known,
            [
                (TurnState.COMMITTED, done.committed_at),
                (TurnState.ABANDONED, None),
                (TurnState.FAILED, None),
                (TurnState.RUNNING, None),
            ],
            strict=True,
        )
    )
    assert await world.history.get_turn_states([]) == []


async def test_a_turn_whose_base_was_built_upon_stands_as_its_own_request_would_be_told(world: World) -> None:
    session_id = await world.opened()
    stale, pending = message(session_id), message(session_id)
    keys = []
    for new in (stale, pending):
        held = owner(await world.history.begin_turn(new))
        await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
        keys.append((session_id, held.turn_id))
        if new is stale:
            await world.exchange(session_id)
    before = await world.rows("streams", session_id), await world.rows("turns", session_id)

    found = await world.history.get_turn_states(keys)
    left = await world.rows("streams", session_id), await world.rows("turns", session_id)
    told = await world.history.begin_turn(stale)

    states = {it.turn_id: it.state for it in found}
    assert [states[turn_id] for _, turn_id in keys] == [TurnState.FAILED, TurnState.ABANDONED]
    assert left == before, "a read writes nothing"
    assert isinstance(told, Replay)
    assert told.turn.state is TurnState.FAILED
    assert (await world.history.get_turn_states(keys[:1]))[0] == found[[it.turn_id for it in found].index(keys[0][1])]


# Acknowledging


async def test_a_stream_is_acknowledged_at_the_rev_that_was_observed_only(world: World) -> None:
    session_id, moved_on, busy = [await world.opened() for _ in range(3)]
    done = await world.exchange(session_id)
    stale = await world.exchange(moved_on)
    await world.exchange(moved_on)
    held = owner(await world.history.begin_turn(message(busy)))
    assert done.rev is not None
    assert stale.rev is not None
    settled = [(session_id, done.rev), (moved_on, stale.rev), (busy, held.head.rev), (SessionId(uuid4()), Rev(1))]

    first = await world.history.acknowledge_streams(settled)
    second = await world.history.acknowledge_streams(settled)

    assert (first, second) == (1, 1)
    heads = [sight.head for sight in await world.history.get_streams([session_id, moved_on, busy], ALICE)]
    assert [head.acked_rev for head in heads] == [done.rev, 0, 0]
    assert heads[0].rev == done.rev, "an acknowledgement is no write that must be acknowledged"


async def test_rev_grows_with_every_write(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    new = message(session_id)
    revs = [1]

    async def note() -> None:
        revs.append((await world.history.get_stream(session_id, ALICE)).head.rev)

    held = owner(await world.history.begin_turn(new))
    await note()
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    await note()
    await world.exchange(session_id)
    await note()
    await world.history.begin_turn(new)  # FAILED(CONFLICT)
    await note()
    taken = message(session_id)
    await world.history.begin_turn(taken)
    await world.lease_over(session_id)
    await world.history.begin_turn(taken)
    await note()
    await world.history.seal_stream(session_id, ALICE)
    await note()

    assert revs == [1, 2, 3, 5, 6, 8, 9]
