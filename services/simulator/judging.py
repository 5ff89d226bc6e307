"""Scores an answer by simple rules, so that an interview without a real model still measures something.

The rules, all deterministic:

1. An answer that is blank, or hedges ("I don't know", "no idea", "never used" ...) in fewer than 15 words, gets the
   lowest level.
2. Otherwise the score is 0.5 x length + 0.5 x coverage - 0.2 for each hedge (two at most), kept within 0 and 1. Length
   is the number of different words over 40; coverage is the number of rubric terms that the answer mentions over 6;
   each is at most 1. A rubric term is a word of 4 letters or more in an anchor above the lowest level, compared by its
   first 5 letters so that "index" meets "indexes".
3. The levels of the rubric, or 0 to 4 where the prompt has none, share the scores evenly: of five levels the highest
   begins at 0.8.
4. Quotes are the two sentences with the most rubric terms, else the longest sentence, else all of the answer; cut out
   of it exactly, and at most 160 bytes of UTF-8 each, which bounds their tokens in any script. Only a blank answer has
   none.
5. Confidence is 0.9 under rule 1, else 0.6 at the border between two levels, rising to 0.9 in the middle of one.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.simulator.json_schema import Json

_HEDGE = re.compile(
    r"\b(?:i (?:do not|don['’]?t) (?:really )?know|no idea|not (?:really )?sure|never (?:used|heard|done|had)"
    r"|can(?:not|['’]?t) (?:say|remember|recall)|i guess|no clue)\b|^\W*(?:pass|skip|next)\W*$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_COMMON = frozenset(
    _WORD.findall("with from that this have does what when which into their them they only without about some")
)

_MIN_TERM_LETTERS = 4
_STEM_LETTERS = 5
_NON_ANSWER_WORDS = 15
_FULL_LENGTH_WORDS = 40
_FULL_COVERAGE_TERMS = 6
_HEDGE_COST = 0.2
_MAX_HEDGES = 2
_MAX_QUOTES = 2
_MAX_QUOTE_BYTES = 160
_SURE = 0.9
_UNSURE = 0.6


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement; `quotes` are exact parts of the answer, `confidence` lies within 0 and 1."""

    level: int
    quotes: tuple[str, ...]
    rationale: str
    confidence: float

    def named(self) -> dict[str, Json]:
        """Return the values under the names that a schema may ask for."""
        return {
            "level": self.level,
            "quotes": list(self.quotes),
            "rationale": self.rationale,
            "confidence": self.confidence,
        }


def judge(answer: str, rubric: Mapping[int, str]) -> Verdict:
    """Judge `answer` against the anchors by level; an empty rubric means the levels 0 to 4 without terms."""
    levels = sorted(rubric) or list(range(5))
    terms = _terms(tuple(rubric[level] for level in levels[1:] if level in rubric))
    quotes = _quotes(answer, terms)
    if is_non_answer(answer):
        return Verdict(levels[0], quotes, "Simulated: no answer was attempted.", _SURE)

    words = _WORD.findall(answer.lower())
    hedges = len(_HEDGE.findall(answer))
    different = len(set(words))
    hits = len(terms & {_stem(word) for word in words})
    length, coverage = min(1.0, different / _FULL_LENGTH_WORDS), min(1.0, hits / _FULL_COVERAGE_TERMS)
    score = max(0.0, 0.5 * length + 0.5 * coverage - _HEDGE_COST * min(hedges, _MAX_HEDGES))
    at = min(len(levels) - 1, int(score * len(levels)))
    centred = 1 - abs(2 * (score * len(levels) - at) - 1)
    return Verdict(
        level=levels[at],
        quotes=quotes,
        rationale=f"Simulated: {different} different words, {hits} terms of the rubric, {hedges} hedges.",
        confidence=round(_UNSURE + (_SURE - _UNSURE) * max(0.0, centred), 2),
    )


def is_non_answer(answer: str) -> bool:
    """Tell whether rule 1 applies: nothing was said, or little more than that nothing is known."""
    words = len(_WORD.findall(answer))
    return not words or (words < _NON_ANSWER_WORDS and _HEDGE.search(answer) is not None)


@functools.lru_cache(maxsize=1024)
def _terms(anchors: tuple[str, ...]) -> frozenset[str]:
    words = (word for anchor in anchors for word in _WORD.findall(anchor.lower()))
    return frozenset(_stem(word) for word in words if len(word) >= _MIN_TERM_LETTERS and word not in _COMMON)


def _stem(word: str) -> str:
    return word[:_STEM_LETTERS]


def _quotes(answer: str, terms: frozenset[str]) -> tuple[str, ...]:
    sentences = [sentence for match in _SENTENCE.finditer(answer) if (sentence := match[0].strip())]
    hits = [len(terms & {_stem(word) for word in _WORD.findall(sentence.lower())}) for sentence in sentences]
    best = sorted(range(len(sentences)), key=lambda at: hits[at], reverse=True)[:_MAX_QUOTES]
    telling = sorted(at for at in best if hits[at])
    if telling:
        return tuple(_cut(sentences[at]) for at in telling)
    longest = max(sentences, key=len, default=answer.strip())
    return (_cut(longest),) if longest else ()


def _cut(passage: str) -> str:
    encoded = passage.encode("utf-8", "surrogatepass")
    if len(encoded) <= _MAX_QUOTE_BYTES:
        return passage
    head = encoded[:_MAX_QUOTE_BYTES].decode("utf-8", "ignore")
    return head.rpartition(" ")[0].rstrip() or head
