"""What a client makes of a reply: an answer, a reason to ask again, or an end. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import orjson

REPLAYED = "Idempotency-Replayed"


class Verdict(Enum):
    """What a client does next."""

    ANSWERED = auto()
    """It has what it asked for."""
    AGAIN = auto()
    """The same id is worth another try."""
    NEVER = auto()
    """This id will not be answered, and the reply says why."""


AGAIN = frozenset({"TURN_IN_PROGRESS", "RATE_LIMITED", "UNAVAILABLE", "DEADLINE_EXCEEDED"})
"""The reasons for which the contract calls another try with the same id safe."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, read whole; of a stream its last event, with the status that it would have had otherwise."""

    status: int
    body: bytes
    replayed: bool = False

    @property
    def document(self) -> Mapping[str, Any]:
        document: Mapping[str, Any] = orjson.loads(self.body or b"{}")
        return document

    @property
    def reason(self) -> str:
        """The contract's reason of a problem."""
        return str(self.document.get("reason", f"HTTP {self.status}"))

    @property
    def wait_seconds(self) -> float:
        """How long the product asks to wait before another try."""
        return float(self.document.get("retry_after_ms", 0)) / 1000

    @property
    def verdict(self) -> Verdict:
        if 200 <= self.status < 300:
            return Verdict.ANSWERED
        return Verdict.AGAIN if self.reason in AGAIN else Verdict.NEVER


def pause_seconds(tried: int, asked: float, random_share: float) -> float:
    """How long to wait after so many tries: full jitter under a bound that doubles, or what the product asks for.

    A lease may last longer than it takes another to answer, so what is asked for counts up to a second.

    Args:
        asked: seconds, 0 for nothing.
        random_share: from [0, 1).
    """
    own = min(1.0, 0.05 * 2.0**tried) * random_share
    return max(own, min(asked, 1.0))
