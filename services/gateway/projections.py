"""What folds the ledger: the directory of sessions and, for interviews, the evidence. Both answer alike.

The gateway carries the ledger to them; what they fold of it, and whether it fits, is theirs to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.assessment.v1 import assessment_pb2
from colloquy.history.v1 import history_pb2
from colloquy.session.v1 import session_pb2
from libs.runtime.client import call
from services.gateway import records
from services.gateway.contexts import Contexts

FOLD_CAP_MS = 2000


@dataclass(slots=True)
class Run:
    """A run of one session's ledger; `rev` and `head_digest` (after `last_seq`) are the head's when it was read or
    committed.

    `replaces_digest` is set only to fold a projection again that had diverged.
    """

    session_id: str
    kind: history_pb2.Kind.ValueType
    last_seq: int
    head_digest: bytes
    rev: int
    sealed: bool
    sealed_at: Timestamp | None
    turns: list[history_pb2.Turn] = field(default_factory=list)
    replaces_digest: bytes = b""

    def extend(self, other: "Run") -> None:
        """Take over what another write to the same session left; the head of the later one counts."""
        if other.rev > self.rev:
            self.last_seq, self.head_digest, self.rev = other.last_seq, other.head_digest, other.rev
            self.sealed, self.sealed_at = other.sealed, other.sealed_at
        self.turns = sorted([*self.turns, *other.turns], key=lambda turn: turn.seq)


def run_of(head: history_pb2.Head, turns: Sequence[history_pb2.Turn] = (), replaces_digest: bytes = b"") -> Run:
    """A run that ends where `head` stood when it was read."""
    sealed_at = head.sealed_at if head.sealed else None
    return Run(
        head.session_id,
        head.kind,
        head.last_seq,
        head.head_digest,
        head.rev,
        head.sealed,
        sealed_at,
        list(turns),
        replaces_digest,
    )


class Outcome(IntEnum):
    """What became of a run; the numbers are both contracts'."""

    OK = 1
    DUPLICATE = 2
    GAP = 3
    ABSENT = 4
    DIVERGED = 5
    ERASED = 6


@dataclass(frozen=True, slots=True)
class Folded:
    """How far a projection is after a run was offered."""

    outcome: Outcome
    applied_seq: int
    completed: bool
    head_digest: bytes

    def holds(self, run: Run) -> bool:
        """Whether the projection stands where the run ends, closed if the run is.

        A projection of as many turns may have folded others (a restore), and a run without turns cannot show it that:
        so it is the digest that counts.
        """
        fits = self.outcome in (Outcome.OK, Outcome.DUPLICATE)
        return fits and self.head_digest == run.head_digest and (self.completed or not run.sealed)


class Projection(Protocol):
    """One of the two."""

    async def fold(self, runs: Sequence[Run]) -> list[Folded]:
        """Offer runs of several sessions; a result for each, in their order. Raises ColloquyError."""
        ...

    async def make(self, head: history_pb2.Head) -> None:
        """Make the session's entry where there is none. Raises ColloquyError."""
        ...

    async def erase(self, session_id: str) -> None:
        """Leave a tombstone, whether or not there is an entry. Raises ColloquyError."""
        ...


class Directory:
    """The sessions there are (the context `session`)."""

    def __init__(self, contexts: Contexts) -> None:
        self._session = contexts.session

    async def fold(self, runs: Sequence[Run]) -> list[Folded]:
        request = session_pb2.ApplyTurnsRequest(
            sessions=[
                session_pb2.SessionTurns(
                    session_id=run.session_id,
                    turns=[records.listed_turn(turn) for turn in run.turns],
                    last_seq=run.last_seq,
                    sealed=run.sealed,
                    sealed_at=run.sealed_at,
                    replaces_digest=run.replaces_digest,
                )
                for run in runs
            ]
        )
        response = await call(self._session.ApplyTurns, request, FOLD_CAP_MS)
        return [_folded(result) for result in response.results]

    async def make(self, head: history_pb2.Head) -> None:
        request = session_pb2.CreateSessionRequest(session=records.directory_entry(head))
        await call(self._session.CreateSession, request, FOLD_CAP_MS)

    async def erase(self, session_id: str) -> None:
        await call(self._session.EraseSession, session_pb2.EraseSessionRequest(session_id=session_id), FOLD_CAP_MS)


class Evidence:
    """What the answers of interviews show (the context `assessment`)."""

    def __init__(self, contexts: Contexts) -> None:
        self._assessment = contexts.assessment

    async def fold(self, runs: Sequence[Run]) -> list[Folded]:
        request = assessment_pb2.ApplyTurnsRequest(
            sessions=[
                assessment_pb2.InterviewTurns(
                    session_id=run.session_id,
                    turns=[records.assessed_turn(turn) for turn in run.turns],
                    last_seq=run.last_seq,
                    sealed=run.sealed,
                    replaces_digest=run.replaces_digest,
                )
                for run in runs
            ]
        )
        response = await call(self._assessment.ApplyTurns, request, FOLD_CAP_MS)
        return [_folded(result) for result in response.results]

    async def make(self, head: history_pb2.Head) -> None:
        await call(self._assessment.StartInterview, records.start_request(head), FOLD_CAP_MS)

    async def erase(self, session_id: str) -> None:
        request = assessment_pb2.EraseInterviewRequest(session_id=session_id)
        await call(self._assessment.EraseInterview, request, FOLD_CAP_MS)


def _folded(
    result: session_pb2.ApplyTurnsResponse.Result | assessment_pb2.ApplyTurnsResponse.Result,
) -> Folded:
    return Folded(Outcome(result.outcome), result.applied_seq, result.completed, result.head_digest)
