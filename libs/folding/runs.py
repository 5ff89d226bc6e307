"""Runs of a session's ledger, and the rule by which a projection folds them.

The ledger is right and a projection follows: it stands after some number of turns, with the ledger's digest there, and
takes a run whole or not at all. What a turn means to a context is the context's own; here it is a link in a chain.
Values and functions of values only. Violations name the field as every contract with runs does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Final, Generic, NewType, Protocol, TypeVar
from uuid import UUID

from libs.runtime.errors import FieldViolation, InvalidField

Digest = NewType("Digest", bytes)
"""32 bytes: a ledger's chain up to and with one turn."""

DIGEST_BYTES: Final = 32
MAX_RUNS: Final = 200


class Link(Protocol):
    """A committed turn as its place in the chain; `seq` counts from 1."""

    @property
    def seq(self) -> int: ...
    @property
    def previous_digest(self) -> Digest: ...
    @property
    def digest(self) -> Digest: ...


Turn = TypeVar("Turn", bound=Link)


def first_digest(session_id: UUID) -> Digest:
    """The digest of an empty ledger (turn-protocol, digest 0)."""
    return Digest(sha256(b"colloquy/stream/1" + session_id.bytes).digest())


@dataclass(frozen=True, slots=True)
class Position:
    """How much of a ledger a projection has folded: up to which turn, which digest it had there, and whether that is
    all there will be (the ledger is sealed)."""

    applied_seq: int
    head_digest: Digest
    completed: bool = False


@dataclass(frozen=True, slots=True)
class Run(Generic[Turn]):
    """A stretch of one session's ledger, dense and chained, as somebody read it: `turns` may be empty.

    `last_seq` is the ledger's length. `replaces` is the digest at which the projection was found to differ from the
    ledger, None otherwise: see `fold`.

    Raises:
        InvalidField: naming every field that breaks a rule, relative to the run.
    """

    session_id: UUID
    turns: tuple[Turn, ...]
    last_seq: int
    sealed: bool = False
    replaces: Digest | None = None

    def __post_init__(self) -> None:
        violations = [*self._unchained()]
        if self.last_seq < (self.turns[-1].seq if self.turns else 0):
            violations.append(FieldViolation("last_seq", "At least the seq of the run's last turn."))
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
        """Where a projection stands that this run continues; None where the run has no turn to tell."""
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


def check_batch(runs: Sequence[Run[Turn]]) -> None:
    """Raises InvalidField where there are more than MAX_RUNS, or two of one session."""
    violations = []
    if len(runs) > MAX_RUNS:
        violations.append(FieldViolation("sessions", f"At most {MAX_RUNS}."))
    if len({run.session_id for run in runs}) < len(runs):
        violations.append(FieldViolation("sessions", "Each session once."))
    if violations:
        raise InvalidField(violations)


class Outcome(StrEnum):
    """What became of a run; the words of the contracts."""

    OK = "OK"
    DUPLICATE = "DUPLICATE"
    GAP = "GAP"
    ABSENT = "ABSENT"
    DIVERGED = "DIVERGED"
    ERASED = "ERASED"


@dataclass(frozen=True, slots=True)
class Fold(Generic[Turn]):
    """What a run makes of a projection: its new position, and the turns that it did not have.

    With `refolded` nothing that was folded before counts: the projection is these turns alone, and somebody should be
    told.
    """

    outcome: Outcome
    position: Position
    news: tuple[Turn, ...] = ()
    refolded: bool = False


def fold(before: Position, run: Run[Turn]) -> Fold[Turn]:
    """Fold a run into a projection that stands at `before`, whole or not at all.

    A projection whose digest is not the ledger's, or that is ahead of the ledger, has DIVERGED: one of them was
    restored. A run from the ledger's start that shows another digest where the projection stands replaces everything.
    A run that ends before cannot show it, and may only be one that was read long ago: replacing would lose turns. That
    takes a run that was read after, and because of, the DIVERGED answer: its `replaces` is the digest of that answer,
    and counts only while the projection still stands there.
    """
    agreed = run.digest_after(before.applied_seq)
    differs = agreed is not None and agreed != before.head_digest
    if (differs and run.from_start) or (agreed is None and run.replaces == before.head_digest):
        anew = _follow(Position(0, first_digest(run.session_id)), run)
        return replace(anew, outcome=Outcome.OK, refolded=True)
    if differs or before.applied_seq > run.last_seq:
        return Fold(Outcome.DIVERGED, before)
    return _follow(before, run)


def _follow(before: Position, run: Run[Turn]) -> Fold[Turn]:
    """The fold where both agree as far as can be told."""
    starts_at = run.turns[0].seq if run.turns else run.last_seq + 1
    if starts_at > before.applied_seq + 1:
        return Fold(Outcome.GAP, before)
    news = tuple(turn for turn in run.turns if turn.seq > before.applied_seq)
    seq, digest = (news[-1].seq, news[-1].digest) if news else (before.applied_seq, before.head_digest)
    # A turn past the end of a ledger that was sealed shows that it is not sealed any more (a restore, too).
    was_completed = before.completed and not news
    after = Position(seq, digest, was_completed or (run.sealed and seq == run.last_seq))
    if after == before:
        return Fold(Outcome.DUPLICATE, before)
    return Fold(Outcome.OK, after, news)
