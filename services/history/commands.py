"""What a caller may ask for: each command checks its fields once, when it is made, and names every one at fault.

A violation names the field as a client of the contract knows it. Bounds of a message are the outer contract's; those of
names and lists keep a mistake from becoming a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from libs.messages.text import message_violations, storable
from libs.runtime.errors import FieldViolation, InvalidField, Reason
from services.history.domain import ClaimId, Kind, OwnerId, RequestId, SessionId, TurnState, WindowLimit

MAX_REPLY_CODE_POINTS: Final = 16_000
MAX_NAME_CODE_POINTS: Final = 256
MAX_WINDOW_MESSAGES: Final = 200
MAX_TURNS_LISTED: Final = 200
MAX_BYTES_LISTED: Final = 192 * 1024  # gRPC messages hold 256 KiB (interfaces.md)
MAX_STREAMS_READ: Final = 200
MAX_STREAMS_ACKNOWLEDGED: Final = 500
MAX_STREAMS_UNSETTLED: Final = 500
MAX_TURNS_READ: Final = 500


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
            message_violations("text", self.text),
            _at_least(0, "in_reply_to", self.in_reply_to or 0),
            within(0, MAX_WINDOW_MESSAGES, "window.max_messages", self.window.max_messages),
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
            within(1, MAX_REPLY_CODE_POINTS, "reply_text", len(self.text), " code points"),
            storable("reply_text", self.text),
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
            within(1, MAX_TURNS_LISTED, "max_turns", self.max_turns),
        )

    def bounds(self, last_seq: int) -> tuple[int, int]:
        """The first and the last seq of the range in a ledger that, being dense (I1), holds 1..last_seq."""
        first = self.after_seq + 1
        last = min(last_seq, self.before_seq - 1) if self.before_seq else last_seq
        if self.newest:
            return max(first, last - self.max_turns + 1), last
        return first, min(last, first + self.max_turns - 1)


@dataclass(frozen=True, slots=True)
class UnsettledRange:
    """Unsettled streams beyond `after_session_id`, at most `max_streams`, none that changed within `min_age_ms`.

    Raises:
        InvalidField: naming every field that breaks a rule.
    """

    after_session_id: SessionId
    max_streams: int
    min_age_ms: int

    def __post_init__(self) -> None:
        refuse(
            within(1, MAX_STREAMS_UNSETTLED, "max_streams", self.max_streams),
            _at_least(0, "min_age_ms", self.min_age_ms),
        )


def refuse(*violations: Iterable[FieldViolation]) -> None:
    """Raise one InvalidField with all violations, if there are any."""
    found = [violation for group in violations for violation in group]
    if found:
        raise InvalidField(found)


def at_most(limit: int, field: str, values: Sequence[object]) -> None:
    """Refuse a list that is too long."""
    refuse([] if len(values) <= limit else [FieldViolation(field, f"must name at most {limit}")])


def _name(field: str, name: str) -> Iterator[FieldViolation]:
    yield from storable(field, name)
    yield from within(0, MAX_NAME_CODE_POINTS, field, len(name), " code points")


def _at_least(least: int, field: str, value: int) -> Iterator[FieldViolation]:
    if value < least:
        yield FieldViolation(field, f"must be at least {least}")


def within(least: int, most: int, field: str, value: int, unit: str = "") -> Iterator[FieldViolation]:
    """Refuse a number out of bounds."""
    if not least <= value <= most:
        yield FieldViolation(field, f"must be {least} to {most}{unit}")
