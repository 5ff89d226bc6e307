"""What a caller may ask for: each command checks its fields once, when it is made, and names every one at fault.

A violation names the field as a client of the contract knows it. Bounds of a message are the outer contract's; those of
names and lists keep a mistake from becoming a row.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from libs.runtime.errors import FieldViolation, InvalidField, Reason
from services.history.domain import ClaimId, Kind, OwnerId, RequestId, SessionId, TurnState, WindowLimit

MAX_MESSAGE_CODE_POINTS: Final = 2_000
MAX_REPLY_CODE_POINTS: Final = 16_000
MAX_NAME_CODE_POINTS: Final = 256
MAX_WINDOW_MESSAGES: Final = 200
MAX_TURNS_LISTED: Final = 200
MAX_STREAMS_READ: Final = 200
MAX_STREAMS_ACKNOWLEDGED: Final = 500


@dataclass(frozen=True, slots=True)
class Viewer:
    """On whose behalf a stream is read: only what is theirs, and of this kind (None: any), can be seen.

    Raises:
        InvalidField: the owner cannot be one.
    """

    owner_id: OwnerId
    any_owner: bool
    kind: Kind | None

    def __post_init__(self) -> None:
        refuse(_name("owner_id", self.owner_id))


@dataclass(frozen=True, slots=True)
class NewStream:
    """A stream to be opened.

    Raises:
        InvalidField: naming every field that breaks a rule.
    """

    session_id: SessionId
    viewer: Viewer
    tenant_id: str
    kind: Kind | None
    request_id: RequestId
    fingerprint: bytes
    facts: bytes
    personal_facts: bytes
    max_turns: int
    min_interval_ms: int
    lease_ms: int
    claim_id: ClaimId
    with_opening: bool

    def __post_init__(self) -> None:
        refuse(
            () if self.kind else [FieldViolation("kind", "must be given")],
            () if self.viewer.owner_id else [FieldViolation("owner_id", "must not be empty")],
            _name("tenant_id", self.tenant_id),
            _at_least(1, "max_turns", self.max_turns),
            _at_least(0, "min_interval_ms", self.min_interval_ms),
            _at_least(1, "lease_ms", self.lease_ms),
        )


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A message that is offered to a session. `in_reply_to` is the seq it replies to, None where that is not said.

    Raises:
        InvalidField: naming every field that breaks a rule.
    """

    session_id: SessionId
    viewer: Viewer
    request_id: RequestId
    claim_id: ClaimId
    text: str
    in_reply_to: int | None
    window: WindowLimit

    def __post_init__(self) -> None:
        refuse(
            message_violations(self.text),
            _at_least(0, "in_reply_to", self.in_reply_to or 0),
            _within(0, MAX_WINDOW_MESSAGES, "window.max_messages", self.window.max_messages),
            _at_least(0, "window.max_tokens", self.window.max_tokens),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a commit adds to a turn. `item_asked` is empty where nothing is asked; `final` closes the session.

    Raises:
        InvalidField: naming every field that breaks a rule.
    """

    text: str
    record: bytes
    item_asked: str
    final: bool

    def __post_init__(self) -> None:
        refuse(
            _within(1, MAX_REPLY_CODE_POINTS, "reply_text", len(self.text), " code points"),
            _storable("reply_text", self.text),
            _name("item_asked", self.item_asked),
        )


@dataclass(frozen=True, slots=True)
class Release:
    """How a claim is given back: ABANDONED, or FAILED for what can never change.

    Raises:
        InvalidField: naming every field that breaks a rule.
    """

    state: TurnState | None
    reason: str

    def __post_init__(self) -> None:
        refuse(
            ()
            if self.state in {TurnState.ABANDONED, TurnState.FAILED}
            else [FieldViolation("state", "must be ABANDONED or FAILED")],
            () if self.reason in Reason.__members__ else [FieldViolation("reason", "must be a reason of the contract")],
        )


@dataclass(frozen=True, slots=True)
class TurnRange:
    """Committed turns with after_seq < seq < before_seq (0: no bound), the oldest `max_turns` or the newest.

    Raises:
        InvalidField: naming every field that breaks a rule.
    """

    after_seq: int
    before_seq: int
    max_turns: int
    newest: bool

    def __post_init__(self) -> None:
        refuse(
            _at_least(0, "after_seq", self.after_seq),
            _at_least(0, "before_seq", self.before_seq),
            _within(1, MAX_TURNS_LISTED, "max_turns", self.max_turns),
        )

    def bounds(self, last_seq: int) -> tuple[int, int]:
        """The first and the last seq of the range in a ledger that, being dense (I1), holds 1..last_seq."""
        first = self.after_seq + 1
        last = min(last_seq, self.before_seq - 1) if self.before_seq else last_seq
        if self.newest:
            return max(first, last - self.max_turns + 1), last
        return first, min(last, first + self.max_turns - 1)


# What shows nothing: white space; control characters; Unicode's Default_Ignorable_Code_Point (soft hyphen, joiners,
# bidi controls, Hangul and Khmer fillers, variation selectors, tags: DerivedCoreProperties.txt); and, though not in
# that list, the blank braille pattern, interlinear annotation marks and the null notehead.
_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff]*"
)
# One code point of NFC stands for at most four as written: U+1F82 and its decomposition, a letter with three marks.
_MAX_WRITTEN_PER_NFC = 4


def message_violations(text: str) -> Iterator[FieldViolation]:
    """Every rule that a candidate's or user's message breaks. Its length counts after NFC; it is stored as written."""
    yield from _storable("text", text)
    if _INVISIBLE.fullmatch(text):
        yield FieldViolation("text", "must hold something that can be seen")
    if _is_too_long(text):
        yield FieldViolation("text", f"must be at most {MAX_MESSAGE_CODE_POINTS} code points after NFC")


def _is_too_long(text: str) -> bool:
    """Whether more than MAX_MESSAGE_CODE_POINTS stay after NFC, without normalising what cannot be short enough.

    Normalising sorts each run of combining marks in quadratic time: 50 ms for 8,000 of them. A starter takes up three
    marks at most, so the others of its run count as they are.
    """
    if len(text) > MAX_MESSAGE_CODE_POINTS:
        marks = left = 0
        for character in text[: MAX_MESSAGE_CODE_POINTS * _MAX_WRITTEN_PER_NFC]:
            marks = marks + 1 if unicodedata.combining(character) else 0
            left += marks >= _MAX_WRITTEN_PER_NFC
        if max(left, len(text) / _MAX_WRITTEN_PER_NFC) > MAX_MESSAGE_CODE_POINTS:
            return True
    return len(unicodedata.normalize("NFC", text)) > MAX_MESSAGE_CODE_POINTS


def refuse(*violations: Iterable[FieldViolation]) -> None:
    """Raise one InvalidField with all violations, if there are any."""
    found = [violation for group in violations for violation in group]
    if found:
        raise InvalidField(found)


def at_most(limit: int, field: str, values: Sequence[object]) -> None:
    """Refuse a list that is too long."""
    refuse([] if len(values) <= limit else [FieldViolation(field, f"must be at most {limit}")])


def _storable(field: str, text: str) -> Iterator[FieldViolation]:
    """PostgreSQL's text holds neither NUL nor half of a surrogate pair."""
    if "\0" in text:
        yield FieldViolation(field, "must not hold NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        yield FieldViolation(field, "must not hold lone surrogates")


def _name(field: str, name: str) -> Iterator[FieldViolation]:
    yield from _storable(field, name)
    yield from _within(0, MAX_NAME_CODE_POINTS, field, len(name), " code points")


def _at_least(least: int, field: str, value: int) -> Iterator[FieldViolation]:
    if value < least:
        yield FieldViolation(field, f"must be at least {least}")


def _within(least: int, most: int, field: str, value: int, unit: str = "") -> Iterator[FieldViolation]:
    if not least <= value <= most:
        yield FieldViolation(field, f"must be {least} to {most}{unit}")
