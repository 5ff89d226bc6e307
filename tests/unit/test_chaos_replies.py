"""What a client makes of a reply, and how long it waits before it asks again."""

import pytest

from tests.chaos.replies import Reply, Verdict, pause_seconds


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"{}", Verdict.ANSWERED),
        (201, b"{}", Verdict.ANSWERED),
        (204, b"", Verdict.ANSWERED),
        (409, b'{"reason": "TURN_IN_PROGRESS"}', Verdict.AGAIN),
        (503, b'{"reason": "UNAVAILABLE"}', Verdict.AGAIN),
        (504, b'{"reason": "DEADLINE_EXCEEDED"}', Verdict.AGAIN),
        (409, b'{"reason": "CONFLICT"}', Verdict.NEVER),
        (500, b'{"reason": "INTERNAL"}', Verdict.NEVER),
    ],
)
def test_only_what_the_contract_calls_safe_is_asked_again(status: int, body: bytes, verdict: Verdict) -> None:
    assert Reply(status, body).verdict is verdict


def test_the_wait_that_is_asked_for_is_kept_up_to_a_second() -> None:
    assert pause_seconds(0, Reply(409, b'{"retry_after_ms": 400}').wait_seconds, 0.5) == 0.4
    assert pause_seconds(0, 7.0, 0.5) == 1.0


def test_waits_grow_and_stay_bounded() -> None:
    assert pause_seconds(0, 0.0, 1.0) < pause_seconds(3, 0.0, 1.0) < pause_seconds(50, 0.0, 1.0) == 1.0
