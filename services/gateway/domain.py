"""The rules of a turn's composition: ids, budgets, and the ladder of what may be asked.

Pure functions of values. What is stored or sent is built in `records`; nothing here calls anybody.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from libs.runtime.errors import FieldViolation, InvalidField

COMMIT_RESERVE_MS = 350  # what the commit and the way back need after the models' deadline
PLAN_SHARE_MS = 600  # a plan that is not there by then endangers the budget
LATE_PLAN_MS = 150  # what a plan gets all the same: without it the measurement suffers, not only the wording
CALLER_RESERVE_MS = 50  # what the caller needs to receive the reply
FIRST_DELTA_MS = 2000  # a chat's promise to whoever waits
MAX_REPLY_CODE_POINTS = 8000
MAX_CANDIDATE_NAME = 200
MAX_METADATA_PAIRS = 16
MAX_METADATA_BYTES = 4096


class Degradation(StrEnum):
    """What a candidate did not get; declared in order, the worst first."""

    PLAN = "plan"
    BANK = "bank"


@dataclass(frozen=True, slots=True)
class Item:
    """Something that may be asked, in its own wording."""

    item_id: str
    skill: str
    wording: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What a turn asks: `item`, or nothing, which closes the interview with `closing_text`.

    `alternatives` are the next best items: what to ask if the item is taken, and what the next turn
    falls back on when it gets no plan.
    """

    item: Item | None
    alternatives: tuple[Item, ...]
    closing_text: str
    degraded: tuple[Degradation, ...] = ()

    @property
    def final(self) -> bool:
        return self.item is None

    def own_wording(self) -> str:
        """The text that needs no model."""
        return self.closing_text if self.item is None else self.item.wording

    def without_its_item(self) -> "Choice":
        """The next rung, once the item turned out to be asked already."""
        return replace(self, item=next(iter(self.alternatives), None), alternatives=self.alternatives[1:])

    def marked(self, *marks: Degradation) -> "Choice":
        """The same choice with further degradations, the worst first."""
        present = {*self.degraded, *marks}
        return replace(self, degraded=tuple(mark for mark in Degradation if mark in present))


def choose(items: tuple[Item, ...], closing_text: str, *, base_seq: int, max_turns: int) -> Choice:
    """Ask the first item, unless there is none or the session has no room for its answer: then close."""
    if not items or base_seq + 1 >= max_turns:
        return Choice(None, (), closing_text)
    return Choice(items[0], items[1:], closing_text)


@dataclass(frozen=True, slots=True)
class Budget:
    """The time of one turn, all counted from the arrival of its message.

    total_ms: until the reply must have left; model_ms: until the models may take; plan_ms: until the choice may take.
    """

    total_ms: int
    model_ms: int
    plan_ms: int

    def plan_cap_ms(self, elapsed_ms: float) -> float:
        """What the choice may take from now on: its share, and a little even where the steps before it were slow."""
        return max(self.plan_ms - elapsed_ms, LATE_PLAN_MS)


def budget(kind_ms: int, caller_left_ms: int | None) -> Budget:
    """The smaller of the kind's budget and the caller's deadline less its reserve (interfaces.md, gRPC)."""
    total_ms = kind_ms if caller_left_ms is None else min(kind_ms, caller_left_ms - CALLER_RESERVE_MS)
    model_ms = max(0, total_ms - COMMIT_RESERVE_MS)
    return Budget(max(0, total_ms), model_ms, min(PLAN_SHARE_MS, model_ms))


def session_id_of(owner_id: str, request_id: uuid.UUID) -> uuid.UUID:
    """UUIDv8 (RFC 9562, 5.8) of the owner and the creating request: the same request names the same session."""
    digest = hashlib.sha256(b"colloquy/session/1" + owner_id.encode() + request_id.bytes).digest()
    number = int.from_bytes(digest[:16])
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return uuid.UUID(int=number)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a client asked for when it opened a session.

    Raises:
        InvalidField: with every violated field.
    """

    kind: str
    plan: str
    candidate_name: str
    metadata: Mapping[str, str]

    def __post_init__(self) -> None:
        violations = []
        if self.kind not in ("interview", "chat"):
            violations.append(FieldViolation("kind", "Say whether an interview or a chat is to be opened."))
        if self.kind == "chat" and self.plan:
            violations.append(FieldViolation("plan", "A chat has no plan; leave it out."))
        if len(self.candidate_name) > MAX_CANDIDATE_NAME or "\0" in self.candidate_name:
            violations.append(FieldViolation("candidate_name", f"At most {MAX_CANDIDATE_NAME} characters, and no NUL."))
        pairs = sum(len(name.encode()) + len(value.encode()) for name, value in self.metadata.items())
        if len(self.metadata) > MAX_METADATA_PAIRS or pairs > MAX_METADATA_BYTES:
            violations.append(
                FieldViolation("metadata", f"At most {MAX_METADATA_PAIRS} pairs of strings, 4 KB in all.")
            )
        if any("\0" in name or "\0" in value for name, value in self.metadata.items()):
            violations.append(FieldViolation("metadata", "No NUL in names or values."))
        if violations:
            raise InvalidField(violations)

    def fingerprint(self) -> bytes:
        """sha256 of what was asked for: the same request id with another is refused."""
        asked = [self.kind, self.plan, self.candidate_name, sorted(self.metadata.items())]
        return hashlib.sha256(b"colloquy/opening/1" + json.dumps(asked).encode()).digest()


def usable_reply(text: str) -> str | None:
    """A model's text as it may be said, or None: nothing but space, or far longer than any turn needs."""
    said = text.replace("\0", "").strip()
    return said if said and len(said) <= MAX_REPLY_CODE_POINTS else None
