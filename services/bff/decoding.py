"""What a client sent, as typed values: bodies, ids, keys and queries. Shapes only: the rules of what may be said are
history's, and those of a session the gateway's.
"""

import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import orjson

from libs.runtime.errors import FieldViolation, InvalidField, Malformed
from services.bff.exchange import Exchange

MAX_PAGE_SIZE: Final = 200
MAX_SEQ: Final = 2**63 - 1
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SMALL_NUMBER = re.compile(r"[0-9]{1,3}")
_JSON_TYPE = re.compile(r"application/(?:json|[a-z0-9.+_-]+\+json)", re.IGNORECASE)
_UTF8 = re.compile(r"charset=\"?utf-?8\"?", re.IGNORECASE)


class UnsupportedMediaTypeError(Exception):
    """The body is not JSON by its own account. HTTP's own: no other service has media types."""


class Fields:
    """The members of a JSON object, taken one by one; `check` then reports all that were wrong at once.

    An absent member and null are the same. Members that nobody takes are ignored.
    """

    def __init__(self, members: Mapping[str, object]) -> None:
        self._members = members
        self._violations: list[FieldViolation] = []

    def text(self, name: str) -> str:
        """A string that must be there; whether it may be empty is not decided here."""
        if self._members.get(name) is None:
            return self._wrong(name, "must be given")
        return self.optional_text(name)

    def optional_text(self, name: str) -> str:
        """A string, empty where it is absent."""
        value = self._members.get(name)
        if value is None:
            return ""
        return value if isinstance(value, str) else self._wrong(name, "must be a string")

    def optional_seq(self, name: str) -> int | None:
        """The seq of a turn: a whole number from 0, None where it is absent."""
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQ:
            self._wrong(name, "must be a whole number, not below 0")
            return None
        return value

    def optional_pairs(self, name: str) -> dict[str, str]:
        """An object of strings, empty where it is absent."""
        value = self._members.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong(name, "must be an object of strings")
            return {}
        pairs = {key: it for key, it in value.items() if isinstance(key, str) and isinstance(it, str)}
        if len(pairs) != len(value):
            self._wrong(name, "must hold strings only")
        return pairs

    def check(self) -> None:
        """Raises InvalidField naming every member that was wrong."""
        if self._violations:
            raise InvalidField(self._violations)

    def _wrong(self, name: str, message: str) -> str:
        self._violations.append(FieldViolation(name, message))
        return ""


def json_fields(exchange: Exchange) -> Fields:
    """The request's JSON object. No body is an empty object; a body without a content type is taken for JSON.

    Raises:
        TooLarge, Malformed: the body cannot be read, is not JSON (RFC 8259) in UTF-8, or names a member twice.
        InvalidField: it is JSON, but not an object.
        UnsupportedMediaTypeError: its content type is another one.
    """
    body = exchange.body
    if not body:
        return Fields({})
    if not _is_json(exchange.header("content-type")):
        raise UnsupportedMediaTypeError
    try:
        document = orjson.loads(body)  # the strict one: UTF-8, surrogates in pairs, no NaN, a bounded depth
        _TWICE.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise Malformed(f"The body is not readable: {_cause(error)}.") from None
    if not isinstance(document, dict):
        raise InvalidField([FieldViolation("body", "must be a JSON object")])
    return Fields(document)


def uuid_text(value: str, what: str) -> str:
    """A UUID in its one canonical form. Raises Malformed, naming it as `what`."""
    if not _UUID.fullmatch(value):
        raise Malformed(f"{what} is not a UUID.")
    return value.lower()


def session_id(exchange: Exchange) -> str:
    """The id in the path. Raises Malformed."""
    return uuid_text(exchange.scope["path_params"]["id"], "The id in the path")


def idempotency_key(exchange: Exchange) -> str:
    """The Idempotency-Key, a UUID, quoted (as the IETF draft has it) or bare; empty where there is none.

    Raises:
        Malformed: it is not a UUID.
    """
    value = exchange.header("idempotency-key")
    if not value:
        return ""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return uuid_text(value, "The header Idempotency-Key")


def page(exchange: Exchange) -> tuple[int, str]:
    """`page_size` (0 where it is absent) and `page_token` of the query. Raises InvalidField."""
    query = dict(parse_qsl(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    size = query.get("page_size")
    if size is not None and not (_SMALL_NUMBER.fullmatch(size) and 1 <= int(size) <= MAX_PAGE_SIZE):
        raise InvalidField([FieldViolation("page_size", f"must be a whole number from 1 to {MAX_PAGE_SIZE}")])
    return int(size or 0), query.get("page_token", "")


def wants_events(exchange: Exchange) -> bool:
    """Whether the client asks for server-sent events."""
    return "text/event-stream" in exchange.header("accept").lower()


def _is_json(content_type: str) -> bool:
    media_type, _, parameters = content_type.partition(";")
    if not media_type.strip():
        return True
    charset = parameters.strip()
    return bool(_JSON_TYPE.fullmatch(media_type.strip())) and (
        not charset.lower().startswith("charset") or bool(_UTF8.match(charset))
    )


class _MemberTwiceError(ValueError):
    pass


def _without_twins(pairs: list[tuple[str, object]]) -> None:
    """Two parsers may differ on which of two members counts (RFC 8259, section 4), so neither does."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise _MemberTwiceError


_TWICE = json.JSONDecoder(object_pairs_hook=_without_twins)


def _cause(error: Exception) -> str:
    if isinstance(error, _MemberTwiceError):
        return "a member is named twice"
    return "it is not valid JSON in UTF-8"
