"""The rules of the directory: what an entry is, and how a run of the ledger is folded into it.

The directory is a projection: history's ledger is right and this follows. Values and functions of values only; nothing
here reads a clock or a database. Violations name the field as the contract does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final, NewType
from uuid import UUID

from libs.runtime.errors import FieldViolation, InvalidField

SessionId = NewType("SessionId", UUID)
OwnerId = NewType("OwnerId", str)
Digest = NewType("Digest", bytes)
"""32 bytes: a ledger's chain up to and with one turn."""
NanoUsd = NewType("NanoUsd", int)
"""Money, in 1e-9 US dollars."""

MAX_RUNS: Final = 200
MAX_PER_TURN: Final = 2**40
"""The most tokens, or 1e-9 US dollars, that one turn may claim, so that no sum of turns leaves 64 bits."""


class Kind(StrEnum):
    """What a session is."""

    INTERVIEW = "interview"
    CHAT = "chat"


class Status(StrEnum):
    """How far along a session is; COMPLETED once its sealed ledger is folded to the end."""

    OPEN = "open"
    COMPLETED = "completed"


def first_digest(session_id: SessionId) -> Digest:
    """The digest of an empty ledger (turn-protocol, digest 0)."""
    return Digest(sha256(b"colloquy/stream/1" + session_id.bytes).digest())


@dataclass(frozen=True, slots=True)
class Totals:
    """What turns used and cost."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: NanoUsd = NanoUsd(0)

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            NanoUsd(self.cost_nano_usd + other.cost_nano_usd),
        )


@dataclass(frozen=True, slots=True)
class NewSession:
    """What is known of a session when it is opened, and never changes.

    Raises:
        InvalidField: naming every field that breaks a rule. What history has let in must pass here, so only what would
            make the entry unusable is refused.
    """

    session_id: SessionId
    owner_id: OwnerId
    tenant_id: str
    kind: Kind
    plan: str
    versions: Mapping[str, str]
    candidate_name: str
    metadata: Mapping[str, str]
    max_turns: int
    created_at: datetime

    def __post_init__(self) -> None:
        violations = [*self._unstorable()]
        if not self.owner_id:
            violations.append(FieldViolation("session.owner_id", "Name an owner."))
        if self.max_turns < 1:
            violations.append(FieldViolation("session.max_turns", "At least 1."))
        if violations:
            raise InvalidField(violations)

    def _unstorable(self) -> Iterator[FieldViolation]:
        """PostgreSQL has no text with a NUL in it."""
        texts = {"owner_id": self.owner_id, "tenant_id": self.tenant_id, "plan": self.plan}
        texts |= {"candidate_name": self.candidate_name}
        texts |= {"versions": "".join([*self.versions, *self.versions.values()])}
        texts |= {"metadata": "".join([*self.metadata, *self.metadata.values()])}
        return (FieldViolation(f"session.{name}", "No NUL.") for name, text in texts.items() if "\0" in text)


@dataclass(frozen=True, slots=True)
class Position:
    """How much of a ledger an entry has folded: up to which turn, which digest it had there, and whether that is all.

    `completed_at` is when the ledger was sealed, None while more may come.
    """

    applied_seq: int
    head_digest: Digest
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A session as the directory shows it."""

    facts: NewSession
    position: Position
    totals: Totals

    @property
    def status(self) -> Status:
        return Status.OPEN if self.position.completed_at is None else Status.COMPLETED


@dataclass(frozen=True, slots=True)
class AppliedTurn:
    """What the directory folds of a committed turn; `seq` counts from 1."""

    seq: int
    previous_digest: Digest
    digest: Digest
    totals: Totals


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of one session's ledger, dense and chained, as somebody read it: `turns` may be empty.

    `last_seq` is the ledger's length; `sealed_at`, needed where it is `sealed`, is when that happened. `replaces` is
    the digest at which this entry was found to differ from the ledger, None otherwise: see `fold`.

    Raises:
        InvalidField: naming every field that breaks a rule, relative to the run.
    """

    session_id: SessionId
    turns: tuple[AppliedTurn, ...]
    last_seq: int
    sealed: bool = False
    sealed_at: datetime | None = None
    replaces: Digest | None = None

    def __post_init__(self) -> None:
        violations = [*self._unchained(), *self._unbelievable()]
        if self.last_seq < (self.turns[-1].seq if self.turns else 0):
            violations.append(FieldViolation("last_seq", "At least the seq of the run's last turn."))
        if self.sealed and self.sealed_at is None:
            violations.append(FieldViolation("sealed_at", "Say when it was sealed."))
        if self.replaces is not None and not self.from_start:
            violations.append(
                FieldViolation("replaces_digest", "Only a run from the ledger's start replaces anything.")
            )
        if violations:
            raise InvalidField(violations)

    @property
    def from_start(self) -> bool:
        """Whether the run begins where the ledger does."""
        return self.turns[0].seq == 1 if self.turns else self.last_seq == 0

    @property
    def base(self) -> Position | None:
        """Where an open entry stands that this run continues; None where the run has no turn to tell."""
        return Position(self.turns[0].seq - 1, self.turns[0].previous_digest) if self.turns else None

    def digest_after(self, seq: int) -> Digest | None:
        """The ledger's digest once it had `seq` turns, None where this run does not know it."""
        if not self.turns:
            return first_digest(self.session_id) if seq == 0 else None
        if seq == self.turns[0].seq - 1:
            return self.turns[0].previous_digest
        return self.turns[seq - self.turns[0].seq].digest if self.turns[0].seq <= seq <= self.turns[-1].seq else None

    def _unchained(self) -> Iterator[FieldViolation]:
        seq, digest = (self.turns[0].seq, self.turns[0].previous_digest) if self.turns else (1, b"")
        if seq < 1:
            yield FieldViolation("turns[0].seq", "At least 1.")
        if seq == 1 and self.turns and digest != first_digest(self.session_id):
            yield FieldViolation("turns[0].previous_digest", "Before turn 1 there is the digest of the empty ledger.")
        for index, turn in enumerate(self.turns):
            if turn.seq != seq + index:
                yield FieldViolation(f"turns[{index}].seq", "One more than the turn before.")
            if turn.previous_digest != digest:
                yield FieldViolation(f"turns[{index}].previous_digest", "The digest of the turn before.")
            digest = turn.digest

    def _unbelievable(self) -> Iterator[FieldViolation]:
        for index, turn in enumerate(self.turns):
            totals = turn.totals
            counts = {"prompt_tokens": totals.prompt_tokens, "completion_tokens": totals.completion_tokens}
            for name, count in {**counts, "cost_nano_usd": totals.cost_nano_usd}.items():
                if not 0 <= count <= MAX_PER_TURN:
                    yield FieldViolation(f"turns[{index}].{name}", f"0 to {MAX_PER_TURN}.")


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs of several sessions, at most MAX_RUNS and each session once. Raises InvalidField."""

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        violations = []
        if len(self.runs) > MAX_RUNS:
            violations.append(FieldViolation("sessions", f"At most {MAX_RUNS}."))
        if len({run.session_id for run in self.runs}) < len(self.runs):
            violations.append(FieldViolation("sessions", "Each session once."))
        if violations:
            raise InvalidField(violations)


class Outcome(StrEnum):
    """What became of a run; the words of the contract."""

    OK = "OK"
    DUPLICATE = "DUPLICATE"
    GAP = "GAP"
    ABSENT = "ABSENT"
    DIVERGED = "DIVERGED"
    ERASED = "ERASED"


@dataclass(frozen=True, slots=True)
class Fold:
    """What a run makes of an entry: its new position, and the totals to add; `refolded` says to what.

    With `refolded` nothing that was folded before counts: the totals are added to zero, and somebody should be told.
    """

    outcome: Outcome
    position: Position
    gained: Totals = Totals()
    refolded: bool = False


def fold(before: Position, run: Run) -> Fold:
    """Fold a run into an entry that stands at `before`, whole or not at all.

    An entry whose digest is not the ledger's, or that is ahead of the ledger, has DIVERGED: one of them was restored.
    A run from the ledger's start that shows another digest where the entry stands replaces everything. A run that ends
    before cannot show it, and may only be one that was read long ago: replacing would lose turns. That takes a run
    that was read after, and because of, the DIVERGED answer: its `replaces` is the digest of that answer, and counts
    only while the entry still stands there.
    """
    agreed = run.digest_after(before.applied_seq)
    differs = agreed is not None and agreed != before.head_digest
    if (differs and run.from_start) or (agreed is None and run.replaces == before.head_digest):
        anew = _follow(Position(0, first_digest(run.session_id)), run)
        return replace(anew, outcome=Outcome.OK, refolded=True)
    if differs or before.applied_seq > run.last_seq:
        return Fold(Outcome.DIVERGED, before)
    return _follow(before, run)


def _follow(before: Position, run: Run) -> Fold:
    """The fold where both agree as far as can be told."""
    starts_at = run.turns[0].seq if run.turns else run.last_seq + 1
    if starts_at > before.applied_seq + 1:
        return Fold(Outcome.GAP, before)
    news = [turn for turn in run.turns if turn.seq > before.applied_seq]
    seq, digest = (news[-1].seq, news[-1].digest) if news else (before.applied_seq, before.head_digest)
    # A turn past the end of a ledger that was sealed shows that it is not sealed any more (a restore, too).
    was_completed_at = None if news else before.completed_at
    completed_at = was_completed_at or (run.sealed_at if run.sealed and seq == run.last_seq else None)
    after = Position(seq, digest, completed_at)
    if after == before:
        return Fold(Outcome.DUPLICATE, before)
    return Fold(Outcome.OK, after, sum((turn.totals for turn in news), Totals()))
