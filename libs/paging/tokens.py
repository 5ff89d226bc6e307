"""Page tokens: the place in a list where a page ended, opaque to whoever hands it back for the next.

A list is in the order of a moment, and of ids where moments are equal, so that a place is the same whatever has been
inserted or removed meanwhile. What the moment is, and which way the list runs, is the list's own.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from libs.runtime.errors import FieldViolation, InvalidField

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MOMENT_BYTES, _ID_BYTES = 8, 16


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a list; `moment` is in UTC."""

    moment: datetime
    ids: tuple[UUID, ...]


def encode(place: Place) -> str:
    """Microseconds since 1970 in 8 bytes, each id in 16, as base64."""
    microseconds = (place.moment - _EPOCH) // _MICROSECOND
    moment = microseconds.to_bytes(_MOMENT_BYTES, "big", signed=True)
    return urlsafe_b64encode(b"".join([moment, *(each.bytes for each in place.ids)])).decode()


def decode(token: str, ids: int) -> Place:
    """The place of a token of a list with so many ids.

    Raises:
        InvalidField: `page_token` is none of them.
    """
    try:
        key = urlsafe_b64decode(token)
        moment = _EPOCH + int.from_bytes(key[:_MOMENT_BYTES], "big", signed=True) * _MICROSECOND
        starts = range(_MOMENT_BYTES, len(key), _ID_BYTES)
        place = Place(moment, tuple(UUID(bytes=key[start : start + _ID_BYTES]) for start in starts))
        if len(place.ids) != ids or encode(place) != token:  # decoding forgives what is not base64
            raise ValueError
    except (ValueError, OverflowError):
        raise InvalidField([FieldViolation("page_token", "Not a token of this list.")]) from None
    return place
