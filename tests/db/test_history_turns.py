"""Turns, one caller at a time: what a claim, a commit, a release and a seal leave in the tables, and answer."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from libs.runtime.errors import (
    ColloquyError,
    Conflict,
    InvalidField,
    NotFound,
    RateLimited,
    RequestIdReused,
    SessionClosed,
    SessionLimit,
)
from services.history.admission import InProgress, OtherTurn, Replay
from services.history.commands import Release, TurnRange
from services.history.digest import stream_digest
from services.history.domain import (
    ClaimId,
    Fence,
    SessionId,
    Turn,
    TurnId,
    TurnState,
    WindowLimit,
)
from services.history.usecases import CommitOutcome
from tests.databases import Database
from tests.db.history_world import ABANDON, ALICE, World, interview, ledger, message, owner, reply

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


# Claims


async def test_an_owner_is_told_all_that_an_answer_needs(world: World) -> None:
    new = interview()
    await world.commit(owner(await world.history.open_stream(new)), reply("First?", item_asked="item-1"))
    await world.exchange(new.session_id, "one", reply("Second?", item_asked="item-2", record=b"plan"))

    held = owner(await world.history.begin_turn(message(new.session_id, "two", in_reply_to=2)))

    assert [(it.from_user, it.text) for it in held.window] == [(False, "First?"), (True, "one"), (False, "Second?")]
    assert (held.head.last_seq, held.head.fence, held.head.rev) == (2, 3, 5)
    assert (held.head.facts, held.head.personal_facts) == (b"facts", b"name")
    assert held.last_turn is not None
    assert (held.last_turn.item_asked, held.last_turn.record, held.last_turn.seq) == ("item-2", b"plan", 2)
    assert held.last_turn.item_answered == "item-1"
    assert (held.lease_ms, held.takeover) == (60_000, False)
    await world.check(new.session_id)


async def test_the_head_an_owner_is_told_is_the_one_in_the_table(world: World) -> None:
    session_id = await world.opened()

    held = owner(await world.history.begin_turn(message(session_id)))

    assert held.head == (await world.history.get_stream(session_id, ALICE)).head


async def test_the_window_is_the_newest_messages_within_both_bounds(world: World) -> None:
    session_id = await world.opened()
    for number in range(7):
        await world.exchange(session_id, f"question {number}", reply(f"answer {number}"))

    by_count = owner(await world.history.begin_turn(message(session_id, window=WindowLimit(5, 3000))))
    await world.commit(by_count)
    by_tokens = owner(await world.history.begin_turn(message(session_id, window=WindowLimit(10, 4))))

    newest = ["answer 4", "question 5", "answer 5", "question 6", "answer 6"]
    assert [it.text for it in by_count.window] == newest
    assert [it.text for it in by_tokens.window] == ["hello", "Why?"]


async def test_a_lost_reply_to_a_claim_costs_nothing(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)

    first = owner(await world.history.begin_turn(new))
    second = owner(await world.history.begin_turn(new))

    assert replace(second, lease_ms=first.lease_ms) == first
    assert len(await world.rows("turns", session_id)) == 1


async def test_the_same_message_from_another_gateway_waits_then_is_replayed(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)
    held = owner(await world.history.begin_turn(new))

    waiting = await world.history.begin_turn(replace(new, claim_id=other_claim()))
    done = await world.commit(held)
    replayed = await world.history.begin_turn(replace(new, claim_id=other_claim()))

    assert isinstance(waiting, InProgress)
    assert waiting.turn.turn_id == held.turn_id
    assert 0 < waiting.lease_left_ms <= 60_000
    assert replayed == Replay(committed(done.turn))


async def test_another_message_is_told_whose_turn_it_is_and_its_row_once_it_has_expired(world: World) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id, "first")))

    live = await world.history.begin_turn(message(session_id, "second"))
    await world.lapse(session_id)
    ripe = await world.history.begin_turn(message(session_id, "second"))

    assert isinstance(live, OtherTurn)
    assert isinstance(ripe, OtherTurn)
    assert (live.turn.turn_id, live.turn.fence) == (held.turn_id, held.head.fence)
    assert 0 < live.lease_left_ms <= 60_000
    assert ripe.lease_left_ms == 0
    assert (ripe.turn.user_text, ripe.turn.state) == ("first", TurnState.RUNNING)


async def test_an_expired_turn_is_repaired_under_the_fence_it_was_found_with(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    await world.history.begin_turn(message(session_id, "first"))
    await world.lease_over(session_id)
    ripe = await world.history.begin_turn(message(session_id, "second"))
    assert isinstance(ripe, OtherTurn)

    repaired = await world.history.commit_turn(session_id, ripe.turn.turn_id, ripe.turn.fence, reply("Go on."))
    after = owner(await world.history.begin_turn(message(session_id, "second")))

    assert repaired.outcome is CommitOutcome.COMMITTED
    assert after.head.last_seq == 1
    await world.check(session_id)


async def test_a_paused_owner_commits_after_its_lease_where_nobody_took_over(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    held = owner(await world.history.begin_turn(message(session_id)))
    await world.lease_over(session_id)

    assert (await world.commit(held)).outcome is CommitOutcome.COMMITTED
    await world.check(session_id)


async def test_a_takeover_keeps_turn_base_and_message_and_fences_the_first_owner(world: World) -> None:
    session_id = await world.opened(lease_ms=1)
    new = message(session_id, "keep me")
    first = owner(await world.history.begin_turn(new))
    await world.lease_over(session_id)

    second = owner(await world.history.begin_turn(replace(new, claim_id=other_claim())))
    [row] = await world.rows("turns", session_id)
    fenced = await world.commit(first, reply("too late"))
    done = await world.commit(second, reply("in time"))

    assert (second.takeover, second.turn_id, second.head.fence) == (True, first.turn_id, first.head.fence + 1)
    assert (row["user_text"], row["base_seq"], row["state"]) == ("keep me", 0, "RUNNING")
    assert fenced.outcome is CommitOutcome.FENCED
    assert fenced.turn is not None
    assert fenced.turn.state is TurnState.RUNNING
    assert committed(done.turn).reply_text == "in time"
    await world.check(session_id)


async def test_a_lost_reply_to_a_takeover_still_says_that_it_was_one(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)
    await world.history.begin_turn(new)
    await world.lapse(session_id)
    again = replace(new, claim_id=other_claim())

    first = owner(await world.history.begin_turn(again))
    second = owner(await world.history.begin_turn(again))

    assert first.takeover
    assert replace(second, lease_ms=first.lease_ms) == first


@pytest.mark.parametrize(
    ("opened", "sent", "refusal"),
    [
        ({}, {"in_reply_to": 0}, Conflict),
        ({}, {"in_reply_to": 2}, InvalidField),
        ({"max_turns": 1}, {}, SessionLimit),
        ({"min_interval_ms": 60_000}, {}, RateLimited),
    ],
)
async def test_a_refusal_leaves_nothing_behind(
    world: World, opened: dict[str, object], sent: dict[str, object], refusal: type[ColloquyError]
) -> None:
    session_id = await world.opened(**opened)
    await world.exchange(session_id)
    before = await world.rows("streams", session_id)

    with pytest.raises(refusal):
        await world.history.begin_turn(replace(message(session_id), **sent))  # type: ignore[arg-type]

    assert await world.rows("streams", session_id) == before
    assert len(await world.rows("turns", session_id)) == 1


async def test_a_message_that_was_let_in_fails_for_good_where_the_session_has_had_its_turns(world: World) -> None:
    session_id = await world.opened(max_turns=1)
    overtaken = message(session_id)
    held = owner(await world.history.begin_turn(overtaken))
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    await world.exchange(session_id)

    answers = [await world.history.begin_turn(overtaken) for _ in range(2)]

    assert [(it.turn.state, it.turn.reason) for it in answers if isinstance(it, Replay)] == [
        (TurnState.FAILED, "CONFLICT"),
        (TurnState.FAILED, "CONFLICT"),
    ]
    await world.check(session_id)


async def test_the_wait_of_the_pace_is_counted_from_the_last_new_turn(world: World) -> None:
    session_id = await world.opened(min_interval_ms=60_000)
    await world.exchange(session_id)

    with pytest.raises(RateLimited) as caught:
        await world.history.begin_turn(message(session_id))

    assert caught.value.retry_after_ms is not None
    assert 50_000 < caught.value.retry_after_ms <= 60_000


async def test_the_first_answer_of_an_interview_may_come_at_once(world: World) -> None:
    new = interview(min_interval_ms=60_000)
    await world.commit(owner(await world.history.open_stream(new)))

    assert owner(await world.history.begin_turn(message(new.session_id))).head.last_seq == 1


async def test_a_request_id_means_one_message(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id, "this")
    await world.history.begin_turn(new)

    for changed in (replace(new, text="that"), replace(new, in_reply_to=0)):
        with pytest.raises(RequestIdReused):
            await world.history.begin_turn(changed)


@pytest.mark.parametrize(
    "text",
    [
        "🦉" * 2000,
        "👩‍👩‍👧‍👦 " * 250,
        "e\u0301\u0958 as written, not as normalised",
        "\u202eright to left\u202c שלום",
        "'); DROP TABLE history.turns; -- %(x)s %s {} \\x00 \\",
        '{"a": "<b>&amp;</b>"}\u2028\n\r\t\x7f\x01',
    ],
    ids=["emoji", "families", "unnormalised", "bidi", "sql", "json and html"],
)
async def test_texts_come_back_exactly_as_written(world: World, text: str) -> None:
    session_id = await world.opened()

    result = await world.exchange(session_id, text, reply(text[::-1], record=bytes(range(256))))
    _, [listed] = await world.history.list_turns(session_id, ALICE, ALL)

    assert (listed.user_text, listed.reply_text, listed.record) == (text, text[::-1], bytes(range(256)))
    assert listed == result.turn
    await world.check(session_id)


# The commit point


async def test_a_commit_is_whole(world: World) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id, "hello there")))

    result = await world.commit(held, reply("General.", item_asked="item-7", record=b"r"))
    [row] = await world.rows("turns", session_id)
    [stream] = await world.rows("streams", session_id)

    assert result.outcome is CommitOutcome.COMMITTED
    assert (result.rev, result.sealed) == (stream["rev"], False)
    assert (row["state"], row["seq"], row["user_tokens"], row["reply_tokens"]) == ("COMMITTED", 1, 2, 2)
    assert (stream["last_seq"], stream["active_turn"], stream["claim_id"], stream["lease_until"]) == (
        1,
        None,
        None,
        None,
    )
    await world.check(session_id)


async def test_what_a_commit_answers_is_what_is_stored(world: World) -> None:
    session_id = await world.opened()
    await world.exchange(session_id)

    result = await world.exchange(session_id, "more", reply(item_asked="item-1"))
    head, turns = await world.history.list_turns(session_id, ALICE, ALL)

    assert turns[1] == result.turn
    assert turns[1].previous_digest == turns[0].digest
    assert turns[0].previous_digest == stream_digest(session_id)
    assert head.digest == turns[1].digest


async def test_a_commit_that_is_sent_again_changes_nothing(world: World) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))

    first = await world.commit(held, reply("first", item_asked="item-1"))
    second = await world.commit(held, reply("second", item_asked="item-1"))

    assert second.outcome is CommitOutcome.DUPLICATE
    assert second.turn == first.turn
    await world.check(session_id)


async def test_an_item_is_not_asked_twice_and_the_claim_survives_the_attempt(world: World) -> None:
    session_id = await world.opened()
    await world.exchange(session_id, said=reply(item_asked="item-1"))
    held = owner(await world.history.begin_turn(message(session_id)))
    before = await world.rows("streams", session_id)

    refused = await world.commit(held, reply(item_asked="item-1", final=True))
    unchanged = await world.rows("streams", session_id)
    done = await world.commit(held, reply(item_asked="item-2"))

    assert (refused.outcome, refused.turn) == (CommitOutcome.ITEM_ALREADY_ASKED, None)
    assert unchanged == before
    assert done.outcome is CommitOutcome.COMMITTED
    await world.check(session_id)


async def test_the_final_turn_closes_the_session_with_itself(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)
    held = owner(await world.history.begin_turn(new))

    result = await world.commit(held, reply(final=True))
    [stream] = await world.rows("streams", session_id)
    replayed = await world.history.begin_turn(new)
    again = await world.commit(held, reply(final=True))

    assert (result.outcome, result.sealed) == (CommitOutcome.COMMITTED, True)
    assert stream["sealed_at"] == committed(result.turn).committed_at
    assert replayed == Replay(committed(result.turn))
    assert (again.outcome, again.sealed) == (CommitOutcome.DUPLICATE, True)
    with pytest.raises(SessionClosed):
        await world.history.begin_turn(message(session_id))
    await world.check(session_id)


async def test_the_final_turn_fails_what_was_given_back_and_no_other_does(world: World) -> None:
    session_id = await world.opened()
    given_back = [message(session_id, text) for text in ("on the first base", "on the same base")]
    for new in given_back:
        held = owner(await world.history.begin_turn(new))
        await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
        done = await world.exchange(session_id)
    waiting = {turn["state"] for turn in await world.rows("turns", session_id) if turn["seq"] is None}
    before = done.rev or 0

    held = owner(await world.history.begin_turn(message(session_id)))
    last = await world.commit(held, reply(final=True))
    replays = [await world.history.begin_turn(new) for new in given_back]

    assert waiting == {"ABANDONED"}
    assert (last.outcome, last.rev) == (CommitOutcome.COMMITTED, before + 2)
    assert [(it.turn.state, it.turn.reason) for it in replays if isinstance(it, Replay)] == [
        (TurnState.FAILED, "SESSION_CLOSED"),
        (TurnState.FAILED, "SESSION_CLOSED"),
    ]
    await world.check(session_id)


async def test_a_final_turn_that_is_refused_fails_nothing(world: World) -> None:
    session_id = await world.opened()
    await world.exchange(session_id, said=reply(item_asked="item-1"))
    given_back = owner(await world.history.begin_turn(message(session_id)))
    await world.history.release_turn(session_id, given_back.turn_id, given_back.head.fence, ABANDON)
    held = owner(await world.history.begin_turn(message(session_id)))

    refused = await world.commit(held, reply(item_asked="item-1", final=True))
    fenced = await world.commit(replace(held, head=given_back.head), reply(final=True))

    assert (refused.outcome, fenced.outcome) == (CommitOutcome.ITEM_ALREADY_ASKED, CommitOutcome.FENCED)
    states = {turn["turn_id"]: turn["state"] for turn in await world.rows("turns", session_id)}
    assert states[given_back.turn_id] == "ABANDONED"
    await world.check(session_id)


@pytest.mark.parametrize("fence", [0, 2, 99])
async def test_no_commit_under_another_fence(world: World, fence: int) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))

    result = await world.history.commit_turn(session_id, held.turn_id, Fence(fence), reply())

    assert result.outcome is CommitOutcome.FENCED
    await world.check(session_id)


async def test_a_commit_of_what_is_not_there_is_not_found(world: World) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))
    elsewhere = await world.opened()

    for session, turn in [(session_id, uuid4()), (SessionId(uuid4()), held.turn_id), (elsewhere, held.turn_id)]:
        with pytest.raises(NotFound):
            await world.history.commit_turn(session, TurnId(turn), held.head.fence, reply())
        with pytest.raises(NotFound):
            await world.history.release_turn(session, TurnId(turn), held.head.fence, ABANDON)


# Giving back


async def test_an_abandoned_turn_stays_pending_and_may_be_tried_again_at_once(world: World) -> None:
    session_id = await world.opened(min_interval_ms=60_000)
    new = message(session_id, "keep me")
    held = owner(await world.history.begin_turn(new))

    released = await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    pending = (await world.history.get_stream(session_id, ALICE)).pending
    late = await world.commit(held)
    again = owner(await world.history.begin_turn(replace(new, claim_id=other_claim())))

    assert released
    assert pending is not None
    assert (pending.user_text, pending.state, pending.reason) == ("keep me", TurnState.ABANDONED, "UNAVAILABLE")
    assert late.outcome is CommitOutcome.FENCED
    assert (again.takeover, again.turn_id) == (True, held.turn_id)
    await world.check(session_id)


async def test_another_message_may_come_instead_of_an_abandoned_one_which_then_fails(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id, "first")
    held = owner(await world.history.begin_turn(new))
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    await world.exchange(session_id, "second")

    first = await world.history.begin_turn(new)
    second = await world.history.begin_turn(replace(new, claim_id=other_claim()))

    assert isinstance(first, Replay)
    assert (first.turn.state, first.turn.reason) == (TurnState.FAILED, "CONFLICT")
    assert second == first
    assert (await world.history.get_stream(session_id, ALICE)).pending is None
    await world.check(session_id)


async def test_a_failed_turn_is_frozen(world: World) -> None:
    session_id = await world.opened()
    new = message(session_id)
    held = owner(await world.history.begin_turn(new))
    refused = Release(TurnState.FAILED, "INVALID_FIELD")

    assert await world.history.release_turn(session_id, held.turn_id, held.head.fence, refused)
    replayed = await world.history.begin_turn(new)

    assert isinstance(replayed, Replay)
    assert (replayed.turn.state, replayed.turn.reason) == (TurnState.FAILED, "INVALID_FIELD")
    assert (await world.commit(held)).outcome is CommitOutcome.FENCED
    assert owner(await world.history.begin_turn(message(session_id))).head.last_seq == 0
    await world.check(session_id)


async def test_a_claim_is_given_back_once_and_under_its_own_fence_only(world: World) -> None:
    session_id = await world.opened()
    held = owner(await world.history.begin_turn(message(session_id)))

    stale = await world.history.release_turn(session_id, held.turn_id, Fence(held.head.fence + 1), ABANDON)
    first = await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    second = await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)

    assert (stale, first, second) == (False, True, False)


# The end


async def test_a_seal_fails_what_runs_and_what_was_given_back(world: World) -> None:
    session_id = await world.opened()
    given_back, running = message(session_id, "first"), message(session_id, "second")
    held = owner(await world.history.begin_turn(given_back))
    await world.history.release_turn(session_id, held.turn_id, held.head.fence, ABANDON)
    last = owner(await world.history.begin_turn(running))

    head = await world.history.seal_stream(session_id, ALICE)
    late = await world.commit(last)
    replays = [await world.history.begin_turn(new) for new in (given_back, running)]

    assert head.sealed
    assert (head.fence, head.active_turn) == (last.head.fence + 1, None)
    assert (late.outcome, late.sealed) == (CommitOutcome.FENCED, True)
    assert [(it.turn.state, it.turn.reason) for it in replays if isinstance(it, Replay)] == [
        (TurnState.FAILED, "SESSION_CLOSED"),
        (TurnState.FAILED, "SESSION_CLOSED"),
    ]
    with pytest.raises(SessionClosed):
        await world.history.begin_turn(message(session_id))
    await world.check(session_id)


async def test_a_second_seal_answers_the_same(world: World) -> None:
    session_id = await world.opened()

    first = await world.history.seal_stream(session_id, ALICE)
    second = await world.history.seal_stream(session_id, ALICE)

    assert second == first
