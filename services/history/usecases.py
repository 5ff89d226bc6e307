"""What the ledger does for its callers: read, decide, write if nothing has changed since, else start again.

The rules are `admission`'s, the statements `store`'s.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import uuid4

from libs.runtime.errors import NotFound, Reason, RequestIdReused, Unavailable
from services.history import admission
from services.history.commands import (
    MAX_BYTES_LISTED,
    MAX_STREAMS_ACKNOWLEDGED,
    MAX_STREAMS_READ,
    MAX_TURNS_READ,
    NewStream,
    NewTurn,
    Release,
    Reply,
    TurnRange,
    UnsettledRange,
    Viewer,
    at_most,
)
from services.history.digest import fingerprint
from services.history.domain import (
    Fence,
    Head,
    Rev,
    SessionId,
    Turn,
    TurnId,
    TurnState,
    TurnStatus,
    WindowLimit,
    WindowMessage,
    how_many_fit,
    select_window,
    size_of,
    within_bytes,
)
from services.history.store import ItemAlreadyAsked, Sight, Standing, Store

# A write that finds its stream changed means that another one succeeded, and nearly always that the next read decides
# without a write. A stream that changes this often within one request is not a conversation.
_MAX_ATTEMPTS: Final = 8
_REST_OF_SIGHT_BYTES: Final = 512  # ids, names, counters, times and digests, at most
_NO_WINDOW: Final = WindowLimit(0, 0)


@dataclass(frozen=True, slots=True)
class Owner:
    """The caller holds the claim on a turn, for `lease_ms` from now, and must answer it."""

    turn_id: TurnId
    lease_ms: int
    takeover: bool
    head: Head
    window: Sequence[WindowMessage]
    last_turn: Turn | None


Begun = Owner | admission.Replay | admission.InProgress | admission.OtherTurn


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that stands, what became of its opening, if it has one, and whether an earlier request opened it."""

    head: Head
    opening: Owner | admission.Replay | admission.InProgress | None
    replayed: bool


class CommitOutcome(StrEnum):
    """What a commit found."""

    COMMITTED = "COMMITTED"
    DUPLICATE = "DUPLICATE"
    FENCED = "FENCED"
    ITEM_ALREADY_ASKED = "ITEM_ALREADY_ASKED"


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The outcome and the turn as stored; `rev` is the head's where this commit made it."""

    outcome: CommitOutcome
    turn: Turn | None = None
    rev: Rev | None = None
    sealed: bool = False


class History:
    """The ledger's use cases. `count_tokens` is how texts are counted, once, when they are stored."""

    def __init__(self, store: Store, count_tokens: Callable[[str], int]) -> None:
        self._store = store
        self._count_tokens = count_tokens

    async def open_stream(self, new: NewStream) -> Opened:
        """Open a stream; where it is open already, answer the same request as `begin_turn` does."""
        opening = TurnId(uuid4()) if new.with_opening else None
        head = await self._store.open(new, opening, secrets.token_bytes(32))
        if head is not None:
            owner = Owner(opening, head.lease_ms, False, head, (), None) if opening else None
            return Opened(head, owner, replayed=False)
        request = admission.Request(new.request_id, new.claim_id, new.fingerprint)
        for _ in range(_MAX_ATTEMPTS):
            standing = await self._standing(new.session_id, new.viewer, request, _NO_WINDOW)
            if standing.head.fingerprint != new.fingerprint or standing.head.kind != new.kind:
                raise RequestIdReused
            if not new.with_opening:
                return Opened(standing.head, None, replayed=True)
            if standing.same is None:
                raise RequestIdReused
            begun = await self._begin(standing, request, "", _NO_WINDOW)
            if isinstance(begun, admission.OtherTurn):  # the opening was given back, and a message came first
                begun = admission.InProgress(begun.turn, begun.lease_left_ms)
            if begun is not None:
                return Opened(begun.head if isinstance(begun, Owner) else standing.head, begun, replayed=True)
        raise Unavailable

    async def begin_turn(self, new: NewTurn) -> Begun:
        """Admit, claim or replay a message."""
        request = admission.Request(
            new.request_id, new.claim_id, fingerprint(new.text, new.in_reply_to), new.in_reply_to
        )
        for _ in range(_MAX_ATTEMPTS):
            standing = await self._standing(new.session_id, new.viewer, request, new.window)
            begun = await self._begin(standing, request, new.text, new.window)
            if begun is not None:
                return begun
        raise Unavailable

    async def commit_turn(self, session_id: SessionId, turn_id: TurnId, fence: Fence, reply: Reply) -> CommitResult:
        """The commit point."""
        try:
            committed = await self._store.commit(session_id, turn_id, fence, reply, self._count_tokens(reply.text))
        except ItemAlreadyAsked:
            return CommitResult(CommitOutcome.ITEM_ALREADY_ASKED)
        if committed is not None:
            return CommitResult(CommitOutcome.COMMITTED, committed.turn, committed.rev, reply.final)
        head, turn = await self._turn(session_id, turn_id)
        stored = turn.state is TurnState.COMMITTED
        return CommitResult(CommitOutcome.DUPLICATE if stored else CommitOutcome.FENCED, turn, sealed=head.sealed)

    async def release_turn(self, session_id: SessionId, turn_id: TurnId, fence: Fence, release: Release) -> bool:
        """Give a claim back; whether it was still held."""
        released = await self._store.release(session_id, turn_id, fence, release)
        if not released:
            await self._turn(session_id, turn_id)
        return released

    async def get_stream(self, session_id: SessionId, viewer: Viewer) -> Sight:
        """A stream and what is pending there."""
        sight = await self._store.stream(session_id, viewer)
        if sight is None:
            raise NotFound
        return sight

    async def get_streams(self, session_ids: Sequence[SessionId], viewer: Viewer) -> list[Sight]:
        """Those of the streams that the viewer may see, in the order given."""
        at_most(MAX_STREAMS_READ, "session_ids", session_ids)
        return await self._store.streams(session_ids, viewer)

    async def list_turns(self, session_id: SessionId, viewer: Viewer, span: TurnRange) -> tuple[Head, list[Turn]]:
        """Committed turns, and a head that they all belong to.

        Of two reads the second may find that the session was erased meanwhile; nothing else changes committed turns.
        """
        head = (await self.get_stream(session_id, viewer)).head
        first, last = span.bounds(head.last_seq)
        if first > last:
            return head, []
        turns = await self._store.turns(session_id, first, last)
        if not turns:  # there were some (I1)
            raise NotFound
        return head, within_bytes(turns, MAX_BYTES_LISTED, newest=span.newest)

    async def get_turn_states(self, keys: Sequence[tuple[SessionId, TurnId]]) -> list[TurnStatus]:
        """Where those of the turns stand that there are."""
        at_most(MAX_TURNS_READ, "turns", keys)
        return await self._store.turn_states(keys)

    async def list_unsettled(self, span: UnsettledRange) -> tuple[list[Sight], bool]:
        """Streams that some projection may not have folded, and whether there may be more beyond the last of them."""
        found = await self._store.unsettled(span, span.max_streams + 1)
        fitting = how_many_fit(map(_size_of_sight, found[: span.max_streams]), MAX_BYTES_LISTED)
        return found[:fitting], fitting < len(found)

    async def acknowledge_streams(self, settled: Sequence[tuple[SessionId, Rev]]) -> int:
        """Record which streams are settled; how many had not moved on."""
        at_most(MAX_STREAMS_ACKNOWLEDGED, "streams", settled)
        return await self._store.acknowledge(settled)

    async def seal_stream(self, session_id: SessionId, viewer: Viewer) -> Head:
        """Close a session; the head as it then is."""
        for _ in range(_MAX_ATTEMPTS):
            head = (await self.get_stream(session_id, viewer)).head
            closed = head if head.sealed else await self._store.seal(head)
            if closed is not None:
                return closed
        raise Unavailable

    async def erase_stream(self, session_id: SessionId, viewer: Viewer) -> Head:
        """Clear what a session says; the head that is left of it, also where it was erased before."""
        for _ in range(_MAX_ATTEMPTS):
            head = await self._store.head(session_id, viewer)
            if head is None:
                raise NotFound
            left = head if head.erased else await self._store.erase(head)
            if left is not None:
                return left
        raise Unavailable

    async def _begin(
        self, standing: Standing, request: admission.Request, text: str, limit: WindowLimit
    ) -> Begun | None:
        """Carry out what admission decides; None where the stream has moved on since it was read."""
        head = standing.head
        match admission.admit(head, standing.same, standing.active, request, standing.now):
            case admission.Claim():
                turn_id, takeover = TurnId(uuid4()), False
                claimed = await self._store.claim(standing, request, turn_id, text, self._count_tokens(text))
            case admission.TakeOver(turn):
                turn_id, takeover = turn.turn_id, True
                claimed = await self._store.take_over(head, request, turn_id)
            case admission.Hold(turn, left_ms):
                return _owner(head, turn.turn_id, left_ms, admission.was_taken_over(head, turn), standing, limit)
            case admission.Supersede(turn):
                superseded = await self._store.supersede(head, turn.turn_id)
                failed = replace(turn, state=TurnState.FAILED, reason=Reason.CONFLICT)
                return admission.Replay(failed) if superseded else None
            case begun:
                return begun
        return None if claimed is None else _owner(claimed, turn_id, head.lease_ms, takeover, standing, limit)

    async def _standing(
        self, session_id: SessionId, viewer: Viewer, request: admission.Request, limit: WindowLimit
    ) -> Standing:
        standing = await self._store.standing(session_id, viewer, request, limit.max_messages)
        if standing is None:
            raise NotFound
        return standing

    async def _turn(self, session_id: SessionId, turn_id: TurnId) -> tuple[Head, Turn]:
        found = await self._store.turn(session_id, turn_id)
        if found is None:
            raise NotFound
        return found


def _size_of_sight(sight: Sight) -> int:
    said = size_of(sight.pending) if sight.pending else 0
    return len(sight.head.facts) + len(sight.head.personal_facts) + said + _REST_OF_SIGHT_BYTES


def _owner(head: Head, turn_id: TurnId, lease_ms: int, takeover: bool, standing: Standing, limit: WindowLimit) -> Owner:
    window = select_window(standing.newest_first, limit)
    return Owner(turn_id, lease_ms, takeover, head, window, standing.last)
