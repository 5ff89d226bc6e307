"""A streamed reply arrives piece by piece, all of it, and takes the latency that was drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.simulator import pacing, wire


@given(count=st.integers(1, 300), first_ms=st.floats(0, 1000), rest_ms=st.floats(0, 5000))
def test_every_event_is_sent_once_in_order_and_the_last_at_the_end(count: int, first_ms: float, rest_ms: float) -> None:
    events = [b"%d;" % at for at in range(count)]

    groups = list(pacing.groups(events, first_ms, first_ms + rest_ms))

    dues = [due_ms for due_ms, _ in groups]
    assert b"".join(group for _, group in groups) == b"".join(events)
    assert all(group for _, group in groups)
    assert dues == sorted(dues)
    assert dues[-1] == pytest.approx(first_ms + rest_ms)


def test_the_first_event_comes_alone_and_the_others_in_steps_of_ten_milliseconds() -> None:
    groups = list(pacing.groups([b"a", b"b", b"c", b"d", b"e"], 20, 40))

    assert groups == [(20, b"a"), (30, b"bc"), (40, b"de")]


def test_without_latency_everything_is_one_write() -> None:
    assert list(pacing.groups([b"a", b"b", b"c"], 0, 0)) == [(0, b"abc")]


@given(st.text(max_size=300))
def test_the_pieces_of_a_text_join_to_the_text(text: str) -> None:
    assert "".join(wire.pieces(text)) == text
