"""What an OpenAI-compatible provider answers, read as what it means for a call.

https://platform.openai.com/docs/api-reference/chat. Providers that are only compatible leave out or add fields, so
nothing is taken for granted: what has another type than documented counts as absent.
"""

import email.utils
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import openai
import orjson

from services.llm_gateway.domain import Completion, Failure

_CONTENT_CODES: Final = frozenset({"content_filter", "content_policy_violation", "invalid_prompt"})
_LENGTH_CODES: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_LENGTH_WORDS: Final = "maximum context length"  # servers of vLLM's kind have no code for it
_MAX_RETRY_AFTER_MS: Final = 3_600_000


class ProviderError(Exception):
    """An attempt that gave no completion; `status` is HTTP's where there was one.

    `retry_after_ms` is the wait that the provider asked for, None where it asked for none.
    """

    def __init__(self, failure: Failure, status: int | None = None, retry_after_ms: int | None = None) -> None:
        self.failure, self.status, self.retry_after_ms = failure, status, retry_after_ms
        super().__init__(failure.value)


class Reply:
    """A completion as it comes in: whole, or in the chunks of a stream."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._usage: Mapping[str, Any] = {}
        self._model = ""
        self._declined = False
        self._finish_reason = ""

    def read(self, data: bytes, part: str) -> str:
        """Take in a `chat.completion` (its `part` is `message`) or a chunk (`delta`); returns the text that it brings.

        Raises:
            ProviderError: it is not one, or it is an error.
        """
        try:
            fields = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise ProviderError(Failure.BROKEN) from None
        if not isinstance(fields, dict):
            raise ProviderError(Failure.BROKEN)
        if error := fields.get("error"):
            raise ProviderError(_failure_of(error) or Failure.SERVER_ERROR)
        self._model = _text(fields, "model") or self._model
        self._usage = _object(fields, "usage") or self._usage
        choices = fields.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        return self._read_choice(choice, part) if isinstance(choice, dict) else ""

    def end(self) -> None:
        """The stream says itself that it is complete: not all servers give a reason for it."""
        self._finish_reason = self._finish_reason or "stop"

    @property
    def is_whole(self) -> bool:
        """Whether all of it that counts has been read: its text and why it ends there."""
        return bool(self._finish_reason)

    def completion(self) -> Completion:
        """What has been read.

        Raises:
            ProviderError: it was cut off.
        """
        if not self.is_whole:
            raise ProviderError(Failure.BROKEN)
        return Completion(
            "".join(self._texts),
            self._finish_reason,
            self._model,
            self._declined,
            _count(self._usage, "prompt_tokens"),
            _count(self._usage, "completion_tokens"),
        )

    def _read_choice(self, choice: Mapping[str, Any], part: str) -> str:
        self._finish_reason = _text(choice, "finish_reason") or self._finish_reason
        message = _object(choice, part)
        self._declined = self._declined or bool(_text(message, "refusal"))
        if text := _text(message, "content"):
            self._texts.append(text)
        return text


def refusal(error: openai.APIStatusError) -> ProviderError:
    """What a status that is no success means."""
    status, code = error.status_code, {error.code, error.type}
    failure = _failure_of(error.body)
    if failure is None:
        if status in (429, 503) and "insufficient_quota" not in code:
            failure = Failure.RATE_LIMITED
        elif status >= 500 or status == 408:
            failure = Failure.SERVER_ERROR
        else:
            failure = Failure.CONTEXT_LENGTH if status == 413 else Failure.REFUSED
    return ProviderError(failure, status, _retry_after_ms(error.response.headers))


def disconnection(error: Exception) -> ProviderError:
    """What a connection that could not be made, or broke, means."""
    never_made = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return ProviderError(Failure.UNREACHABLE if never_made else Failure.BROKEN)


def _failure_of(error: object) -> Failure | None:
    """What the fields of an error object tell beyond its status."""
    if not isinstance(error, dict):
        return None
    codes = {_text(error, "code"), _text(error, "type")}
    if codes & _LENGTH_CODES or _LENGTH_WORDS in _text(error, "message"):
        return Failure.CONTEXT_LENGTH
    return Failure.CONTENT if codes & _CONTENT_CODES else None


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """RFC 9110, 10.2.3: seconds or a date; `retry-after-ms` is OpenAI's own."""
    for name, factor in (("retry-after-ms", 1), ("retry-after", 1000)):
        try:
            wait_ms = float(headers.get(name, "")) * factor
        except ValueError:
            continue
        if math.isfinite(wait_ms):
            return _within_an_hour(wait_ms)
    try:
        until = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return _within_an_hour((until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds() * 1000)


def _within_an_hour(wait_ms: float) -> int:
    return int(min(max(0.0, wait_ms), _MAX_RETRY_AFTER_MS))


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else ""  # PostgreSQL's text holds no NUL


def _object(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if type(value) is int and 0 <= value < 2**40 else None
