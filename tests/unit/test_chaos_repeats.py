"""How model calls that were made more than once are counted and explained."""

from tests.chaos.ledger import Attempt
from tests.chaos.model import ModelCall
from tests.chaos.repeats import compared

KEY = "session/turn/question"
ASKED = ModelCall(KEY, "", "answered")


def test_a_call_that_was_answered_the_first_time_is_no_repeat() -> None:
    seen = compared([ASKED], [Attempt(KEY, 1, 1, "settled", "")])

    assert (seen.calls, seen.attempts, seen.requests, seen.reasons.total(), list(seen.findings)) == (1, 1, 1, 0, [])


def test_a_repeat_is_explained_by_how_the_attempt_before_it_ended() -> None:
    attempts = [
        Attempt(KEY, 1, 1, "released", "500"),
        Attempt(KEY, 1, 2, "unknown", "timeout"),
        Attempt(KEY, 2, 1, "settled", ""),
    ]

    seen = compared([ASKED] * 3, attempts)

    assert seen.reasons == {"released 500": 1, "unknown timeout": 1}
    assert not seen.findings


def test_an_attempt_that_never_left_its_process_is_no_finding() -> None:
    assert not compared([], [Attempt(KEY, 1, 1, "unknown", "lease_expired")]).findings


def test_a_request_that_the_ledger_does_not_know_is_found() -> None:
    [finding] = compared([ASKED] * 2, [Attempt(KEY, 1, 1, "settled", "")]).findings

    assert (finding.rule, finding.session) == ("intent is written before dispatch", "session")


def test_a_repeat_of_a_call_that_had_been_answered_is_found() -> None:
    attempts = [Attempt(KEY, 1, 1, "settled", ""), Attempt(KEY, 2, 1, "settled", "")]

    [finding] = compared([ASKED] * 2, attempts).findings

    assert finding.rule == "a call is repeated only after it came to nothing"
