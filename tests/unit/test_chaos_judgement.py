"""What the fault suite calls lost: each kind of difference between what clients were told and what there is."""

from collections.abc import Sequence
from dataclasses import replace

import orjson

from tests.chaos.journal import Entry, What
from tests.chaos.judgement import Told, findings
from tests.chaos.ledger import Ledger, Stream, Turn

BODY = orjson.dumps(
    {"session_id": "s", "turn_id": "t2", "seq": 2, "reply": {"text": "Why?"}, "session_status": "open"}
).decode()
SENT = Entry(What.SEND, "ada", "r2", "s", "interview", "Because.", body='{"message_text": "Because."}')
ACCEPTED = replace(SENT, what=What.ACCEPTED, text="", body="", turn="t2")
ANSWERED = replace(SENT, what=What.ANSWERED, text="", body=BODY)
REFUSED = replace(SENT, what=What.REFUSED, text="", body="")
TURN = Turn("s", "r2", "t2", "COMMITTED", "", 2, "Because.", "Why?", b"record")
STREAM = Stream("s", "interview", "ada", 2, sealed=False, erased=False)
LISTED = [(2, "t2", "candidate", "Because."), (2, "t2", "interviewer", "Why?")]
TOLD = Told({"r2": BODY}, {"r2": BODY}, {"s": LISTED})
LOST, TWO, REFUSAL = "no acknowledgement is lost", "one request, one answer", "refusals are the contract's"
GONE, UNASKED = "what is erased is gone", "every turn was asked for"


def _rules(
    entries: Sequence[Entry], turn: Turn | None = TURN, stream: Stream | None = STREAM, told: Told = TOLD
) -> list[str]:
    turns = {turn.request: turn} if turn else {}
    ledger = Ledger(turns, {stream.session: stream} if stream else {}, ())
    return [finding.rule for finding in findings(entries, ledger, told)]


def test_nothing_is_found_where_all_is_as_it_was_told() -> None:
    assert _rules([SENT, ACCEPTED, ANSWERED]) == []


def test_an_answer_without_its_turn_is_lost() -> None:
    assert _rules([SENT, ANSWERED], turn=None) == [LOST]


def test_an_accepted_message_without_its_turn_is_lost() -> None:
    assert _rules([SENT, ACCEPTED], turn=None) == [LOST]


def test_an_accepted_message_may_wait_for_its_answer() -> None:
    waiting = replace(TURN, state="ABANDONED", seq=0, reply_text="")

    assert _rules([SENT, ACCEPTED], turn=waiting) == []


def test_an_answer_whose_turn_was_given_up_is_lost() -> None:
    assert LOST in _rules([SENT, ANSWERED], turn=replace(TURN, state="ABANDONED", seq=0, reply_text=""))


def test_a_message_that_is_kept_otherwise_than_it_was_sent_is_lost() -> None:
    assert LOST in _rules([SENT, ACCEPTED], turn=replace(TURN, user_text="Because ."))


def test_a_reply_that_is_kept_otherwise_than_it_was_told_is_lost() -> None:
    assert LOST in _rules([SENT, ANSWERED], turn=replace(TURN, reply_text="Why not?"))


def test_an_answer_at_another_place_of_the_ledger_is_lost() -> None:
    assert LOST in _rules([SENT, ANSWERED], turn=replace(TURN, seq=3))


def test_a_body_that_differs_by_a_byte_when_asked_again_is_lost() -> None:
    for told in (replace(TOLD, again={"r2": f"{BODY} "}), replace(TOLD, grpc={"r2": BODY.replace("Why", "why")})):
        assert _rules([SENT, ANSWERED], told=told) == [LOST]


def test_a_message_that_is_not_listed_is_lost() -> None:
    assert _rules([SENT, ANSWERED], told=replace(TOLD, listed={"s": LISTED[1:]})) == [LOST]


def test_two_answers_to_one_request_are_one_too_many() -> None:
    assert TWO in _rules([SENT, ANSWERED, replace(ANSWERED, body=f"{BODY} ")])


def test_two_turns_for_one_request_are_one_too_many() -> None:
    assert TWO in _rules([SENT, ACCEPTED, replace(ACCEPTED, turn="t3")])


def test_an_answer_and_a_refusal_of_one_request_are_one_too_many() -> None:
    assert TWO in _rules([SENT, ANSWERED, replace(REFUSED, reason="409 CONFLICT")])


def test_a_closed_session_refuses_and_an_open_one_does_not() -> None:
    closed = replace(REFUSED, reason="409 SESSION_CLOSED")

    assert _rules([SENT, closed], turn=None, stream=replace(STREAM, sealed=True)) == []
    assert _rules([SENT, closed], turn=None) == [REFUSAL]


def test_an_internal_error_is_no_refusal_of_the_contract() -> None:
    assert _rules([SENT, replace(REFUSED, reason="500 INTERNAL")], turn=None) == [REFUSAL]


def test_a_session_that_is_not_found_must_have_been_erased() -> None:
    assert _rules([SENT, replace(REFUSED, reason="404 NOT_FOUND")], turn=None) == [REFUSAL]


def test_an_erased_session_answers_nothing_and_holds_nothing() -> None:
    stream = replace(STREAM, sealed=True, erased=True)
    emptied = replace(TURN, user_text="", reply_text="", record=b"")
    silent = Told({"r2": "404 NOT_FOUND"}, {}, {})

    assert _rules([SENT, ANSWERED], emptied, stream, silent) == []
    assert _rules([SENT, ANSWERED], TURN, stream, silent) == [GONE]
    assert _rules([SENT, ANSWERED], emptied, stream, TOLD) == [GONE]


def test_an_end_that_was_acknowledged_has_closed_the_session() -> None:
    ended = Entry(What.ENDED, "operator", "e1", "s", "interview")

    assert _rules([SENT, ANSWERED, ended]) == [LOST]
    assert _rules([SENT, ANSWERED, ended], stream=replace(STREAM, sealed=True)) == []


def test_an_erase_that_was_acknowledged_has_erased_the_session() -> None:
    assert LOST in _rules([SENT, ANSWERED, Entry(What.ERASED, "operator", "e1", "s", "interview")])


def test_a_turn_that_no_client_sent_is_found() -> None:
    assert _rules([]) == [UNASKED]
