"""The error types and their form on the wire."""

import subprocess
import sys

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from libs.runtime import status
from libs.runtime.errors import (
    BY_REASON,
    ColloquyError,
    FieldViolation,
    InvalidField,
    NotFound,
    RateLimited,
    Reason,
    TurnInProgress,
    Unavailable,
    error_of,
)

VIOLATIONS = (FieldViolation("message_text", "must not be blank"), FieldViolation("request_id", "must be a UUID"))

# The table of the outer contract: interfaces.md, errors.
CONTRACT = {
    "MALFORMED": "INVALID_ARGUMENT",
    "INVALID_FIELD": "INVALID_ARGUMENT",
    "REQUEST_ID_REUSED": "INVALID_ARGUMENT",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "ROLE_MISSING": "PERMISSION_DENIED",
    "NOT_FOUND": "NOT_FOUND",
    "TURN_IN_PROGRESS": "ABORTED",
    "SESSION_CLOSED": "FAILED_PRECONDITION",
    "CONFLICT": "FAILED_PRECONDITION",
    "SESSION_LIMIT": "FAILED_PRECONDITION",
    "TOO_LARGE": "RESOURCE_EXHAUSTED",
    "RATE_LIMITED": "RESOURCE_EXHAUSTED",
    "INTERNAL": "INTERNAL",
    "UNIMPLEMENTED": "UNIMPLEMENTED",
    "UNAVAILABLE": "UNAVAILABLE",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
}


def failure(code: grpc.StatusCode, trailers: tuple[tuple[str, str | bytes], ...] = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, None, grpc.aio.Metadata(*trailers), details="socket said no")


def test_every_reason_has_exactly_one_error_type() -> None:
    assert {reason: kind.reason for reason, kind in BY_REASON.items()} == {reason: reason for reason in Reason}


def test_every_reason_has_the_code_of_the_contract() -> None:
    assert {reason.value: status.CODES[reason].name for reason in Reason} == CONTRACT


@pytest.mark.parametrize("reason", Reason)
def test_an_error_survives_the_wire_whole(reason: Reason) -> None:
    sent = error_of(
        reason, "A sentence — für alle 🙂.", violations=VIOLATIONS, retry_after_ms=1234, metadata={"session_id": "7"}
    )

    received = status.decode(failure(status.CODES[reason], status.trailers(sent)))

    assert type(received) is type(sent) is BY_REASON[reason]
    assert vars(received) == vars(sent)
    assert str(received) == str(sent)


@pytest.mark.parametrize("reason", Reason)
def test_an_error_without_extras_survives_the_wire_whole(reason: Reason) -> None:
    sent = error_of(reason)

    received = status.decode(failure(status.CODES[reason], status.trailers(sent)))

    assert type(received) is type(sent)
    assert vars(received) == vars(sent)


def test_a_status_holds_one_error_info_with_our_domain_then_the_details_that_apply() -> None:
    encoded = status_pb2.Status.FromString(
        status.encode(error_of(Reason.INVALID_FIELD, violations=VIOLATIONS, retry_after_ms=1500))
    )

    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    assert [detail.Unpack(it) for detail, it in zip(encoded.details, (info, retry, bad), strict=True)] == [True] * 3
    assert (info.domain, info.reason) == ("colloquy", "INVALID_FIELD")
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert [(it.field, it.description) for it in bad.field_violations] == [(it.field, it.message) for it in VIOLATIONS]


def test_a_servicers_unavailable_tells_clients_not_to_retry_by_themselves() -> None:
    assert ("grpc-retry-pushback-ms", "-1") in status.trailers(Unavailable())
    assert [key for key, _ in status.trailers(NotFound())] == [status.DETAILS_KEY]


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_a_bare_status_becomes_a_typed_error_without_its_text(code: grpc.StatusCode) -> None:
    error = status.decode(failure(code))

    assert isinstance(error, ColloquyError)
    assert "socket" not in error.detail


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.UNAVAILABLE),
        (grpc.StatusCode.CANCELLED, Reason.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.UNIMPLEMENTED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.TOO_LARGE),
        (grpc.StatusCode.UNKNOWN, Reason.INTERNAL),
    ],
)
def test_what_grpc_itself_answers_has_a_reason(code: grpc.StatusCode, reason: Reason) -> None:
    assert status.decode(failure(code)).reason is reason


@pytest.mark.parametrize(
    "details",
    [
        b"\xff not protobuf",
        b"",
        status_pb2.Status(code=5).SerializeToString(),
    ],
)
def test_details_that_are_not_ours_are_ignored(details: bytes) -> None:
    error = status.decode(failure(grpc.StatusCode.NOT_FOUND, ((status.DETAILS_KEY, details),)))

    assert type(error) is NotFound


@pytest.mark.parametrize(
    ("domain", "reason"), [("googleapis.com", "RATE_LIMITED"), ("colloquy", "A_REASON_OF_TOMORROW")]
)
def test_an_unknown_domain_or_reason_falls_back_to_the_code(domain: str, reason: str) -> None:
    foreign = status_pb2.Status(code=5, message="theirs")
    foreign.details.add().Pack(error_details_pb2.ErrorInfo(domain=domain, reason=reason))

    error = status.decode(failure(grpc.StatusCode.NOT_FOUND, ((status.DETAILS_KEY, foreign.SerializeToString()),)))

    assert type(error) is NotFound
    assert error.detail == NotFound.summary


def test_errors_that_are_told_by_a_wait_or_by_fields_ask_for_them() -> None:
    assert RateLimited(250).retry_after_ms == 250
    assert TurnInProgress(300, "busy").detail == "busy"
    assert InvalidField(list(VIOLATIONS)).violations == VIOLATIONS


def test_what_is_not_confirmed_says_when_to_try_again() -> None:
    assert Unavailable().retry_after_ms == 1000
    assert Unavailable(retry_after_ms=50).retry_after_ms == 50


def test_the_errors_need_the_standard_library_only() -> None:
    script = (
        "import sys; before = set(sys.modules); import libs.runtime.errors; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )

    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "['libs']"
