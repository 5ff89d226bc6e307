"""What of a stream fits: into a model's window, and into one answer."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.history.domain import (
    Digest,
    Fence,
    RequestId,
    Turn,
    TurnId,
    TurnState,
    WindowLimit,
    WindowMessage,
    select_window,
    within_bytes,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
COMMITTED = Turn(
    turn_id=TurnId(UUID(int=1)),
    request_id=RequestId(UUID(int=2)),
    fingerprint=b"",
    state=TurnState.COMMITTED,
    reason="",
    fence=Fence(1),
    base_seq=0,
    seq=1,
    user_text=None,
    reply_text="",
    item_answered="",
    item_asked="",
    record=b"",
    previous_digest=Digest(b""),
    digest=Digest(b""),
    begun_at=NOW,
    committed_at=NOW,
)

messages = st.lists(st.integers(0, 50), max_size=30).map(
    lambda counts: [WindowMessage(bool(i % 2), f"m{i}", count) for i, count in enumerate(counts)]
)
limits = st.builds(WindowLimit, st.integers(0, 20), st.integers(0, 200))


def window(tokens: list[int], max_messages: int, max_tokens: int) -> list[int]:
    newest_first = [WindowMessage(False, "", count) for count in tokens]
    return [message.tokens for message in select_window(newest_first, WindowLimit(max_messages, max_tokens))]


def test_it_is_the_newest_messages_oldest_first() -> None:
    assert window([5, 4, 3, 2, 1], max_messages=3, max_tokens=100) == [3, 4, 5]


def test_a_message_that_just_fits_is_in() -> None:
    assert window([5, 5], max_messages=10, max_tokens=10) == [5, 5]


def test_a_message_that_does_not_fit_ends_it_though_an_older_one_would() -> None:
    assert window([5, 90, 1], max_messages=10, max_tokens=20) == [5]


def test_nothing_fits_into_no_tokens() -> None:
    assert window([1], max_messages=10, max_tokens=0) == []


@given(messages, limits)
def test_it_is_a_run_of_the_newest_and_could_not_be_longer(newest: list[WindowMessage], limit: WindowLimit) -> None:
    chosen = select_window(newest, limit)

    assert chosen[::-1] == newest[: len(chosen)]
    assert len(chosen) <= limit.max_messages
    assert sum(message.tokens for message in chosen) <= limit.max_tokens
    longer = newest[: len(chosen) + 1]
    assert (
        len(longer) == len(chosen)
        or len(longer) > limit.max_messages
        or sum(message.tokens for message in longer) > limit.max_tokens
    )


@pytest.mark.parametrize(("newest", "kept"), [(False, [1, 2]), (True, [2, 3])])
def test_a_list_holds_as_many_turns_as_fit_and_keeps_their_order(newest: bool, kept: list[int]) -> None:
    turns = [replace(COMMITTED, seq=seq, user_text="é" * 10, reply_text="x" * 20, record=b"") for seq in (1, 2, 3)]

    assert [turn.seq for turn in within_bytes(turns, 80, newest=newest)] == kept


def test_a_turn_that_is_too_long_is_listed_alone() -> None:
    turns = [replace(COMMITTED, seq=seq, reply_text="x" * 200) for seq in (1, 2)]

    assert [turn.seq for turn in within_bytes(turns, 80, newest=True)] == [2]
