"""What the tables of all contexts hold of one session, as far as a rule can tell anything from it.

Values only. Texts are here because digests are computed from them; nothing that is said about a session may quote them.
Statuses are the tables' own words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, NewType
from uuid import UUID

SessionId = NewType("SessionId", UUID)
TurnId = NewType("TurnId", UUID)
Purpose = NewType("Purpose", str)
"""`question`, `judge`, `judge/2`, `chat`, `prepared/<item>`."""

INTERVIEW: Final = "interview"
COMMITTED: Final = "COMMITTED"
RUNNING: Final = "RUNNING"
ABANDONED: Final = "ABANDONED"
FAILED: Final = "FAILED"


@dataclass(frozen=True, slots=True)
class Facts:
    """What an interview or a chat was opened with, as the other contexts keep it too."""

    plan: str
    versions: Mapping[str, str]
    candidate_name: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used: of a turn as its record says, of a session, a call or an attempt as its row does."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_nano_usd + other.cost_nano_usd,
        )

    def __str__(self) -> str:
        return f"{self.prompt_tokens} and {self.completion_tokens} tokens for {self.cost_nano_usd} nano-USD"


@dataclass(frozen=True, slots=True)
class Stream:
    """A row of history.streams. `facts` is None where their bytes are not what the gateway writes."""

    session_id: SessionId
    owner_id: str
    tenant_id: str | None
    kind: str
    request_id: UUID | None
    has_fingerprint: bool
    has_personal_facts: bool
    max_turns: int
    last_seq: int
    fence: int
    rev: int
    acked_rev: int
    active_turn: TurnId | None
    lease_until: datetime | None
    changed_at: datetime
    sealed: bool
    sealed_at: datetime | None
    erased: bool
    salt: bytes | None
    head_digest: bytes
    created_at: datetime
    read_at: datetime
    facts: Facts | None

    @property
    def settled(self) -> bool:
        """Whether every projection is said to have all of it: only then is the session quiet."""
        return self.acked_rev == self.rev


@dataclass(frozen=True, slots=True)
class Turn:
    """A row of history.turns. `usage` is what its record says; None without a record, or with one that is none."""

    turn_id: TurnId
    request_id: UUID
    has_fingerprint: bool
    state: str
    reason: str | None
    fence: int
    base_seq: int
    seq: int | None
    user_text: str | None
    reply_text: str | None
    item_answered: str | None
    item_asked: str | None
    record: bytes | None
    content: bytes | None
    digest: bytes | None
    begun_at: datetime
    committed_at: datetime | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of session.sessions."""

    owner_id: str | None
    tenant_id: str | None
    kind: str | None
    status: str
    applied_seq: int
    head_digest: bytes | None
    plan: str | None
    versions: Mapping[str, str]
    candidate_name: str | None
    metadata: Mapping[str, str] | None
    max_turns: int | None
    created_at: datetime
    completed_at: datetime | None
    erased: bool
    usage: Usage


@dataclass(frozen=True, slots=True)
class Interview:
    """A row of assessment.interviews."""

    plan: str | None
    bank_version: str | None
    applied_seq: int
    head_digest: bytes | None
    asked: Sequence[str]
    completed: bool
    erased: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A row of assessment.answers; `has_words` where it holds quotes from the answer, or a rationale."""

    turn_id: TurnId
    seq: int | None
    item_id: str
    state: str
    has_words: bool


@dataclass(frozen=True, slots=True)
class Account:
    """A row of llm.sessions."""

    erased: bool
    spent_nano_usd: int


@dataclass(frozen=True, slots=True)
class Call:
    """A row of llm.calls."""

    turn_id: TurnId
    purpose: Purpose
    state: str
    fence: int
    attempt: int
    repeats: int
    has_context: bool
    has_result: bool
    has_prompt_hash: bool
    usage: Usage

    @property
    def name(self) -> str:
        return f"{self.turn_id}/{self.purpose}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of llm.attempts. `failed` where an error is recorded: nothing came that could be used."""

    turn_id: TurnId
    purpose: Purpose
    fence: int
    attempt: int
    state: str
    failed: bool
    dispatched_at: datetime
    finished_at: datetime | None
    usage: Usage

    @property
    def gave_a_result(self) -> bool:
        return self.state == "settled" and not self.failed


@dataclass(frozen=True)
class Session:
    """All rows of a session that the ledger has. Each context was read in one snapshot, the ledger's before and after
    the others without having changed; `assessment` was read before `llm`."""

    stream: Stream
    turns: Sequence[Turn] = ()
    entry: Entry | None = None
    interview: Interview | None = None
    answers: Sequence[Answer] = ()
    account: Account | None = None
    calls: Sequence[Call] = ()
    attempts: Sequence[Attempt] = ()

    @property
    def session_id(self) -> SessionId:
        return self.stream.session_id

    @property
    def is_interview(self) -> bool:
        return self.stream.kind == INTERVIEW

    @cached_property
    def committed(self) -> Sequence[Turn]:
        """The ledger: committed turns in the order of their numbers."""
        return sorted((turn for turn in self.turns if turn.state == COMMITTED), key=lambda turn: turn.seq or 0)

    @cached_property
    def ledger(self) -> Mapping[int, Turn]:
        """The committed turns by their numbers."""
        return {turn.seq: turn for turn in self.committed if turn.seq is not None}

    @cached_property
    def calls_made(self) -> Sequence[tuple[Call, Sequence[Attempt]]]:
        """The calls, each with its attempts in the order in which they were made."""
        attempts: dict[tuple[TurnId, Purpose], list[Attempt]] = {}
        for attempt in sorted(self.attempts, key=lambda attempt: (attempt.fence, attempt.attempt)):
            attempts.setdefault((attempt.turn_id, attempt.purpose), []).append(attempt)
        return [(call, attempts.get((call.turn_id, call.purpose), ())) for call in self.calls]

    def folded(self, applied_seq: int) -> Sequence[Turn]:
        """The turns that a projection which stands there has folded."""
        return [turn for turn in self.committed if (turn.seq or 0) <= applied_seq]

    def unsettled_for(self) -> timedelta:
        """How long nobody has settled it, since the last write or the end of a claim's lease; 0 where it is settled."""
        stream = self.stream
        if stream.settled:
            return timedelta()
        due_at = stream.changed_at if stream.lease_until is None else max(stream.changed_at, stream.lease_until)
        return max(timedelta(), stream.read_at - due_at)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A session that contexts hold and the ledger has never heard of."""

    session_id: SessionId
    contexts: Sequence[str]
