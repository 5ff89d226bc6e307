"""What the ledger has of a turn's calls beside their texts: for whoever asks what was tried, how it ended and its cost.

Values only, like `domain`.
"""

from dataclasses import dataclass
from datetime import datetime

from services.llm_gateway.domain import AttemptState, CallState, Failure, Fence, Purpose, Usage


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to a provider; `number` counts from 1 under its call's fence.

    `status` is HTTP's, None where there was none. `finished_at` is None while it is under way, and for an UNKNOWN one
    whose end nobody recorded.
    """

    fence: Fence
    number: int
    state: AttemptState
    provider: str
    model: str
    status: int | None
    error: Failure | None
    usage: Usage
    dispatched_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class CallEntry:
    """A call with its attempts, in the order in which they were made.

    Its state is that which was recorded, a cleared one's too, but UNKNOWN where the lease ended without a word.
    """

    purpose: Purpose
    state: CallState
    fence: Fence
    repeats: int
    lease_left_ms: int
    error: Failure | None
    usage: Usage
    finish_reason: str
    prompt_version: str
    model: str
    dispatched_at: datetime
    finished_at: datetime | None
    cleared: bool
    attempts: tuple[Attempt, ...]
