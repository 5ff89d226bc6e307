"""Events of a stream come out whole, wherever the network cut it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.llm_gateway.events import EventData

STREAM = (
    b": a comment\n\n"
    b'data: {"text": "caf\xc3\xa9"}\n\n'
    b'event: message\r\nid: 7\r\ndata:{"text": 2}\r\n\r\n'
    b"data: first\ndata: second\n\n"
    b"\n\n"
    b"data: [DONE]\n\n"
    b"data: never ended"
)
DATA = [b'{"text": "caf\xc3\xa9"}', b'{"text": 2}', b"first\nsecond", b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=40).map(sorted))
def test_a_stream_has_the_same_events_wherever_it_is_cut(cuts: list[int]) -> None:
    bounds = [0, *cuts, len(STREAM)]
    events = EventData()

    data = [one for start, end in itertools.pairwise(bounds) for one in events.feed(STREAM[start:end])]

    assert data == DATA


def test_an_event_comes_out_with_the_bytes_that_end_it() -> None:
    events = EventData()

    assert list(events.feed(b"data: 1")) == []
    assert list(events.feed(b"\n")) == []
    assert list(events.feed(b"\ndata: 2\n\nda")) == [b"1", b"2"]
    assert list(events.feed(b"ta: 3\n\n")) == [b"3"]
