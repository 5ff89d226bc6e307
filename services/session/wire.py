"""The contract's messages, to the domain's values and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.session.v1 import session_pb2
from libs.folding.runs import DIGEST_BYTES, Digest, Run
from libs.paging import tokens
from libs.paging.tokens import Place
from libs.runtime.errors import FieldViolation, InvalidField, Malformed
from services.session.domain import Kind, NanoUsd, NewSession, OwnerId, SessionId, Status, Totals
from services.session.entries import AppliedTurn, Entry, Reading
from services.session.listing import NEWEST, Cursor, PageRequest, Viewer
from services.session.usecases import Applied

DEFAULT_PAGE_SIZE: Final = 50
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_KINDS: Final = {session_pb2.KIND_INTERVIEW: Kind.INTERVIEW, session_pb2.KIND_CHAT: Kind.CHAT}
_KINDS_SENT: Final = {kind: number for number, kind in _KINDS.items()}
_STATUSES: Final = {Status.OPEN: session_pb2.STATUS_OPEN, Status.COMPLETED: session_pb2.STATUS_COMPLETED}


class _Violations(list[FieldViolation]):
    """Fields that break a rule, from all parts of one request."""

    @contextmanager
    def within(self, path: str = "") -> Iterator[None]:
        """Keep what an InvalidField in the block says, its fields as fields of `path`."""
        try:
            yield
        except InvalidField as error:
            self.extend(FieldViolation(f"{path}{it.field}", it.message) for it in error.violations)

    def check(self) -> None:
        if self:
            raise InvalidField(self)


def session_id(text: str) -> SessionId:
    try:
        parsed = UUID(text)
    except ValueError:
        raise Malformed("A session_id is not a UUID.") from None
    if str(parsed) != text:
        raise Malformed("A session_id is not a UUID in its canonical form.")
    return SessionId(parsed)


def _digest(received: bytes) -> Digest:
    if len(received) != DIGEST_BYTES:
        raise Malformed(f"A digest does not have {DIGEST_BYTES} bytes.")
    return Digest(received)


def _moment(stamp: Timestamp) -> datetime | None:
    """A Timestamp to the microsecond, None where it is not set or no time."""
    try:
        return stamp.ToDatetime(tzinfo=UTC) if stamp.ByteSize() else None
    except (ValueError, OverflowError):
        return None


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def viewer(sent: session_pb2.Viewer) -> Viewer:
    if sent.kind and sent.kind not in _KINDS:  # of a newer contract: not the same as any kind
        raise InvalidField([FieldViolation("viewer.kind", "Not a kind known here.")])
    return Viewer(None if sent.any_owner else OwnerId(sent.owner_id), _KINDS.get(sent.kind))


def new_session(sent: session_pb2.Session) -> NewSession:
    violations, kind, created_at = _Violations(), _KINDS.get(sent.kind), _moment(sent.created_at)
    if kind is None:
        violations.append(FieldViolation("session.kind", "Say which kind it is."))
    if created_at is None:
        violations.append(FieldViolation("session.created_at", "Say when it was opened."))
    with violations.within():
        new = NewSession(
            session_id=session_id(sent.session_id),
            owner_id=OwnerId(sent.owner_id),
            tenant_id=sent.tenant_id,
            kind=kind or Kind.CHAT,
            plan=sent.plan,
            versions=dict(sent.versions),
            candidate_name=sent.candidate_name,
            metadata=dict(sent.metadata),
            max_turns=sent.max_turns,
            created_at=created_at or _EPOCH,
        )
    violations.check()
    return new


def session(entry: Entry) -> session_pb2.Session:
    facts, position, totals = entry.facts, entry.position, entry.totals
    return session_pb2.Session(
        session_id=str(facts.session_id),
        owner_id=facts.owner_id,
        tenant_id=facts.tenant_id,
        kind=_KINDS_SENT[facts.kind],
        status=_STATUSES[entry.status],
        applied_seq=position.applied_seq,
        head_digest=position.head_digest,
        plan=facts.plan,
        versions=facts.versions,
        candidate_name=facts.candidate_name,
        metadata=facts.metadata,
        max_turns=facts.max_turns,
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        cost_nano_usd=totals.cost_nano_usd,
        created_at=_timestamp(facts.created_at),
        completed_at=_timestamp(entry.completed_at),
    )


def readings(request: session_pb2.ApplyTurnsRequest) -> list[Reading]:
    violations, received = _Violations(), list[Reading]()
    for index, sent in enumerate(request.sessions):
        with violations.within(f"sessions[{index}]."):
            received.append(_reading(sent))
    violations.check()
    return received


def _reading(sent: session_pb2.SessionTurns) -> Reading:
    violations, turns = _Violations(), list[AppliedTurn]()
    for index, turn in enumerate(sent.turns):
        with violations.within(f"turns[{index}]."):
            turns.append(_turn(turn))
    violations.check()
    run = Run(
        session_id=session_id(sent.session_id),
        turns=tuple(turns),
        last_seq=sent.last_seq,
        sealed=sent.sealed,
        replaces=_digest(sent.replaces_digest) if sent.replaces_digest else None,
    )
    return Reading(run, _moment(sent.sealed_at))


def _turn(sent: session_pb2.AppliedTurn) -> AppliedTurn:
    totals = Totals(sent.prompt_tokens, sent.completion_tokens, NanoUsd(sent.cost_nano_usd))
    return AppliedTurn(sent.seq, _digest(sent.previous_digest), _digest(sent.digest), totals)


def result(applied: Applied) -> session_pb2.ApplyTurnsResponse.Result:
    outcome = session_pb2.ApplyTurnsResponse.Outcome.Value(f"OUTCOME_{applied.outcome}")
    result = session_pb2.ApplyTurnsResponse.Result(session_id=str(applied.session_id), outcome=outcome)
    if applied.position:
        result.applied_seq = applied.position.applied_seq
        result.head_digest = applied.position.head_digest
        result.completed = applied.position.completed
    return result


def page_request(request: session_pb2.ListSessionsRequest) -> PageRequest:
    violations, after = _Violations(), NEWEST
    with violations.within():
        after = _cursor(request.page_token) if request.page_token else NEWEST
    with violations.within():
        page = PageRequest(request.page_size or DEFAULT_PAGE_SIZE, after)
    violations.check()
    return page


def page_token(cursor: Cursor) -> str:
    return tokens.encode(Place(cursor.created_at, (cursor.session_id,)))


def _cursor(token: str) -> Cursor:
    place = tokens.decode(token, ids=1)
    return Cursor(place.moment, SessionId(place.ids[0]))
