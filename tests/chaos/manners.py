"""How clients behave, and what they say: drawn from their own seed."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from tests.bench.answers import answers

CHAT_SHARE = 0.2
TURNS = (3, 12)
"""Of one conversation, at least and at most."""
NAMES_LAST_SHARE = 0.2
"""Messages that say which turn they reply to."""

# What a text may have that a careless copy would lose: composed and decomposed, right to left, outside the BMP, spaces.
_ENDINGS = (
    "",
    "",
    "",
    " – naïve café",
    " e\u0301 is not é",
    " שלום",
    " 🙂\U0001f3fd",
    "  two  spaces ",
    "\tand\r\nlines",
)


class Manner(Enum):
    """What a client does with one message."""

    PLAIN = auto()
    """Sends it and waits."""
    STREAMED = auto()
    """Sends it and reads along."""
    TWICE = auto()
    """Sends it twice at once."""
    RETURNS = auto()
    """Leaves after sending, and asks again a moment later."""
    LATE = auto()
    """Leaves, says the next thing first, and asks for the old answer then."""
    LEAVES = auto()
    """Leaves once the message is accepted and never asks again."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How often a client does what, as weights, and for how long it asks for one answer."""

    weights: Mapping[Manner, int]
    patience_seconds: float = 60.0

    def next(self, randomness: random.Random) -> Manner:
        """What becomes of the next message."""
        return randomness.choices(list(self.weights), list(self.weights.values()))[0]


ALL_SORTS = Habits(
    {
        Manner.PLAIN: 50,
        Manner.STREAMED: 12,
        Manner.TWICE: 16,
        Manner.RETURNS: 14,
        Manner.LATE: 3,
        Manner.LEAVES: 5,
    }
)
"""What clients do. Their patience is twice the time in which everything is quiet again."""
FAITHFUL = Habits({Manner.PLAIN: 3, Manner.STREAMED: 1})
"""They wait, and ask again with the same id."""
ONCE = Habits(FAITHFUL.weights, patience_seconds=0.0)
"""They do not ask again."""


def sayings(seed: int) -> Iterator[str]:
    """Messages without end, each of them unlike any other of any seed."""
    randomness = random.Random(seed)
    for number, text in enumerate(answers(seed)):
        yield f"{text} ({seed}/{number}){randomness.choice(_ENDINGS)}"
