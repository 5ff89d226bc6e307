"""A judge's verdict: read strictly, checked against the answer, and turned into a score.

What a model returns is untrusted, and so is the answer it read, which may address the judge. Therefore a verdict can
only name a level that the item has, and it must show its evidence: quotes that stand in the answer word for word.
Reasons of rejection name fields and counts, never what the candidate or the model said, because they go to logs.
"""

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.assessment.domain import Level, Score

MAX_VERDICT_CHARS = 16_384
MAX_QUOTES = 3
MAX_RATIONALE_CHARS = 1_000
MIN_QUOTE_LETTERS = 3

# The standard error of a reported level, in levels, as independent parts whose squares add up. The first is what
# remains between careful raters of a behaviourally anchored rubric: 0.45 levels make the report exact about six
# times in seven. A judge without any confidence, a misquotation, a turn that was degraded each add theirs.
RATER_ERROR = 0.45
DOUBT_ERROR = 1.2
MISQUOTE_ERROR = 0.6
DEGRADED_ERROR = 0.6


class RejectionReason(StrEnum):
    """Why a verdict cannot be used. All are worth another call; none is the candidate's fault."""

    NOT_JSON = "not_json"
    WRONG_SHAPE = "wrong_shape"
    LEVEL_OUT_OF_RANGE = "level_out_of_range"
    CONFIDENCE_OUT_OF_RANGE = "confidence_out_of_range"
    RATIONALE_UNUSABLE = "rationale_unusable"
    QUOTES_NOT_IN_ANSWER = "quotes_not_in_answer"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A verdict that was refused; `detail` is safe for logs."""

    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict that holds. `quotes` are substrings of the answer's NFC form; `misquotes` counts those that were
    not."""

    level: Level
    quotes: tuple[str, ...]
    misquotes: int
    rationale: str
    confidence: float


def read_verdict(text: str, *, top_level: Level, answer: str, shown: str | None = None) -> Verdict | Rejection:
    """Read a judge's reply to one answer.

    `answer` is what the candidate wrote. `shown` is the form in which the judge read it where single characters had
    to be replaced: character for character as long as the answer's NFC form (ValueError otherwise). A quote may stand
    in either; what is kept is always the candidate's own text.

    The reply must be one JSON object of exactly the four fields, without duplicates. Every distinct quote is looked
    up; one that is not in the answer is dropped, and unless more than half of them hold the verdict is rejected.
    """
    parsed = _strict_json(text)
    if isinstance(parsed, Rejection):
        return parsed
    match parsed:
        case {
            "level": int(level),
            "quotes": list(quotes),
            "rationale": str(rationale),
            "confidence": int(confidence) | float(confidence),
            **others,
        } if not (others or isinstance(level, bool) or isinstance(confidence, bool)):
            pass
        case _:
            return Rejection(RejectionReason.WRONG_SHAPE, "not an object of exactly the four fields with their types")
    if not (1 <= len(quotes) <= MAX_QUOTES and all(isinstance(quote, str) for quote in quotes)):
        return Rejection(RejectionReason.WRONG_SHAPE, f"quotes is not a list of 1 to {MAX_QUOTES} texts")
    if not 0 <= level <= top_level:
        return Rejection(RejectionReason.LEVEL_OUT_OF_RANGE, f"level is not within 0..{top_level}")
    if not 0 <= confidence <= 1:
        return Rejection(RejectionReason.CONFIDENCE_OUT_OF_RANGE, "confidence is not within 0..1")
    if not _usable_rationale(rationale):
        return Rejection(RejectionReason.RATIONALE_UNUSABLE, "rationale is blank, too long, or not storable text")
    evidence = _evidence(quotes, answer, answer if shown is None else shown)
    if isinstance(evidence, Rejection):
        return evidence
    held, misquotes = evidence
    return Verdict(Level(level), held, misquotes, rationale.strip(), float(confidence))


def score_of(verdict: Verdict, *, degraded: bool = False) -> Score:
    """The score that a verdict is worth: its level, and a standard error that grows with every reason for doubt.

    `degraded` says that the turn of the answer, or its judging, did not go the usual way.
    """
    doubt = (1 - verdict.confidence) * DOUBT_ERROR
    misquoted = MISQUOTE_ERROR if verdict.misquotes else 0.0
    return Score(verdict.level, math.hypot(RATER_ERROR, doubt, misquoted, DEGRADED_ERROR if degraded else 0.0))


def _strict_json(text: str) -> object:
    """The parsed text, or a Rejection."""
    if len(text) > MAX_VERDICT_CHARS:
        return Rejection(RejectionReason.NOT_JSON, f"longer than {MAX_VERDICT_CHARS} characters")
    try:
        parsed: object = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Rejection(RejectionReason.NOT_JSON, "not strict JSON")
    return parsed


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a field occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _usable_rationale(rationale: str) -> bool:
    # PostgreSQL's text holds neither NUL nor a lone surrogate, and JSON can carry both.
    storable = "\0" not in rationale and not any("\ud800" <= character <= "\udfff" for character in rationale)
    return bool(rationale.strip()) and len(rationale) <= MAX_RATIONALE_CHARS and storable


def _evidence(quotes: Sequence[str], answer: str, shown: str) -> tuple[tuple[str, ...], int] | Rejection:
    spoken, seen = unicodedata.normalize("NFC", answer), unicodedata.normalize("NFC", shown)
    if len(spoken) != len(seen):
        raise ValueError("the answer as shown must be as long as the answer")
    distinct = tuple(dict.fromkeys(unicodedata.normalize("NFC", quote).strip() for quote in quotes))
    held = tuple(found for quote in distinct if (found := _find(quote, spoken, seen)) is not None)
    if 2 * len(held) <= len(distinct):
        return Rejection(RejectionReason.QUOTES_NOT_IN_ANSWER, f"{len(held)} of {len(distinct)} quotes hold")
    return held, len(distinct) - len(held)


def _find(quote: str, spoken: str, seen: str) -> str | None:
    """The part of `spoken` that a quote repeats. Scraps that stand in any answer prove nothing, unless they are all
    of it."""
    substantial = sum(character.isalnum() for character in quote) >= MIN_QUOTE_LETTERS
    if not quote or not (substantial or quote == spoken.strip()):
        return None
    at = spoken.find(quote)
    if at < 0:
        at = seen.find(quote)
    return spoken[at : at + len(quote)] if at >= 0 else None
