"""The contract's messages, to the ledger's values and back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.history.v1 import history_pb2 as pb
from colloquy.history.v1 import operations_pb2
from libs.runtime.errors import FieldViolation, InvalidField, Malformed
from services.history import admission
from services.history.commands import NewStream, NewTurn, Release, Reply, TurnRange, UnsettledRange, Viewer
from services.history.domain import (
    ClaimId,
    Head,
    Kind,
    OwnerId,
    RequestId,
    SessionId,
    Turn,
    TurnId,
    TurnState,
    TurnStatus,
    WindowLimit,
)
from services.history.interventions import (
    Action,
    Inspection,
    Intervention,
    InterventionId,
    NewIntervention,
    Standing,
)
from services.history.store import Sight
from services.history.usecases import Begun, CommitResult, Opened, Owner

FINGERPRINT_BYTES: Final = 32
_BEFORE_ALL: Final = UUID(int=0)  # the nil UUID (RFC 9562, section 5.9) is nobody's

_KINDS_SENT: Final = {Kind.INTERVIEW: pb.KIND_INTERVIEW, Kind.CHAT: pb.KIND_CHAT}
_KINDS: Final[Mapping[int, Kind]] = {number: kind for kind, number in _KINDS_SENT.items()}
_STATES_SENT: Final = {
    TurnState.RUNNING: pb.TURN_STATE_RUNNING,
    TurnState.COMMITTED: pb.TURN_STATE_COMMITTED,
    TurnState.FAILED: pb.TURN_STATE_FAILED,
    TurnState.ABANDONED: pb.TURN_STATE_ABANDONED,
}
_ACTIONS_SENT: Final = {
    Action.RESET: operations_pb2.Intervention.ACTION_RESET,
    Action.COMPLETE: operations_pb2.Intervention.ACTION_COMPLETE,
}
_ACTIONS: Final[Mapping[int, Action]] = {number: action for action, number in _ACTIONS_SENT.items()}
_STATES: Final[Mapping[int, TurnState]] = {number: state for state, number in _STATES_SENT.items()}


def session_id(text: str) -> SessionId:
    return SessionId(_id("session_id", text))


def turn_id(text: str) -> TurnId:
    return TurnId(_id("turn_id", text))


def viewer(sent: pb.Viewer) -> Viewer:
    return Viewer(OwnerId(sent.owner_id), sent.any_owner, _kind(sent.kind))


def new_stream(sent: pb.OpenStreamRequest) -> NewStream:
    if len(sent.fingerprint) != FINGERPRINT_BYTES:
        raise Malformed(f"The fingerprint is not {FINGERPRINT_BYTES} bytes long.")
    return NewStream(
        session_id=session_id(sent.session_id),
        viewer=Viewer(OwnerId(sent.owner_id), any_owner=False, kind=None),
        tenant_id=sent.tenant_id,
        kind=_kind(sent.kind),
        request_id=_request_id(sent.request_id),
        fingerprint=sent.fingerprint,
        facts=sent.facts,
        personal_facts=sent.personal_facts,
        max_turns=sent.max_turns,
        min_interval_ms=sent.min_interval_ms,
        lease_ms=sent.lease_ms,
        claim_id=_claim_id(sent.claim_id),
        with_opening=sent.with_opening,
    )


def new_turn(sent: pb.BeginTurnRequest) -> NewTurn:
    return NewTurn(
        session_id=session_id(sent.session_id),
        viewer=Viewer(OwnerId(sent.owner_id), any_owner=False, kind=_kind(sent.kind)),
        request_id=_request_id(sent.request_id),
        claim_id=_claim_id(sent.claim_id),
        text=sent.user_text,
        in_reply_to=sent.in_reply_to if sent.HasField("in_reply_to") else None,
        window=WindowLimit(sent.window.max_messages, sent.window.max_tokens),
    )


def reply(sent: pb.CommitTurnRequest) -> Reply:
    return Reply(sent.reply_text, sent.record, sent.item_asked, sent.final)


def release(sent: pb.ReleaseTurnRequest) -> Release:
    return Release(_STATES.get(sent.state), sent.reason)


def turn_range(sent: pb.ListTurnsRequest) -> TurnRange:
    return TurnRange(sent.after_seq, sent.before_seq, sent.max_turns, sent.newest)


def unsettled_range(sent: pb.ListUnsettledRequest) -> UnsettledRange:
    after = _id("after_session_id", sent.after_session_id) if sent.after_session_id else _BEFORE_ALL
    return UnsettledRange(SessionId(after), sent.max_streams, sent.min_age_ms)


def turn_or_request_id(text: str) -> UUID:
    return _id("turn_or_request_id", text)


def new_intervention(sent: operations_pb2.InterveneStreamRequest) -> NewIntervention:
    return NewIntervention(
        session_id=session_id(sent.session_id),
        intervention_id=InterventionId(_id("intervention_id", sent.intervention_id)),
        action=_ACTIONS.get(sent.action),
        actor=sent.actor,
        reason=sent.reason.strip(),
    )


def head(stored: Head) -> pb.Head:
    return pb.Head(
        session_id=str(stored.session_id),
        owner_id=stored.owner_id,
        tenant_id=stored.tenant_id,
        kind=_KINDS_SENT[stored.kind],
        facts=stored.facts,
        personal_facts=stored.personal_facts,
        max_turns=stored.max_turns,
        last_seq=stored.last_seq,
        rev=stored.rev,
        acked_rev=stored.acked_rev,
        fence=stored.fence,
        sealed=stored.sealed,
        sealed_at=_timestamp(stored.sealed_at),
        created_at=_timestamp(stored.created_at),
        head_digest=stored.digest,
    )


def turn(stored: Turn) -> pb.Turn:
    return pb.Turn(
        turn_id=str(stored.turn_id),
        request_id=str(stored.request_id),
        state=_STATES_SENT[stored.state],
        reason=stored.reason,
        base_seq=stored.base_seq,
        seq=stored.seq,
        user_text=stored.user_text,
        reply_text=stored.reply_text,
        item_answered=stored.item_answered,
        item_asked=stored.item_asked,
        record=stored.record,
        previous_digest=stored.previous_digest,
        digest=stored.digest,
        begun_at=_timestamp(stored.begun_at),
        committed_at=_timestamp(stored.committed_at),
    )


def opened(made: Opened) -> pb.OpenStreamResponse:
    response = pb.OpenStreamResponse(head=head(made.head), replayed=made.replayed)
    match made.opening:
        case None:
            response.opened.CopyFrom(response.head)
        case Owner() as owner:
            response.owner.CopyFrom(_owner(owner))
        case admission.Replay(stored):
            response.replay.CopyFrom(turn(stored))
        case admission.InProgress() as running:
            response.in_progress.CopyFrom(_in_progress(running))
    return response


def begun(answer: Begun) -> pb.BeginTurnResponse:
    match answer:
        case Owner():
            return pb.BeginTurnResponse(owner=_owner(answer))
        case admission.Replay(stored):
            return pb.BeginTurnResponse(replay=turn(stored))
        case admission.InProgress():
            return pb.BeginTurnResponse(in_progress=_in_progress(answer))
        case admission.OtherTurn():
            return pb.BeginTurnResponse(other_turn=_other_turn(answer))


def committed(result: CommitResult) -> pb.CommitTurnResponse:
    return pb.CommitTurnResponse(
        outcome=pb.CommitTurnResponse.Outcome.Value(f"OUTCOME_{result.outcome}"),
        turn=turn(result.turn) if result.turn else None,
        rev=result.rev or 0,
        sealed=result.sealed,
    )


def stream(sight: Sight) -> pb.GetStreamResponse:
    return pb.GetStreamResponse(
        head=head(sight.head),
        pending=turn(sight.pending) if sight.pending else None,
        lease_left_ms=admission.lease_left_ms(sight.head, sight.now),
    )


def turn_status(status: TurnStatus) -> pb.BatchGetTurnsResponse.TurnStatus:
    return pb.BatchGetTurnsResponse.TurnStatus(
        session_id=str(status.session_id),
        turn_id=str(status.turn_id),
        state=_STATES_SENT[status.state],
        committed_at=_timestamp(status.committed_at),
    )


def unsettled(sights: Sequence[Sight], more: bool) -> pb.ListUnsettledResponse:
    streams = [
        pb.ListUnsettledResponse.Unsettled(
            head=head(sight.head),
            active=turn(sight.pending) if sight.pending else None,
            lease_left_ms=admission.lease_left_ms(sight.head, sight.now),
            erased=sight.head.erased,
            age_ms=sight.age_ms,
        )
        for sight in sights
    ]
    return pb.ListUnsettledResponse(streams=streams, more=more)


def intervention(made: Intervention) -> operations_pb2.Intervention:
    return operations_pb2.Intervention(
        intervention_id=str(made.intervention_id),
        session_id=str(made.session_id),
        turn_id=str(made.turn_id) if made.turn_id else "",
        action=_ACTIONS_SENT[made.action],
        actor=made.actor,
        reason=made.reason,
        before=_standing(made.before),
        after=_standing(made.after),
        at=_timestamp(made.at),
    )


def inspection(seen: Inspection) -> operations_pb2.GetTurnResponse:
    silent = replace(seen.turn, user_text=None, reply_text="")
    return operations_pb2.GetTurnResponse(
        turn=turn(silent),
        fence=seen.turn.fence,
        user_tokens=seen.user_tokens,
        reply_tokens=seen.reply_tokens,
        lease_left_ms=seen.lease_left_ms,
        head=head(seen.head),
        erased=seen.head.erased,
    )


def _standing(standing: Standing) -> operations_pb2.Intervention.Standing:
    return operations_pb2.Intervention.Standing(
        fence=standing.fence,
        rev=standing.rev,
        last_seq=standing.last_seq,
        sealed=standing.sealed,
        active_turn=str(standing.active_turn) if standing.active_turn else "",
        lease_left_ms=standing.lease_left_ms,
    )


def _owner(owner: Owner) -> pb.Owner:
    return pb.Owner(
        turn_id=str(owner.turn_id),
        fence=owner.head.fence,
        base_seq=owner.head.last_seq,
        lease_ms=owner.lease_ms,
        takeover=owner.takeover,
        head=head(owner.head),
        window=[pb.WindowMessage(from_user=message.from_user, text=message.text) for message in owner.window],
        last_turn=turn(owner.last_turn) if owner.last_turn else None,
    )


def _in_progress(running: admission.InProgress) -> pb.InProgress:
    return pb.InProgress(turn_id=str(running.turn.turn_id), lease_left_ms=running.lease_left_ms)


def _other_turn(other: admission.OtherTurn) -> pb.OtherTurn:
    return pb.OtherTurn(
        turn_id=str(other.turn.turn_id),
        fence=other.turn.fence,
        lease_left_ms=other.lease_left_ms,
        turn=None if other.lease_left_ms else turn(other.turn),
    )


def _id(field: str, text: str) -> UUID:
    try:
        parsed = UUID(text)
    except ValueError:
        raise Malformed(f"The {field} is not a UUID.") from None
    if str(parsed) != text:
        raise Malformed(f"The {field} is not a UUID in its canonical form.")
    return parsed


def _request_id(text: str) -> RequestId:
    return RequestId(_id("request_id", text))


def _claim_id(text: str) -> ClaimId:
    return ClaimId(_id("claim_id", text))


def _kind(number: int) -> Kind | None:
    """A kind, None for any; one of a newer contract is not the same as any."""
    if number not in _KINDS and number != pb.KIND_UNSPECIFIED:
        raise InvalidField([FieldViolation("kind", "must be a kind that is known here")])
    return _KINDS.get(number)


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
