"""The rule by which a projection folds runs of a ledger, however that ledger is cut into them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.folding.runs import MAX_RUNS, Digest, Outcome, Position, Run, check_batch, first_digest, fold
from libs.runtime.errors import InvalidField

SESSION = UUID("0195f3a2-6d3c-8a41-9c55-2f1f8f0c7b11")
START = Position(0, first_digest(SESSION))


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that is nothing but its place in the chain."""

    seq: int
    previous_digest: Digest
    digest: Digest


def ledger(length: int, seed: str = "the only one") -> tuple[Turn, ...]:
    """A chain of turns; two seeds differ from their first turn on."""
    turns: list[Turn] = []
    digest = first_digest(SESSION)
    for seq in range(1, length + 1):
        following = Digest(sha256(f"{seed}/{seq}".encode()).digest())
        turns.append(Turn(seq, digest, following))
        digest = following
    return tuple(turns)


def run(turns: Sequence[Turn], last_seq: int, *, sealed: bool = False, replaces: Digest | None = None) -> Run[Turn]:
    return Run(SESSION, tuple(turns), last_seq, sealed, replaces)


def standing(turns: Sequence[Turn], *, completed: bool = False) -> Position:
    return Position(turns[-1].seq, turns[-1].digest, completed)


def fields_of(error: InvalidField) -> list[str]:
    return [violation.field for violation in error.violations]


def test_digest_0_is_the_protocols() -> None:
    assert first_digest(SESSION) == sha256(b"colloquy/stream/1" + SESSION.bytes).digest()


def test_a_run_that_continues_the_entry_is_folded_whole() -> None:
    turns = ledger(3)

    folded = fold(standing(turns[:1]), run(turns[1:], 3))

    assert folded.outcome is Outcome.OK
    assert folded.position == standing(turns)
    assert folded.news == turns[1:]


def test_of_a_run_that_overlaps_only_what_is_new_counts() -> None:
    turns = ledger(3)

    folded = fold(standing(turns[:2]), run(turns, 3))

    assert folded.outcome is Outcome.OK
    assert not folded.refolded
    assert folded.news == turns[2:]


def test_a_run_that_was_folded_before_is_a_duplicate() -> None:
    turns = ledger(3)

    folded = fold(standing(turns), run(turns[1:], 3))

    assert folded.outcome is Outcome.DUPLICATE
    assert folded.position == standing(turns)


def test_a_run_that_starts_later_leaves_a_gap() -> None:
    turns = ledger(3)

    folded = fold(START, run(turns[1:], 3))

    assert folded.outcome is Outcome.GAP
    assert folded.position == START


def test_an_empty_run_of_a_longer_ledger_is_a_gap_too() -> None:
    assert fold(START, run((), 3, sealed=True)).outcome is Outcome.GAP


def test_an_empty_run_of_an_open_ledger_changes_nothing() -> None:
    turns = ledger(3)

    assert fold(standing(turns), run((), 3)).outcome is Outcome.DUPLICATE


def test_a_session_completes_once_its_sealed_ledger_is_folded_to_the_end() -> None:
    turns = ledger(3)

    before_the_end = fold(START, run(turns[:2], 3, sealed=True))
    at_the_end = fold(before_the_end.position, run(turns[2:], 3, sealed=True))

    assert not before_the_end.position.completed
    assert at_the_end.position.completed


def test_the_seal_alone_completes_a_session_that_is_at_the_end() -> None:
    turns = ledger(3)

    folded = fold(standing(turns), run((), 3, sealed=True))

    assert folded.outcome is Outcome.OK
    assert folded.position == standing(turns, completed=True)
    assert folded.news == ()


def test_an_unsealed_run_that_comes_late_does_not_reopen_a_completed_session() -> None:
    turns = ledger(3)

    folded = fold(standing(turns, completed=True), run(turns[2:], 3))

    assert folded.outcome is Outcome.DUPLICATE
    assert folded.position.completed


def test_a_completed_session_still_applies_and_is_open_until_that_ledger_is_sealed() -> None:
    turns = ledger(4)

    folded = fold(standing(turns[:3], completed=True), run(turns[3:], 4))

    assert folded.outcome is Outcome.OK
    assert folded.position == standing(turns)


def test_a_run_that_continues_another_ledger_has_diverged() -> None:
    turns, other = ledger(3), ledger(3, "another")

    folded = fold(standing(other[:2]), run(turns[2:], 3))

    assert folded.outcome is Outcome.DIVERGED
    assert folded.position == standing(other[:2])


def test_a_duplicate_turn_with_another_digest_has_diverged() -> None:
    turns, other = ledger(3), ledger(3, "another")

    assert fold(standing(other), run(turns[1:], 3)).outcome is Outcome.DIVERGED


def test_only_a_turn_shows_an_entry_as_long_as_the_ledger_that_it_is_another_ledgers() -> None:
    turns, other = ledger(3), ledger(3, "another")

    assert fold(standing(other), run(turns[2:], 3)).outcome is Outcome.DIVERGED
    assert fold(standing(other), run((), 3)).position == standing(other)


def test_an_entry_ahead_of_the_ledger_has_diverged() -> None:
    turns = ledger(3)

    assert fold(standing(turns), run(turns[1:2], 2)).outcome is Outcome.DIVERGED
    assert fold(standing(turns), run((), 2)).outcome is Outcome.DIVERGED


def test_a_run_from_the_start_replaces_an_entry_that_it_shows_to_differ() -> None:
    turns, other = ledger(3), ledger(2, "another")

    folded = fold(standing(other, completed=True), run(turns, 3))

    assert folded.outcome is Outcome.OK
    assert folded.refolded
    assert folded.position == standing(turns)
    assert folded.news == turns


def test_a_run_that_was_read_long_ago_takes_nothing_back() -> None:
    turns = ledger(5)

    folded = fold(standing(turns, completed=True), run(turns[:3], 3))

    assert folded.outcome is Outcome.DIVERGED
    assert folded.position == standing(turns, completed=True)


def test_an_entry_that_was_seen_ahead_is_replaced_while_it_stands_there() -> None:
    turns = ledger(5)
    seen = standing(turns)

    folded = fold(seen, run(turns[:3], 3, sealed=True, replaces=seen.head_digest))

    assert folded.outcome is Outcome.OK
    assert folded.refolded
    assert folded.position == standing(turns[:3], completed=True)


def test_an_entry_that_moved_on_since_it_was_seen_is_not_replaced() -> None:
    turns = ledger(5)
    seen = standing(turns[:4])

    folded = fold(standing(turns), run(turns[:3], 3, replaces=seen.head_digest))

    assert folded.outcome is Outcome.DIVERGED


def test_a_run_that_shows_the_entry_to_be_right_replaces_nothing() -> None:
    turns = ledger(5)
    seen = standing(turns[:4])

    folded = fold(seen, run(turns, 5, replaces=seen.head_digest))

    assert folded.outcome is Outcome.OK
    assert not folded.refolded
    assert folded.news == turns[4:]


def test_a_ledger_that_was_restored_to_nothing_empties_the_entry() -> None:
    seen = standing(ledger(2))

    folded = fold(seen, run((), 0, replaces=seen.head_digest))

    assert folded.refolded
    assert folded.outcome is Outcome.OK
    assert folded.position == START


def test_every_broken_rule_of_a_run_is_named() -> None:
    first, second, third = ledger(3)

    with pytest.raises(InvalidField) as refused:
        Run(SESSION, (second, first), 0, replaces=third.digest)

    assert fields_of(refused.value) == ["turns[1].seq", "turns[1].previous_digest", "last_seq", "replaces_digest"]


def test_a_run_must_not_reach_past_its_ledger() -> None:
    with pytest.raises(InvalidField) as refused:
        run(ledger(3), 2)

    assert fields_of(refused.value) == ["last_seq"]


def test_a_ledger_begins_with_turn_1_and_the_sessions_own_digest() -> None:
    (first,) = ledger(1)

    with pytest.raises(InvalidField) as early:
        run([replace(first, seq=0)], 1)
    with pytest.raises(InvalidField) as foreign:
        run([replace(first, previous_digest=first.digest)], 1)

    assert fields_of(early.value) == ["turns[0].seq"]
    assert fields_of(foreign.value) == ["turns[0].previous_digest"]


def test_a_batch_has_each_session_once_and_no_more_than_it_may() -> None:
    with pytest.raises(InvalidField) as refused:
        check_batch([run((), 0)] * (MAX_RUNS + 1))

    assert fields_of(refused.value) == ["sessions", "sessions"]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[tuple[Turn, ...], bool, list[Run[Turn]]]:
    """A ledger, whether it ends sealed, and readings of it: of any stretch, at any time, in any order, repeated."""
    turns = ledger(draw(st.integers(0, 12)))
    sealed = draw(st.booleans())
    readings = []
    for _ in range(draw(st.integers(0, 30))):
        last_seq = draw(st.integers(0, len(turns)))
        start, end = sorted((draw(st.integers(0, last_seq)), draw(st.integers(0, last_seq))))
        readings.append(
            run(turns[start:end], last_seq, sealed=sealed and last_seq == len(turns) and draw(st.booleans()))
        )
    return turns, sealed, readings


@given(deliveries())
def test_any_delivery_leaves_a_prefix_and_one_whole_reading_more_leaves_all(
    delivered: tuple[tuple[Turn, ...], bool, list[Run[Turn]]],
) -> None:
    turns, sealed, readings = delivered
    position, folded = START, list[Turn]()

    for reading in [*readings, run(turns, len(turns), sealed=sealed)]:
        made = fold(position, reading)
        position = made.position
        folded += made.news

        assert not made.refolded
        assert folded == list(turns[: position.applied_seq])
        assert position.head_digest == (folded[-1].digest if folded else START.head_digest)
        assert not position.completed or len(folded) == len(turns)

    assert position == Position(len(turns), turns[-1].digest if turns else START.head_digest, sealed)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_batches_cut_anywhere_give_the_same_fold(lengths: list[int]) -> None:
    turns = ledger(sum(lengths))
    position, folded, start = START, list[Turn](), 0

    for length in lengths:
        made = fold(position, run(turns[start : start + length], len(turns), sealed=True))
        assert made.outcome is Outcome.OK
        position, start = made.position, start + length
        folded += made.news

    whole = fold(START, run(turns, len(turns), sealed=True))
    assert (position, tuple(folded)) == (whole.position, whole.news)
