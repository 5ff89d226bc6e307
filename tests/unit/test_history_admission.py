"""Who may enter: every rule of BeginTurn, and their order."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.errors import (
    Conflict,
    InvalidField,
    RateLimited,
    RequestIdReused,
    SessionClosed,
    SessionLimit,
)
from services.history.admission import (
    Claim,
    Hold,
    InProgress,
    OtherTurn,
    Replay,
    Request,
    Supersede,
    TakeOver,
    admit,
    lease_left_ms,
    was_taken_over,
)
from services.history.domain import (
    ClaimId,
    Digest,
    Fence,
    Head,
    Kind,
    OwnerId,
    RequestId,
    Rev,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)

NOW = datetime(2026, 5, 6, 12, tzinfo=UTC)
LEASE_MS = 4000
MINE, THEIRS = ClaimId(UUID(int=1)), ClaimId(UUID(int=2))
REQUEST = Request(RequestId(UUID(int=3)), MINE, b"f" * 32)


def at(milliseconds: float) -> datetime:
    return NOW + timedelta(milliseconds=milliseconds)


HEAD = Head(
    session_id=SessionId(uuid4()),
    owner_id=OwnerId("alice"),
    tenant_id="",
    kind=Kind.INTERVIEW,
    facts=b"",
    personal_facts=b"",
    fingerprint=b"s" * 32,
    max_turns=100,
    min_interval_ms=3000,
    lease_ms=LEASE_MS,
    last_seq=5,
    fence=Fence(9),
    rev=Rev(20),
    acked_rev=Rev(20),
    active_turn=None,
    claim_id=None,
    lease_until=None,
    last_begin_at=at(-60_000),
    sealed_at=None,
    created_at=at(-600_000),
    changed_at=at(-60_000),
    digest=Digest(b"d" * 32),
    erased=False,
)
TURN = Turn(
    turn_id=TurnId(uuid4()),
    request_id=REQUEST.request_id,
    fingerprint=REQUEST.fingerprint,
    state=TurnState.RUNNING,
    reason="",
    fence=Fence(9),
    base_seq=5,
    seq=0,
    user_text="hello",
    reply_text="",
    item_answered="",
    item_asked="",
    record=b"",
    previous_digest=Digest(b""),
    digest=Digest(b""),
    begun_at=at(-1000),
    committed_at=None,
)
OTHER = replace(TURN, turn_id=TurnId(uuid4()), request_id=RequestId(uuid4()), fingerprint=b"o" * 32)
ABANDONED = replace(TURN, state=TurnState.ABANDONED, reason="UNAVAILABLE")


def held(turn: Turn, left_ms: float, claim_id: ClaimId = THEIRS, head: Head = HEAD) -> Head:
    """The head while `turn` is active, for `left_ms` more."""
    return replace(head, active_turn=turn.turn_id, claim_id=claim_id, lease_until=at(left_ms))


def test_a_new_message_is_admitted_to_a_quiet_session() -> None:
    assert admit(HEAD, None, None, REQUEST, NOW) == Claim()


def test_a_new_message_may_say_that_it_replies_to_the_last_turn() -> None:
    assert admit(HEAD, None, None, replace(REQUEST, in_reply_to=5), NOW) == Claim()


@pytest.mark.parametrize("state", [TurnState.COMMITTED, TurnState.FAILED])
def test_a_settled_turn_is_replayed(state: TurnState) -> None:
    turn = replace(TURN, state=state)

    assert admit(HEAD, turn, None, REQUEST, NOW) == Replay(turn)


def test_the_same_claim_gets_its_turn_again_with_what_is_left_of_the_lease() -> None:
    assert admit(held(TURN, 1500, MINE), TURN, TURN, REQUEST, NOW) == Hold(TURN, 1500)


def test_another_claim_on_the_same_request_waits() -> None:
    assert admit(held(TURN, 1500), TURN, TURN, REQUEST, NOW) == InProgress(TURN, 1500)


@pytest.mark.parametrize("claim_id", [MINE, THEIRS])
def test_the_same_request_takes_an_expired_turn_over(claim_id: ClaimId) -> None:
    assert admit(held(TURN, 0, claim_id), TURN, TURN, REQUEST, NOW) == TakeOver(TURN)


def test_the_same_request_takes_an_abandoned_turn_over_at_once() -> None:
    assert admit(replace(HEAD, last_begin_at=NOW), ABANDONED, None, REQUEST, NOW) == TakeOver(ABANDONED)


def test_an_abandoned_turn_whose_base_is_no_longer_the_head_fails() -> None:
    stale = replace(ABANDONED, base_seq=4)

    assert admit(HEAD, stale, None, REQUEST, NOW) == Supersede(stale)


def test_what_was_let_in_is_never_told_of_the_limit() -> None:
    full = replace(HEAD, max_turns=5)
    stale = replace(ABANDONED, base_seq=4)

    assert admit(full, stale, None, REQUEST, NOW) == Supersede(stale)
    with pytest.raises(SessionLimit):
        admit(full, None, None, REQUEST, NOW)


@pytest.mark.parametrize(("left_ms", "told"), [(1500, 1500), (0, 0), (-9000, 0)])
def test_another_turn_holds_the_session_also_once_it_has_expired(left_ms: int, told: int) -> None:
    head = held(OTHER, left_ms)

    assert admit(head, None, OTHER, REQUEST, NOW) == OtherTurn(OTHER, told)
    assert admit(head, ABANDONED, OTHER, REQUEST, NOW) == OtherTurn(OTHER, told)


def test_an_older_question_cannot_be_answered_any_more() -> None:
    with pytest.raises(Conflict):
        admit(HEAD, None, None, replace(REQUEST, in_reply_to=4), NOW)


def test_a_question_that_was_not_asked_yet_cannot_be_answered() -> None:
    with pytest.raises(InvalidField) as caught:
        admit(HEAD, None, None, replace(REQUEST, in_reply_to=6), NOW)

    assert [violation.field for violation in caught.value.violations] == ["in_reply_to"]


@pytest.mark.parametrize("state", list(TurnState))
def test_a_request_id_means_one_message_whatever_became_of_it(state: TurnState) -> None:
    used = replace(TURN, fingerprint=b"x" * 32, state=state)

    with pytest.raises(RequestIdReused):
        admit(HEAD, used, None, REQUEST, NOW)


@pytest.mark.parametrize(("since_ms", "wait_ms"), [(0, 3000), (2999, 1), (2999.9, 1), (2000.2, 1000)])
def test_a_new_message_too_soon_learns_how_long_to_wait(since_ms: float, wait_ms: int) -> None:
    with pytest.raises(RateLimited) as caught:
        admit(replace(HEAD, last_begin_at=at(-since_ms)), None, None, REQUEST, NOW)

    assert caught.value.retry_after_ms == wait_ms


@pytest.mark.parametrize("head", [replace(HEAD, last_begin_at=at(-3000)), replace(HEAD, last_begin_at=None)])
def test_a_new_message_in_time_or_the_first_has_no_wait(head: Head) -> None:
    assert admit(head, None, None, REQUEST, NOW) == Claim()


def test_a_clock_that_was_set_back_adds_nothing_to_the_wait() -> None:
    ahead = replace(HEAD, last_begin_at=at(3_600_000))

    with pytest.raises(RateLimited) as caught:
        admit(ahead, None, None, REQUEST, NOW)
    unlimited = admit(replace(ahead, min_interval_ms=0), None, None, REQUEST, NOW)

    assert caught.value.retry_after_ms == 3000
    assert unlimited == Claim()


Case = tuple[Head, Turn | None, Turn | None, Request]


def everything_wrong_with_a_new_id() -> list[tuple[str, Callable[[Case], Case], object]]:
    """For a request id that has no turn: how each rule comes to apply, in the order in which the rules are asked."""
    return [
        ("sealed", lambda it: (replace(it[0], sealed_at=NOW), *it[1:]), SessionClosed),
        ("stale reply", lambda it: (*it[:3], replace(it[3], in_reply_to=4)), Conflict),
        ("other turn", lambda it: (held(OTHER, 9, head=it[0]), it[1], OTHER, it[3]), OtherTurn),
        ("limit", lambda it: (replace(it[0], max_turns=5), *it[1:]), SessionLimit),
        ("pace", lambda it: (replace(it[0], last_begin_at=NOW), *it[1:]), RateLimited),
        ("nothing", lambda it: it, Claim),
    ]


def everything_wrong_with_a_known_id() -> list[tuple[str, Callable[[Case], Case], object]]:
    """For a request id that has an abandoned turn."""

    def turn(**changes: object) -> Callable[[Case], Case]:
        return lambda it: (it[0], replace(it[1] or ABANDONED, **changes), it[2], it[3])  # type: ignore[arg-type]

    return [
        ("reused", turn(fingerprint=b"x" * 32), RequestIdReused),
        ("settled", turn(state=TurnState.COMMITTED), Replay),
        ("sealed", lambda it: (replace(it[0], sealed_at=NOW), *it[1:]), SessionClosed),
        ("other turn", lambda it: (held(OTHER, 9, head=it[0]), it[1], OTHER, it[3]), OtherTurn),
        ("stale base", turn(base_seq=4), Supersede),
        ("nothing", lambda it: it, TakeOver),
    ]


@pytest.mark.parametrize(
    ("causes", "start"),
    [
        (everything_wrong_with_a_new_id(), (HEAD, None, None, REQUEST)),
        (everything_wrong_with_a_known_id(), (HEAD, ABANDONED, None, replace(REQUEST, in_reply_to=4))),
    ],
    ids=["new id", "known id"],
)
def test_the_first_rule_that_applies_decides(
    causes: list[tuple[str, Callable[[Case], Case], object]], start: Case
) -> None:
    outcomes: list[object] = []
    for first in range(len(causes)):
        case = start
        for _, apply, _ in causes[first:]:
            case = apply(case)
        try:
            outcomes.append(type(admit(*case, NOW)))
        except (RequestIdReused, SessionClosed, Conflict, SessionLimit, RateLimited) as refusal:
            outcomes.append(type(refusal))

    assert outcomes == [expected for _, _, expected in causes]


def test_a_replay_is_answered_after_the_end_and_whatever_the_pace() -> None:
    closed = replace(HEAD, sealed_at=NOW, max_turns=1, last_begin_at=NOW)
    turn = replace(TURN, state=TurnState.COMMITTED)

    assert admit(closed, turn, None, REQUEST, NOW) == Replay(turn)


def test_a_follower_is_never_told_to_slow_down() -> None:
    assert admit(held(TURN, 9, head=replace(HEAD, last_begin_at=NOW)), TURN, TURN, REQUEST, NOW) == InProgress(TURN, 9)


@given(st.floats(-5000, 5000))
def test_a_lease_has_nothing_left_exactly_when_it_is_over(left_ms: float) -> None:
    head = held(TURN, left_ms)
    assert head.lease_until is not None

    assert (lease_left_ms(head, NOW) == 0) is (head.lease_until <= NOW)


def test_a_turns_first_claim_is_told_from_a_takeover_by_its_lease() -> None:
    first = held(TURN, -1000 + LEASE_MS)
    second = held(TURN, LEASE_MS)

    assert not was_taken_over(first, TURN)
    assert was_taken_over(second, TURN)
