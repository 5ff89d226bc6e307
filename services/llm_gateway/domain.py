"""The nouns of the call ledger and the rules that need no clock, database or network.

A *call* is what a turn asks of a model for one purpose; an *attempt* is one request to a provider on its behalf. What a
call is for is a label here: nothing in this context knows what an interview is.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NewType
from uuid import UUID

from libs.runtime.errors import ColloquyError, FieldViolation, InvalidField, Unavailable

SessionId = NewType("SessionId", UUID)
TurnId = NewType("TurnId", UUID)
Purpose = NewType("Purpose", str)
"""`question`, `judge`, `chat`, `prepared/<item>`."""
Fence = NewType("Fence", int)
"""Counts the intents of one call, from 1; whoever holds an older one writes nothing."""
NanoUsd = NewType("NanoUsd", int)
"""Money, in 1e-9 US dollars."""

MAX_CONTEXT_BYTES: Final = 64 * 1024
MAX_OUTPUT_TOKENS: Final = 32_768
MAX_TEXT_CHARS: Final = 200_000
"""What a reply may have: any model's honest output, and less than a gRPC message."""

# Both travel in a header and in labels: printable ASCII without spaces.
_PURPOSE = re.compile(r"(?=.{1,100}\Z)[a-z][a-z0-9_]*(/[!-~]+)?")
_VERSION = re.compile(r"[!-~]{1,100}")


@dataclass(frozen=True, slots=True)
class CallKey:
    """What makes two requests one call."""

    session_id: SessionId
    turn_id: TurnId
    purpose: Purpose

    def __str__(self) -> str:
        return f"{self.session_id}/{self.turn_id}/{self.purpose}"

    @property
    def well_formed(self) -> bool:
        """Whether there can be such a call."""
        return _PURPOSE.fullmatch(self.purpose) is not None

    @property
    def kind(self) -> str:
        """The purpose without its item, so that metrics have few labels."""
        return self.purpose.partition("/")[0]


class Role(StrEnum):
    """Who speaks, in the provider's words."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt; `role` None is one that the request left out."""

    role: Role | None
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything that a provider is told; `json_schema` is JSON text, empty for a reply in free text."""

    messages: tuple[Message, ...]
    version: str
    max_output_tokens: int
    temperature: float | None = None
    json_schema: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A call that somebody wants made: it is, unless one with this key has been, or is being.

    `max_repeats` bounds how often the call may have been repeated, by whomever; None for any number.

    Raises:
        InvalidField: naming every field that breaks a rule.
    """

    key: CallKey
    prompt: Prompt
    context: bytes
    max_repeats: int | None = None

    def __post_init__(self) -> None:
        if violations := [*self._violations()]:
            raise InvalidField(violations)

    def _violations(self) -> Iterator[FieldViolation]:
        prompt = self.prompt
        if not self.key.well_formed:
            yield FieldViolation("purpose", "Lower case letters, or these and /item; 100 characters at most.")
        if len(self.context) > MAX_CONTEXT_BYTES:
            yield FieldViolation("context", f"At most {MAX_CONTEXT_BYTES} bytes.")
        if self.max_repeats is not None and self.max_repeats < 0:
            yield FieldViolation("max_repeats", "At least 0, or absent.")
        if not prompt.messages:
            yield FieldViolation("prompt.messages", "At least one message.")
        for index, message in enumerate(prompt.messages):
            if message.role is None:
                yield FieldViolation(f"prompt.messages[{index}].role", "Say who speaks.")
        if not _VERSION.fullmatch(prompt.version):
            yield FieldViolation("prompt.version", "1 to 100 printable ASCII characters without spaces.")
        if not 1 <= prompt.max_output_tokens <= MAX_OUTPUT_TOKENS:
            yield FieldViolation("prompt.max_output_tokens", f"1 to {MAX_OUTPUT_TOKENS}.")
        if prompt.temperature is not None and not 0 <= prompt.temperature <= 2:
            yield FieldViolation("prompt.temperature", "0 to 2.")
        if prompt.json_schema and not _is_json_object(prompt.json_schema):
            yield FieldViolation("prompt.json_schema", "A JSON object.")


class CallState(StrEnum):
    """The state of a call. An INFLIGHT one whose lease has ended, and a DONE one that was cleared, read as UNKNOWN."""

    INFLIGHT = "INFLIGHT"
    DONE = "DONE"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class AttemptState(StrEnum):
    """Where an attempt stands: under way; or it ended, and was billed as its usage says, surely not billed, or perhaps
    billed and so counted at its ceiling."""

    DISPATCHED = "dispatched"
    SETTLED = "settled"
    RELEASED = "released"
    UNKNOWN = "unknown"


class Failure(StrEnum):
    """Why an attempt gave no text that can be used."""

    UNREACHABLE = "unreachable"
    """No connection, so nothing was sent."""
    RATE_LIMITED = "rate_limited"
    """429, and 503, by which a server says that it does not take the request now (RFC 9110, 15.6.4)."""
    REFUSED = "refused"
    """Any other status that is no success and no 5xx: a wrong key, model or address, no quota left, a redirect."""
    CONTEXT_LENGTH = "context_length"
    """The prompt is too long for the model."""
    CONTENT = "content"
    """The provider's policy forbids the prompt, or the model declined to answer."""
    SERVER_ERROR = "server_error"
    """Any other 5xx, or an error instead of the rest of a stream: the model may have run."""
    BROKEN = "broken"
    """The connection was lost after the request had been sent, or what came is not a completion."""
    TIMEOUT = "timeout"
    """The call's time ended first."""
    LOST = "lost"
    """Its process died or was cut off: the lease ended without a word."""
    EMPTY = "empty"
    """A completion without text, or with far too much."""
    NOT_JSON = "not_json"
    """A schema was given and the text is not JSON."""

    @property
    def may_be_billed(self) -> bool:
        """Whether the model may have run, although no completion came. A completion is always billed."""
        return self in _MAY_BE_BILLED

    @property
    def passing(self) -> bool:
        """Whether another attempt, at once or after the wait that was asked for, may succeed."""
        return self in _PASSING


_MAY_BE_BILLED: Final = frozenset({Failure.SERVER_ERROR, Failure.BROKEN, Failure.TIMEOUT, Failure.LOST})
_PASSING: Final = frozenset(
    {
        Failure.UNREACHABLE,
        Failure.RATE_LIMITED,
        Failure.SERVER_ERROR,
        Failure.BROKEN,
        Failure.EMPTY,
        Failure.NOT_JSON,
    }
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What was consumed; tokens are those of settled attempts, the cost that of all."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: NanoUsd = NanoUsd(0)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a provider answered. Token counts are None where it did not tell."""

    text: str
    finish_reason: str
    model: str
    declined: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended; `status` is HTTP's, None where there was none, and `usage` what it is charged with."""

    state: AttemptState
    usage: Usage
    status: int | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """The ledger's entry of one call.

    `fence` is its last intent's, `attempt` that one's last. `failure` says why a FAILED or UNKNOWN call ended; it is
    None while INFLIGHT, and after a lease that ended without a word. `cleared`: its result and its context are gone.
    `duration_ms` is from dispatch to the result, all attempts included, 0 before it.
    """

    key: CallKey
    fence: Fence
    attempt: int
    state: CallState
    context: bytes
    text: str
    usage: Usage
    finish_reason: str
    prompt_version: str
    model: str
    repeats: int
    lease_left_ms: int
    duration_ms: int
    cleared: bool = False
    failure: Failure | None = None

    @property
    def end(self) -> str:
        """What an ended call came to, in the word of the metric: `done`, `failed`, `unknown`, `lost` or `cleared`."""
        if self.cleared:
            return "cleared"
        lost = self.state is CallState.UNKNOWN and self.failure is None
        return "lost" if lost else self.state.lower()

    def may_be_repeated(self, offer: Offer) -> bool:
        """Whether an offer for this call, FAILED or UNKNOWN, makes it anew."""
        return offer.max_repeats is None or self.repeats < offer.max_repeats


def flaw_of(completion: Completion, prompt: Prompt) -> Failure | None:
    """Why a completion cannot be the result of its call; whether it makes sense is for the caller to judge."""
    if completion.declined:
        return Failure.CONTENT
    if not completion.text.strip():
        return Failure.CONTENT if completion.finish_reason == "content_filter" else Failure.EMPTY
    if len(completion.text) > MAX_TEXT_CHARS:
        return Failure.EMPTY
    return Failure.NOT_JSON if prompt.json_schema and not _is_json(completion.text) else None


def error_of(failure: Failure | None, retry_after_ms: int | None = None) -> ColloquyError:
    """What a caller is told about a call that gave no result."""
    if failure is Failure.CONTEXT_LENGTH:
        return InvalidField([FieldViolation("prompt.messages", "Too long for the model.")])
    if failure is Failure.CONTENT:
        return InvalidField([FieldViolation("prompt.messages", "Refused by the model or its provider's policy.")])
    return Unavailable(
        "The model gave no usable answer; the call may be asked for again.", retry_after_ms=retry_after_ms
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@lru_cache(maxsize=64)  # a schema comes with every call of its purpose, and holds nothing of anybody
def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
