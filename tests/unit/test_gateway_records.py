"""What the gateway shows of a session."""

import pytest

from colloquy.history.v1 import history_pb2
from services.gateway.records import session_view

ADA = history_pb2.Viewer(owner_id="ada")
EVE = history_pb2.Viewer(owner_id="eve")
ASSESSOR = history_pb2.Viewer(owner_id="eve", any_owner=True, kind=history_pb2.KIND_INTERVIEW)


@pytest.mark.parametrize(
    ("kind", "reader", "reads"),
    [
        (history_pb2.KIND_INTERVIEW, ADA, True),
        (history_pb2.KIND_CHAT, ADA, True),
        (history_pb2.KIND_INTERVIEW, EVE, False),
        (history_pb2.KIND_INTERVIEW, ASSESSOR, True),
        (history_pb2.KIND_CHAT, ASSESSOR, False),
        (history_pb2.KIND_INTERVIEW, None, False),
    ],
    ids=["own interview", "own chat", "another's", "an assessor's", "an assessor, a chat", "how it stands only"],
)
def test_what_a_pending_message_says_is_shown_to_whoever_may_read_it(
    kind: history_pb2.Kind.ValueType, reader: history_pb2.Viewer | None, reads: bool
) -> None:
    pending = history_pb2.Turn(turn_id="t", request_id="r", user_text="hello", state=history_pb2.TURN_STATE_ABANDONED)
    stream = history_pb2.GetStreamResponse(head=history_pb2.Head(owner_id="ada", kind=kind), pending=pending)

    view = session_view(stream, reader)

    assert (view.pending.request_id, view.pending.text) == ("r", "hello" if reads else "")
