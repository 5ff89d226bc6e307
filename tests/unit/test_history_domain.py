"""The window: the newest messages that fit, oldest first."""

from hypothesis import given
from hypothesis import strategies as st

from services.history.domain import WindowLimit, WindowMessage, select_window

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
