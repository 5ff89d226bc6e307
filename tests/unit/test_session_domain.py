"""The directory's rules: what a session, a turn and a reading of a ledger must be, and what turns add up to."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from libs.folding.runs import Digest, Position, Run, first_digest
from libs.runtime.errors import InvalidField
from services.session.domain import MAX_PER_TURN, Kind, NanoUsd, NewSession, OwnerId, SessionId, Status, Totals
from services.session.entries import AppliedTurn, Entry, Reading, gained

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def fields_of(error: InvalidField) -> list[str]:
    return [violation.field for violation in error.violations]


def turn(totals: Totals) -> AppliedTurn:
    return AppliedTurn(1, Digest(bytes(32)), Digest(bytes(32)), totals)


def opened() -> NewSession:
    return NewSession(SessionId(uuid4()), OwnerId("alice"), "", Kind.CHAT, "", {}, "", {}, 20, NOON)


def test_every_broken_rule_of_a_new_session_is_named() -> None:
    with pytest.raises(InvalidField) as refused:
        NewSession(SessionId(uuid4()), OwnerId(""), "", Kind.CHAT, "", {"a\0": ""}, "\0", {}, 0, NOON)

    assert fields_of(refused.value) == [
        "session.candidate_name",
        "session.versions",
        "session.owner_id",
        "session.max_turns",
    ]


def test_every_count_that_no_turn_can_have_is_named() -> None:
    with pytest.raises(InvalidField) as refused:
        turn(Totals(-1, MAX_PER_TURN + 1, NanoUsd(-1)))

    assert fields_of(refused.value) == ["prompt_tokens", "completion_tokens", "cost_nano_usd"]


def test_turns_add_up_to_what_they_used() -> None:
    turns = [turn(Totals(1, 2, NanoUsd(3))), turn(Totals(10, 20, NanoUsd(30)))]

    assert gained(turns) == Totals(11, 22, NanoUsd(33))
    assert gained([]) == Totals()


def test_a_reading_of_a_sealed_ledger_says_when_it_was_sealed() -> None:
    sealed: Run[AppliedTurn] = Run(uuid4(), (), 0, sealed=True)

    with pytest.raises(InvalidField) as refused:
        Reading(sealed)

    assert fields_of(refused.value) == ["sealed_at"]
    assert Reading(sealed, NOON).sealed_at == NOON


def test_a_session_is_completed_once_its_entry_is() -> None:
    new = opened()
    digest = first_digest(new.session_id)

    assert Entry(new, Position(0, digest), Totals()).status is Status.OPEN
    assert Entry(new, Position(0, digest, completed=True), Totals(), NOON).status is Status.COMPLETED
