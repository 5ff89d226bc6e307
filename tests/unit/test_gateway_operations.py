"""What an unsettled session lacks, and that nothing that was said passes to an operator."""

import pytest

from colloquy.gateway.v1 import operations_pb2, record_pb2
from colloquy.history.v1 import history_pb2
from colloquy.history.v1 import operations_pb2 as ledger_pb2
from services.gateway import lives
from services.gateway.operations import lack_of

Stuck = operations_pb2.StuckSession
TURN = history_pb2.Turn(turn_id="t", state=history_pb2.TURN_STATE_RUNNING, user_text="secret")


@pytest.mark.parametrize(
    ("stream", "folded", "lack"),
    [
        ({"erased": True}, True, Stuck.LACK_ERASURE),
        ({"active": TURN, "lease_left_ms": 1}, True, Stuck.LACK_ANSWER),
        ({"active": TURN}, True, Stuck.LACK_REPAIR),
        ({}, False, Stuck.LACK_FOLD),
        ({}, True, Stuck.LACK_ACKNOWLEDGEMENT),
    ],
)
def test_a_session_that_is_not_settled_lacks_one_thing_first(
    stream: dict[str, object], folded: bool, lack: Stuck.Lack.ValueType
) -> None:
    unsettled = history_pb2.ListUnsettledResponse.Unsettled(**stream)  # type: ignore[arg-type]

    assert lack_of(unsettled, folded=folded) == lack


def test_a_turns_life_tells_how_it_was_made_and_not_what_it_says() -> None:
    record = record_pb2.TurnRecord(
        degraded=["bank"],
        committed_by="repair",
        closing_text="secret",
        next_items=[record_pb2.PlannedItem(item_id="i", wording="secret")],
    )
    turn = history_pb2.Turn(
        state=history_pb2.TURN_STATE_COMMITTED,
        user_text="secret",
        reply_text="secret",
        record=record.SerializeToString(),
    )
    head = history_pb2.Head(kind=history_pb2.KIND_CHAT, personal_facts=b"secret", rev=2, acked_rev=2)

    life = lives.of(ledger_pb2.GetTurnResponse(turn=turn, head=head))

    assert (life.turn.state, life.account.committed_by, list(life.account.degraded)) == (
        "COMMITTED",
        "repair",
        ["bank"],
    )
    assert life.stream.settled
    assert b"secret" not in life.SerializeToString()


def test_a_turn_without_a_record_has_no_account() -> None:
    turn = history_pb2.Turn(state=history_pb2.TURN_STATE_ABANDONED, reason="UNAVAILABLE")

    life = lives.of(ledger_pb2.GetTurnResponse(turn=turn, head=history_pb2.Head(kind=history_pb2.KIND_CHAT)))

    assert (life.HasField("account"), life.turn.reason, life.turn.HasField("committed_at")) == (
        False,
        "UNAVAILABLE",
        False,
    )
