"""`history` as values: one stream, its turns, and what each RPC makes of them in one transaction.

Who may enter is decided by the real rule, `services.history.admission.admit`; the rest says what the statements of
`services/history/statements.py` say, and `tests/prove/test_history_conforms.py` holds the two together.
"""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from libs.runtime.errors import ColloquyError
from services.history import admission
from services.history.domain import ClaimId, Head, RequestId, TurnId, TurnState
from services.history.domain import Turn as StoredTurn
from tests.prove.model.rules import PROTOCOL, Rules

NOBODY: Final = -1
ABSENT: Final = "ABSENT"
RUNNING: Final = TurnState.RUNNING.value
COMMITTED: Final = TurnState.COMMITTED.value
FAILED: Final = TurnState.FAILED.value
ABANDONED: Final = TurnState.ABANDONED.value


class Reply(NamedTuple):
    """What a commit brings: the item that the words ask, the item that the record says they do (0: none), whether the
    words are a model's, and whether they close the session."""

    asks: int
    item: int
    phrased: bool
    final: bool


class Stream(NamedTuple):
    """The head. `active` is the request whose turn holds the claim, `live` whether its lease has not run out."""

    last_seq: int = 0
    fence: int = 0
    rev: int = 1
    acked_rev: int = 0
    active: int = NOBODY
    claim: int = 0
    live: bool = False
    sealed: bool = False
    erased: bool = False


class Turn(NamedTuple):
    """The turn of one request."""

    state: str = ABSENT
    base: int = 0
    seq: int = 0
    reason: str = ""
    reply: Reply | None = None


class Ledger(NamedTuple):
    """A stream and its turns, by request."""

    stream: Stream
    turns: tuple[Turn, ...]

    def having(self, request: int, turn: Turn, stream: Stream) -> "Ledger":
        """With this turn and this head."""
        return Ledger(stream, (*self.turns[:request], turn, *self.turns[request + 1 :]))

    def chain(self) -> tuple[int, ...]:
        """The requests of the committed turns, in the order of their seq."""
        committed = [(turn.seq, request) for request, turn in enumerate(self.turns) if turn.state == COMMITTED]
        return tuple(request for _, request in sorted(committed))

    def asked(self, up_to: int) -> frozenset[int]:
        """The items that the first turns of the ledger asked."""
        return frozenset(turn.reply.item for turn in self.turns if turn.reply and 0 < turn.seq <= up_to)


def opened(requests: int) -> Ledger:
    """An open stream without a turn."""
    return Ledger(Stream(), (Turn(),) * requests)


def opened_by(request: int, claim: int, requests: int) -> Ledger:
    """An open stream whose opening is being answered, which is the turn of the request that opened it."""
    stream = Stream(fence=1, active=request, claim=claim, live=True)
    return opened(requests).having(request, Turn(RUNNING), stream)


def decide(ledger: Ledger, request: int, claim: int, max_turns: int, rules: Rules = PROTOCOL) -> str:
    """What BeginTurn decides on the rows that it reads: the name of admission's decision, or a reason to refuse."""
    stream, same = ledger.stream, ledger.turns[request]
    if stream.erased:
        return "NOT_FOUND"
    holder = "nobody" if stream.active == NOBODY else "same" if stream.active == request else "other"
    decision = _admitted(
        stream.sealed, stream.last_seq, max_turns, same.state, same.base, holder, stream.live, stream.claim == claim
    )
    if decision == "OtherTurn" and not stream.live and not rules.same_id_takes_over:
        return "Claim" if same.state == ABSENT else "TakeOver"
    if decision == "Supersede" and not rules.base_is_fixed:
        return "TakeOver"
    return decision


def claim(ledger: Ledger, request: int, rev: int, claim: int, rules: Rules = PROTOCOL) -> Ledger | None:
    """BeginTurn lets a new message in; None where the stream has moved on since it was read."""
    stream = ledger.stream
    if not _may_write(stream, rev, rules):
        return None
    held = stream._replace(fence=stream.fence + 1, rev=stream.rev + 1, active=request, claim=claim, live=True)
    return ledger.having(request, Turn(RUNNING, base=stream.last_seq), held)


def take_over(ledger: Ledger, request: int, rev: int, claim: int, rules: Rules = PROTOCOL) -> Ledger | None:
    """BeginTurn lets a request's own turn run again, on the same base; None as `claim`."""
    stream, turn = ledger.stream, ledger.turns[request]
    if not _may_write(stream, rev, rules):
        return None
    fence = stream.fence + (1 if rules.takeover_bumps_fence else 0)
    held = stream._replace(fence=fence, rev=stream.rev + 1, active=request, claim=claim, live=True)
    return ledger.having(request, turn._replace(state=RUNNING, reason=""), held)


def supersede(ledger: Ledger, request: int, rev: int, rules: Rules = PROTOCOL) -> Ledger | None:
    """BeginTurn fails a turn whose base has been built upon; None as `claim`."""
    stream, turn = ledger.stream, ledger.turns[request]
    if not _may_write(stream, rev, rules):
        return None
    return ledger.having(request, turn._replace(state=FAILED, reason="CONFLICT"), _unclaimed(stream))


def commit(ledger: Ledger, request: int, fence: int, reply: Reply, rules: Rules = PROTOCOL) -> tuple[str, Ledger]:
    """CommitTurn: its outcome, and the ledger after it."""
    stream, turn = ledger.stream, ledger.turns[request]
    met = {
        "active": stream.active == request,
        "fence": stream.fence == fence,
        "base": stream.last_seq == turn.base or not rules.base_is_fixed,
        "open": not stream.sealed,
        "running": turn.state == RUNNING,
    }
    if not all(met[demand] for demand in rules.commit_demands):
        if stream.erased:
            return "NOT_FOUND", ledger
        return ("DUPLICATE" if turn.state == COMMITTED else "FENCED"), ledger
    if rules.items_are_unique and reply.item and reply.item in ledger.asked(stream.last_seq):
        return "ITEM_ALREADY_ASKED", ledger
    seq = turn.base + 1 if rules.base_is_fixed else stream.last_seq + 1
    committed = turn._replace(state=COMMITTED, seq=seq, reply=reply)
    head = _unclaimed(stream)._replace(last_seq=seq, sealed=stream.sealed or reply.final)
    after = ledger.having(request, committed, head)
    if reply.final and rules.last_commit_fails_given_back:
        after = after._replace(turns=tuple(_failed_if(turn, ABANDONED) for turn in after.turns))
    return "COMMITTED", after


def release(
    ledger: Ledger, request: int, fence: int, state: str, reason: str, rules: Rules = PROTOCOL
) -> Ledger | None:
    """ReleaseTurn; None where the claim is not held any more."""
    stream, turn = ledger.stream, ledger.turns[request]
    if stream.active != request or turn.state != RUNNING:
        return None
    if rules.release_checks_fence and stream.fence != fence:
        return None
    return ledger.having(request, turn._replace(state=state, reason=reason), _unclaimed(stream))


def seal(ledger: Ledger, rules: Rules = PROTOCOL) -> Ledger:
    """SealStream: nothing is active, and what was not committed never will be."""
    if ledger.stream.sealed or not rules.end_seals:
        return ledger
    turns = tuple(_failed_if(turn, RUNNING, ABANDONED) for turn in ledger.turns)
    return Ledger(_closed(ledger.stream, rules), turns)


def erase(ledger: Ledger, rules: Rules = PROTOCOL) -> Ledger:
    """EraseStream: as a seal, and nothing that was said is left."""
    if ledger.stream.erased:
        return ledger
    turns = tuple(_failed_if(turn, RUNNING, ABANDONED)._replace(reply=None) for turn in ledger.turns)
    return Ledger(_closed(ledger.stream, rules)._replace(erased=True), turns)


def reset(ledger: Ledger) -> Ledger:
    """InterveneStream(RESET), by an operator: the claim that is held ends, and its turn may be taken over at once."""
    stream = _unclaimed(ledger.stream)._replace(fence=ledger.stream.fence + 1)
    if ledger.stream.active == NOBODY:
        return Ledger(stream, ledger.turns)
    given_back = ledger.turns[ledger.stream.active]._replace(state=ABANDONED, reason="UNAVAILABLE")
    return ledger.having(ledger.stream.active, given_back, stream)


def acknowledge(ledger: Ledger, rev: int, rules: Rules = PROTOCOL) -> Ledger:
    """AcknowledgeStreams: settled up to this rev, if the stream still stands there and nobody holds a claim."""
    stream = ledger.stream
    if stream.active != NOBODY or (rules.ack_checks_rev and stream.rev != rev):
        return ledger
    return ledger._replace(stream=stream._replace(acked_rev=stream.rev))


def _may_write(stream: Stream, rev: int, rules: Rules) -> bool:
    return not stream.erased and (stream.rev == rev or not rules.rev_is_compared)


def _unclaimed(stream: Stream) -> Stream:
    return stream._replace(rev=stream.rev + 1, active=NOBODY, live=False)


def _closed(stream: Stream, rules: Rules) -> Stream:
    return _unclaimed(stream)._replace(fence=stream.fence + (1 if rules.seal_bumps_fence else 0), sealed=True)


def _failed_if(turn: Turn, *states: str) -> Turn:
    return turn._replace(state=FAILED, reason="SESSION_CLOSED") if turn.state in states else turn


# The real rule, on real values made of the model's. It may look at these fields and at no other.

_NOW: Final = datetime(2026, 5, 6, 12, tzinfo=UTC)
_MINE, _THEIRS = ClaimId(UUID(int=1)), ClaimId(UUID(int=2))
_REQUEST: Final = admission.Request(RequestId(UUID(int=3)), _MINE, b"f" * 32)
_SAME, _OTHER = TurnId(UUID(int=4)), TurnId(UUID(int=5))


@cache
def _admitted(
    sealed: bool, last_seq: int, max_turns: int, state: str, base: int, holder: str, live: bool, mine: bool
) -> str:
    same = None if state == ABSENT else _stored(state, base, _SAME, _REQUEST.fingerprint)
    active = {"nobody": None, "same": same, "other": _stored(RUNNING, last_seq, _OTHER, b"")}[holder]
    head = _blank(Head) | {
        "max_turns": max_turns,
        "min_interval_ms": 0,
        "last_seq": last_seq,
        "active_turn": active and active.turn_id,
        "claim_id": active and (_MINE if mine else _THEIRS),
        "lease_until": active and _NOW + timedelta(seconds=1 if live else -1),
        "sealed_at": _NOW if sealed else None,
    }
    try:
        return type(admission.admit(Head(**head), same, active, _REQUEST, _NOW)).__name__
    except ColloquyError as refusal:
        return refusal.reason.value


def _stored(state: str, base: int, turn_id: TurnId, fingerprint: bytes) -> StoredTurn:
    known = {"turn_id": turn_id, "fingerprint": fingerprint, "state": TurnState(state), "base_seq": base}
    return StoredTurn(**_blank(StoredTurn) | known)


def _blank(record: type) -> dict[str, Any]:
    return dict.fromkeys(it.name for it in fields(record))
