"""Rows of the ledger's tables, as values: what a column that is NULL means is decided here.

The columns come in the order in which `statements` names them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from services.history import statements
from services.history.digest import stream_digest
from services.history.domain import Digest, Head, Kind, SessionId, Turn, TurnId, TurnState, WindowMessage
from services.history.interventions import Action, Intervention, Standing


def head_of(columns: Sequence[Any]) -> Head:
    """The head that a row begins with; an erased one has lost its personal facts and its fingerprint."""
    (session_id, owner_id, tenant_id, kind, facts, personal_facts, fingerprint, *others) = columns[
        : statements.HEAD_COLUMNS
    ]
    return Head(
        session_id, owner_id, tenant_id or "", Kind(kind), facts, personal_facts or b"", fingerprint or b"", *others
    )


def turn_of(columns: Sequence[Any], session_id: SessionId) -> Turn | None:
    """The turn of an outer join, None where it found none."""
    (turn_id, request_id, fingerprint, state, reason, fence, base_seq, seq, user_text, reply_text) = columns[:10]
    (item_answered, item_asked, record, digest, begun_at, committed_at, previous) = columns[
        10 : statements.TURN_COLUMNS
    ]
    if turn_id is None:
        return None
    if seq == 1:
        previous = stream_digest(session_id)
    return Turn(
        turn_id=turn_id,
        request_id=request_id,
        fingerprint=fingerprint or b"",
        state=TurnState(state),
        reason=reason or "",
        fence=fence,
        base_seq=base_seq,
        seq=seq or 0,
        user_text=user_text,
        reply_text=reply_text or "",
        item_answered=item_answered or "",
        item_asked=item_asked or "",
        record=record or b"",
        previous_digest=Digest(previous or b""),
        digest=Digest(digest or b""),
        begun_at=begun_at,
        committed_at=committed_at,
    )


def intervention_of(columns: Sequence[Any], session_id: SessionId) -> Intervention:
    """A repair on record; `after` leaves out what its change has ended."""
    intervention_id, turn_id, action, actor, reason, before, after, at = columns
    return Intervention(
        session_id, intervention_id, turn_id, Action(action), actor, reason, _standing(before), _standing(after), at
    )


def _standing(stored: Mapping[str, Any]) -> Standing:
    active_turn = stored.get("active_turn")
    return Standing(
        fence=stored["fence"],
        rev=stored["rev"],
        last_seq=stored["last_seq"],
        sealed=stored["sealed"],
        active_turn=TurnId(UUID(active_turn)) if active_turn else None,
        lease_left_ms=stored.get("lease_left_ms", 0),
    )


def messages_of(
    user_texts: Sequence[str | None] | None,
    user_tokens: Sequence[int],
    reply_texts: Sequence[str],
    reply_tokens: Sequence[int],
) -> Iterator[WindowMessage]:
    """The messages of the newest turns, newest first: in a turn the reply is the newer."""
    for user, user_count, reply, reply_count in zip(
        user_texts or (), user_tokens or (), reply_texts or (), reply_tokens or (), strict=True
    ):
        yield WindowMessage(False, reply, reply_count)
        if user is not None:
            yield WindowMessage(True, user, user_count)
