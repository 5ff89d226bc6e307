"""What a turn's screen says where a turn went another way than most, and how messages become JSON."""

from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.gateway.v1 import gateway_pb2, operations_pb2
from services.cli.operators import plain
from services.cli.turns import screen

Life = operations_pb2.GetTurnLifeResponse
BEGUN = Timestamp(seconds=1_700_000_000, nanos=250_000_000)


def life(turn: Life.LedgerTurn, **others: object) -> Life:
    stream = Life.Stream(session_id="s", kind=gateway_pb2.KIND_CHAT, last_seq=4, fence=7)
    turn.begun_at.CopyFrom(BEGUN)
    return Life(stream=stream, turn=turn, **others)  # type: ignore[arg-type]


def test_a_turn_that_runs_says_what_is_left_of_its_lease() -> None:
    turn = Life.LedgerTurn(turn_id="t", state="RUNNING", base_seq=4, fence=7, lease_left_ms=900)

    lines = list(screen(life(turn)))

    assert "state      RUNNING on 4 turns, under fence 7 with 900 ms of its lease left" in lines
    assert "begun      2023-11-14 22:13:20.250Z" in lines
    assert "calls      none" in lines
    assert not [line for line in lines if line.startswith("committed")]


def test_a_turn_whose_owner_is_gone_says_so() -> None:
    lines = list(screen(life(Life.LedgerTurn(state="RUNNING", base_seq=4, fence=7))))

    assert "state      RUNNING on 4 turns, under fence 7 whose lease is over" in lines


def test_calls_that_are_not_known_are_not_called_none() -> None:
    lines = list(screen(life(Life.LedgerTurn(state="ABANDONED"), calls_missing="UNAVAILABLE")))

    assert "calls      not known: the call ledger is UNAVAILABLE" in lines
    assert "calls      none" not in lines


def test_each_attempt_of_a_call_has_its_time_since_the_message_came() -> None:
    sent = Timestamp(seconds=1_700_000_001)
    attempts = [
        Life.Attempt(fence=1, attempt=1, state="UNKNOWN", error="lost", model="m", provider="p", dispatched_at=sent),
        Life.Attempt(
            fence=2,
            attempt=1,
            state="SETTLED",
            status=200,
            model="m",
            provider="p",
            dispatched_at=sent,
            finished_at=Timestamp(seconds=1_700_000_001, nanos=500_000_000),
        ),
    ]
    call = Life.Call(purpose="chat", state="DONE", fence=2, repeats=1, cleared=True, attempts=attempts)

    lines = list(screen(life(Life.LedgerTurn(state="COMMITTED", seq=1), calls=[call])))

    assert lines[-3].startswith("call       chat  DONE, fence 2, ")
    assert lines[-3].endswith("; repeated 1 times, cleared")
    assert lines[-2] == "  attempt  1.1  UNKNOWN lost  m at p, +750 ms, 0 + 0 tokens, $0.000000"
    assert lines[-1] == "  attempt  2.1  SETTLED HTTP 200  m at p, +750 ms for 500 ms, 0 + 0 tokens, $0.000000"


def test_json_keeps_numbers_names_of_values_and_what_is_absent() -> None:
    account = Life.Account(versions={"bank": "b/1"}, usage=gateway_pb2.Usage(cost_nano_usd=2**40))

    said = plain(life(Life.LedgerTurn(state="COMMITTED", seq=5), account=account))

    assert (said["stream"]["kind"], said["stream"]["last_seq"], said["stream"]["sealed"]) == ("CHAT", 4, False)
    assert (said["turn"]["begun_at"], said["turn"]["committed_at"]) == ("2023-11-14T22:13:20.250000Z", None)
    assert (said["account"]["versions"], said["account"]["usage"]["cost_nano_usd"]) == ({"bank": "b/1"}, 2**40)
    assert (said["account"]["timing"], said["calls"]) == (None, [])
