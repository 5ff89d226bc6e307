"""The rules of a message's text. Pure functions of the text; a violation names the field as its caller knows it."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from libs.runtime.errors import FieldViolation

MAX_MESSAGE_CODE_POINTS: Final = 2_000

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


def message_violations(field: str, text: str) -> Iterator[FieldViolation]:
    """Every rule that a candidate's or user's message breaks. Its length counts after NFC; it is stored as written."""
    yield from storable(field, text)
    if _INVISIBLE.fullmatch(text):
        yield FieldViolation(field, "must hold something that can be seen")
    if _is_too_long(text):
        yield FieldViolation(field, f"must be at most {MAX_MESSAGE_CODE_POINTS} code points after NFC")


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


def storable(field: str, text: str) -> Iterator[FieldViolation]:
    """PostgreSQL's text holds neither NUL nor half of a surrogate pair."""
    if "\0" in text:
        yield FieldViolation(field, "must not hold NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        yield FieldViolation(field, "must not hold lone surrogates")
