"""The ledger's tables: each function sends one statement, which is one transaction, and turns rows into values."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from libs.runtime.db import Database, UniqueViolation
from services.history import statements
from services.history.admission import Request
from services.history.commands import NewStream, Release, Reply, UnsettledRange, Viewer
from services.history.digest import stream_digest
from services.history.domain import (
    Digest,
    Fence,
    Head,
    Rev,
    SessionId,
    Turn,
    TurnId,
    TurnState,
    TurnStatus,
    WindowMessage,
)
from services.history.interventions import (
    Action,
    Inspection,
    Intervention,
    InterventionId,
    NewIntervention,
    standing_of,
)
from services.history.rows import head_of, intervention_of, messages_of, turn_of


class ItemAlreadyAsked(Exception):  # noqa: N818 (an outcome, not a failure)
    """A commit would ask an item for the second time in its session; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a stream stood at `now` when a request came: `same` is the turn of that request, `active` that of the claim.

    `newest_first` holds at least the messages asked for, where there are so many.
    """

    now: datetime
    head: Head
    same: Turn | None
    active: Turn | None
    last: Turn | None
    newest_first: Sequence[WindowMessage]


@dataclass(frozen=True, slots=True)
class Sight:
    """A stream as somebody saw it at `now`."""

    now: datetime
    head: Head
    pending: Turn | None

    @property
    def opens(self) -> bool:
        """Whether the claim that is held is on the opening of an interview, the one turn without a message."""
        return self.head.active_turn is not None and self.pending is not None and self.pending.user_text is None

    @property
    def age_ms(self) -> int:
        """How long nothing was written there."""
        return max(0, (self.now - self.head.changed_at) // timedelta(milliseconds=1))


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit left in the ledger, and the head's rev after it."""

    turn: Turn
    rev: Rev


class Store:
    """The ledger's tables. Every function may also raise what `Database.one` raises."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def open(self, new: NewStream, opening: TurnId | None, salt: bytes) -> Head | None:
        """Insert a stream and, if `opening` is its id, the RUNNING first turn; None where there is one."""
        row = await self._db.one(
            statements.OPEN,
            {
                "session_id": new.session_id,
                "owner_id": new.viewer.owner_id,
                "tenant_id": new.tenant_id,
                "kind": new.kind,
                "request_id": new.request_id,
                "fingerprint": new.fingerprint,
                "facts": new.facts,
                "personal_facts": new.personal_facts,
                "max_turns": new.max_turns,
                "min_interval_ms": new.min_interval_ms,
                "lease_ms": new.lease_ms,
                "salt": salt,
                "head_digest": stream_digest(new.session_id),
                "fence": 1 if opening else 0,
                "turn_id": opening,
                "claim_id": new.claim_id if opening else None,
                "lease_left_ms": new.lease_ms if opening else None,
            },
        )
        return row and head_of(row)

    async def standing(
        self, session_id: SessionId, viewer: Viewer, request: Request, window_messages: int
    ) -> Standing | None:
        """What admission decides on, from one snapshot; None where there is nothing that the viewer may see."""
        params = {
            "session_id": session_id,
            **_viewer(viewer),
            "request_id": request.request_id,
            # An opening has no message of a candidate's: one turn more than half of the messages is enough.
            "window_turns": window_messages // 2 + 1,
        }
        rows = await self._db.all(statements.STANDING, params)
        if not rows:
            return None
        now, head = rows[0][0], head_of(rows[0][1:])
        turns = [turn for row in rows if (turn := turn_of(row[statements.TURN_AT :], session_id))]
        return Standing(
            now=now,
            head=head,
            same=next((turn for turn in turns if turn.request_id == request.request_id), None),
            active=next((turn for turn in turns if turn.turn_id == head.active_turn), None),
            last=next((turn for turn in turns if turn.seq and turn.seq == head.last_seq), None),
            newest_first=list(messages_of(*rows[0][statements.TURN_AT + statements.TURN_COLUMNS :])),
        )

    async def claim(
        self, standing: Standing, request: Request, turn_id: TurnId, user_text: str, user_tokens: int
    ) -> Head | None:
        """Begin a new turn and hold the claim: the head with it, None where the stream has moved on."""
        head = standing.head
        params = {
            "session_id": head.session_id,
            "rev": head.rev,
            "turn_id": turn_id,
            "request_id": request.request_id,
            "claim_id": request.claim_id,
            "fingerprint": request.fingerprint,
            "user_text": user_text,
            "user_tokens": user_tokens,
            "item_answered": (standing.last and standing.last.item_asked) or None,
        }
        row = await self._db.one(statements.CLAIM, params)
        return row and replace(_claimed(head, turn_id, request, *row), last_begin_at=row[1])

    async def take_over(self, head: Head, request: Request, turn_id: TurnId) -> Head | None:
        """Let the request's own turn run again under a new fence: as `claim`."""
        params = {"session_id": head.session_id, "rev": head.rev, "turn_id": turn_id, "claim_id": request.claim_id}
        row = await self._db.one(statements.TAKE_OVER, params)
        return row and _claimed(head, turn_id, request, *row)

    async def supersede(self, head: Head, turn_id: TurnId) -> bool:
        """Make a turn FAILED(CONFLICT); False where the stream has moved on."""
        params = {"session_id": head.session_id, "rev": head.rev, "turn_id": turn_id}
        return await self._db.execute(statements.SUPERSEDE, params) > 0

    async def commit(
        self, session_id: SessionId, turn_id: TurnId, fence: Fence, reply: Reply, reply_tokens: int
    ) -> Committed | None:
        """Make a running turn the next of the ledger; None where the claim is not held under this fence.

        Raises:
            ItemAlreadyAsked: nothing has changed.
        """
        params = {
            "session_id": session_id,
            "turn_id": turn_id,
            "fence": fence,
            "reply_text": reply.text,
            "reply_tokens": reply_tokens,
            "record": reply.record,
            "item_asked": reply.item_asked or None,
            "final": reply.final,
        }
        try:
            row = await self._db.one(statements.COMMIT, params)
        except UniqueViolation as error:
            # seq, the other key that a commit writes, was counted under the lock and cannot be taken.
            raise ItemAlreadyAsked from error
        if row is None:
            return None
        (request_id, fingerprint, base_seq, user_text, answered, begun_at, previous, _, seq, rev, digest, at, _) = row
        turn = Turn(
            turn_id=turn_id,
            request_id=request_id,
            fingerprint=fingerprint,
            state=TurnState.COMMITTED,
            reason="",
            fence=fence,
            base_seq=base_seq,
            seq=seq,
            user_text=user_text,
            reply_text=reply.text,
            item_answered=answered or "",
            item_asked=reply.item_asked,
            record=reply.record,
            previous_digest=Digest(previous),
            digest=Digest(digest),
            begun_at=begun_at,
            committed_at=at,
        )
        return Committed(turn, Rev(rev))

    async def release(self, session_id: SessionId, turn_id: TurnId, fence: Fence, release: Release) -> bool:
        """End a claim; False where it is not held under this fence."""
        params = {
            "session_id": session_id,
            "turn_id": turn_id,
            "fence": fence,
            "state": release.state,
            "reason": release.reason,
        }
        return await self._db.execute(statements.RELEASE, params) > 0

    async def turn(self, session_id: SessionId, turn_id: TurnId) -> tuple[Head, Turn] | None:
        """A turn and the head of its stream, from one snapshot."""
        row = await self._db.one(statements.TURN_AND_HEAD, {"session_id": session_id, "turn_id": turn_id})
        turn = row and turn_of(row[statements.HEAD_COLUMNS :], session_id)
        return (head_of(row), turn) if row and turn else None

    async def head(self, session_id: SessionId, viewer: Viewer) -> Head | None:
        """The head of a stream of the viewer's, erased or not; None where there is none."""
        row = await self._db.one(statements.HEAD, {"session_id": session_id, **_viewer(viewer)})
        return row and head_of(row)

    async def stream(self, session_id: SessionId, viewer: Viewer) -> Sight | None:
        """A stream, None where there is nothing that the viewer may see."""
        row = await self._db.one(statements.STREAM, {"session_id": session_id, **_viewer(viewer)})
        return row and _sight(row)

    async def streams(self, session_ids: Sequence[SessionId], viewer: Viewer) -> list[Sight]:
        """Those of the streams that the viewer may see, in the order given."""
        rows = await self._db.all(statements.STREAMS, {"session_ids": session_ids, **_viewer(viewer)})
        sights = {sight.head.session_id: sight for sight in map(_sight, rows)}
        return [sights[session_id] for session_id in session_ids if session_id in sights]

    async def turns(self, session_id: SessionId, first: int, last: int) -> list[Turn]:
        """The committed turns with first <= seq <= last, ascending; none of an erased stream."""
        rows = await self._db.all(statements.TURNS, {"session_id": session_id, "first": first, "last": last})
        return [turn for row in rows if (turn := turn_of(row, session_id))]

    async def turn_states(self, keys: Sequence[tuple[SessionId, TurnId]]) -> list[TurnStatus]:
        """Where those of the turns stand that there are, erased sessions' too, in no order."""
        params = {"session_ids": [session_id for session_id, _ in keys], "turn_ids": [turn_id for _, turn_id in keys]}
        rows = await self._db.all(statements.TURN_STATES, params)
        return [TurnStatus(row.session_id, row.turn_id, TurnState(row.state), row.committed_at) for row in rows]

    async def unsettled(self, span: UnsettledRange, limit: int) -> list[Sight]:
        """Streams that are not acknowledged as they stand, erased ones too, ascending; pending is what runs there."""
        params = {"after_session_id": span.after_session_id, "min_age_ms": span.min_age_ms, "limit": limit}
        return [_sight(row) for row in await self._db.all(statements.UNSETTLED, params)]

    async def acknowledge(self, settled: Sequence[tuple[SessionId, Rev]]) -> int:
        """Record that every projection has folded these streams up to a rev; how many had not moved on."""
        params = {"session_ids": [session_id for session_id, _ in settled], "revs": [rev for _, rev in settled]}
        return await self._db.execute(statements.ACKNOWLEDGE, params)

    async def seal(self, head: Head) -> Head | None:
        """Close a stream and fail what runs or was given back there; None where it has moved on."""
        params = {"session_id": head.session_id, "rev": head.rev, "active_turn": head.active_turn}
        row = await self._db.one(statements.SEAL, params)
        return row and head_of(row)

    async def erase(self, head: Head) -> Head | None:
        """Close a stream and clear what it and its turns say; None where it has moved on."""
        row = await self._db.one(statements.ERASE, {"session_id": head.session_id, "rev": head.rev})
        return row and head_of(row)

    async def intervene(self, seen: Sight, new: NewIntervention) -> tuple[Head, Intervention] | None:
        """Repair a stream by hand and put it on record; None where it has moved on, or the same was done just now."""
        statement = statements.RESET if new.action is Action.RESET else statements.COMPLETE
        params = {
            "session_id": new.session_id,
            "rev": seen.head.rev,
            "active_turn": seen.head.active_turn,
            "intervention_id": new.intervention_id,
            "actor": new.actor,
            "reason": new.reason,
            "before": json.dumps(asdict(standing_of(seen.head, seen.now)), default=str),
        }
        try:
            row = await self._db.one(statement, params)
        except UniqueViolation:
            return None
        return row and (head_of(row), intervention_of(row[statements.HEAD_COLUMNS :], new.session_id))

    async def intervention(self, session_id: SessionId, intervention_id: InterventionId) -> Intervention | None:
        """One repair of a stream, None where it was not made."""
        params = {"session_id": session_id, "intervention_id": intervention_id}
        row = await self._db.one(statements.INTERVENTION, params)
        return row and intervention_of(row, session_id)

    async def interventions(self, session_id: SessionId, limit: int) -> list[Intervention]:
        """The newest repairs of a stream, the oldest of them first."""
        rows = await self._db.all(statements.INTERVENTIONS, {"session_id": session_id, "limit": limit})
        return [intervention_of(row, session_id) for row in reversed(rows)]

    async def inspection(self, session_id: SessionId, turn_or_request_id: UUID) -> Inspection | None:
        """A turn, an erased session's too, by its own id or its request's."""
        row = await self._db.one(statements.INSPECTION, {"session_id": session_id, "id": turn_or_request_id})
        if row is None:
            return None
        sight = _sight(row)
        assert sight.pending is not None
        return Inspection(sight.now, sight.head, sight.pending, row.user_tokens, row.reply_tokens or 0)


def _viewer(viewer: Viewer) -> dict[str, object]:
    return {"owner_id": viewer.owner_id, "any_owner": viewer.any_owner, "kind": viewer.kind}


def _sight(row: Sequence[Any]) -> Sight:
    head = head_of(row[1:])
    return Sight(row[0], head, turn_of(row[statements.TURN_AT :], head.session_id))


def _claimed(head: Head, turn_id: TurnId, request: Request, fence: Fence, now: datetime) -> Head:
    return replace(
        head,
        fence=fence,
        rev=Rev(head.rev + 1),
        active_turn=turn_id,
        claim_id=request.claim_id,
        lease_until=now + timedelta(milliseconds=head.lease_ms),
        changed_at=now,
    )
