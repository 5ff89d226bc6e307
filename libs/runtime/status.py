"""Typed errors to and from `google.rpc.Status`: the one place that knows how a reason looks on the wire.

AIP-193: exactly one `ErrorInfo` with our domain and reason, `RetryInfo` where a wait is known, `BadRequest` for
violated fields. A status without our `ErrorInfo` comes from gRPC itself or a proxy; its text is not for clients.
"""

from collections.abc import Mapping

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from libs.runtime.errors import ColloquyError, FieldViolation, Reason, error_of

DOMAIN = "colloquy"
DETAILS_KEY = "grpc-status-details-bin"

CODES: Mapping[Reason, grpc.StatusCode] = {
    Reason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.ROLE_MISSING: grpc.StatusCode.PERMISSION_DENIED,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.TURN_IN_PROGRESS: grpc.StatusCode.ABORTED,
    Reason.SESSION_CLOSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SESSION_LIMIT: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
}

# Statuses that no servicer of ours raised: what gRPC, a proxy or a mesh answers by itself. Codes not named: INTERNAL.
_BARE: Mapping[grpc.StatusCode, Reason] = {
    grpc.StatusCode.UNAVAILABLE: Reason.UNAVAILABLE,
    grpc.StatusCode.CANCELLED: Reason.UNAVAILABLE,  # the peer was stopped under the call
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.TOO_LARGE,  # "received message larger than max"
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.ROLE_MISSING,
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.MALFORMED,
}


def encode(error: ColloquyError) -> bytes:
    """The serialized `google.rpc.Status` that travels in the trailing metadata under `DETAILS_KEY`."""
    status = status_pb2.Status(code=CODES[error.reason].value[0], message=error.detail)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)
    )
    if error.retry_after_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=it.field, description=it.message)
            for it in error.violations
        ]
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    serialized: bytes = status.SerializeToString()
    return serialized


def trailers(error: ColloquyError) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata of a failed call.

    Clients retry UNAVAILABLE by themselves where a connection broke. What a servicer *says* is unavailable was tried:
    the pushback keeps each layer above from trying it again (https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
    """
    if error.reason is Reason.UNAVAILABLE:
        return ((DETAILS_KEY, encode(error)), ("grpc-retry-pushback-ms", "-1"))
    return ((DETAILS_KEY, encode(error)),)


def decode(failure: grpc.aio.AioRpcError) -> ColloquyError:
    """The typed error that a failed call means, the same one the server raised where it was one of ours."""
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            error = _decode_details(value)
            if error is not None:
                return error
    return error_of(_BARE.get(failure.code(), Reason.INTERNAL))


def _decode_details(serialized: bytes) -> ColloquyError | None:
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    try:
        status = status_pb2.Status.FromString(serialized)
        for detail in status.details:
            detail.Unpack(info) or detail.Unpack(retry) or detail.Unpack(bad)
    except DecodeError:
        return None
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    return error_of(
        Reason(info.reason),
        status.message,
        violations=[FieldViolation(it.field, it.description) for it in bad.field_violations],
        retry_after_ms=retry.retry_delay.ToMilliseconds() if retry.HasField("retry_delay") else None,
        metadata=info.metadata,
    )
