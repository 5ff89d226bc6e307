"""The table of failures: complete, and each row as the outer contract has it."""

import orjson
import pytest

from libs.runtime.errors import FieldViolation, InvalidField, NotFound, Reason, TurnInProgress, error_of
from services.bff import problems

CONTRACT = {
    400: {"MALFORMED"},
    401: {"UNAUTHENTICATED"},
    403: {"ROLE_MISSING"},
    404: {"NOT_FOUND"},
    405: {"METHOD_NOT_ALLOWED"},
    409: {"TURN_IN_PROGRESS", "SESSION_CLOSED", "CONFLICT", "SESSION_LIMIT"},
    413: {"TOO_LARGE"},
    415: {"UNSUPPORTED_MEDIA_TYPE"},
    422: {"INVALID_FIELD", "REQUEST_ID_REUSED"},
    429: {"RATE_LIMITED"},
    500: {"INTERNAL"},
    501: {"UNIMPLEMENTED"},
    503: {"UNAVAILABLE"},
    504: {"DEADLINE_EXCEEDED"},
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_there_is_has_a_status(reason: Reason) -> None:
    assert reason.value in CONTRACT[problems.of_error(error_of(reason)).status]


def test_the_table_has_the_contracts_rows_and_no_others() -> None:
    table: dict[int, set[str]] = {}
    for reason, row in problems.ROWS.items():
        table.setdefault(row.status, set()).add(str(reason))

    assert table == CONTRACT


@pytest.mark.parametrize(
    ("retry_after_ms", "header"), [(0, "1"), (1, "1"), (999, "1"), (1000, "1"), (1001, "2"), (60_000, "60")]
)
def test_a_wait_is_rounded_up_to_whole_seconds_and_never_zero(retry_after_ms: int, header: str) -> None:
    problem = problems.of_error(TurnInProgress(retry_after_ms))

    assert problem.headers["Retry-After"] == header
    assert orjson.loads(problem.body("c"))["retry_after_ms"] == retry_after_ms


@pytest.mark.parametrize(
    "reason", [Reason.TURN_IN_PROGRESS, Reason.RATE_LIMITED, Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED]
)
def test_what_is_worth_trying_again_says_when_even_where_nobody_said(reason: Reason) -> None:
    error = error_of(reason)
    error.retry_after_ms = None

    assert problems.of_error(error).headers["Retry-After"] == "1"


def test_a_problem_names_its_type_reason_and_fields() -> None:
    problem = problems.of_error(InvalidField([FieldViolation("plan", "is not known")]))

    assert orjson.loads(problem.body("c-1")) == {
        "type": "urn:colloquy:problem:invalid-field",
        "title": "A field is not valid",
        "status": 422,
        "detail": "A field of the request is not valid.",
        "reason": "INVALID_FIELD",
        "correlation_id": "c-1",
        "errors": [{"field": "plan", "message": "is not known"}],
    }


def test_what_is_not_there_is_told_in_one_way_only() -> None:
    assert problems.of_error(NotFound("It is Bob's.")).body("c") == problems.of_error(NotFound()).body("c")
