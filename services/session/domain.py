"""What a session is to the directory: whose, of which kind, opened when and how, and what it used so far.

Values only; nothing here reads a clock or a database. Violations name the field as the contract does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType
from uuid import UUID

from libs.runtime.errors import FieldViolation, InvalidField

SessionId = NewType("SessionId", UUID)
OwnerId = NewType("OwnerId", str)
NanoUsd = NewType("NanoUsd", int)
"""Money, in 1e-9 US dollars."""

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
