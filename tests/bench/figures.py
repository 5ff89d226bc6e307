"""The statistics: percentiles, a turn's time less its model's, CPU in yardsticks. Pure functions of what was seen."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# What a turn waits for. Other purposes (prepared phrasings, summaries) are called while the candidate thinks.
AWAITED = ("question", "judge")
ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as its client saw it.

    turn_ms: from sending the message to the last byte of the reply.
    ended_at: when that was, in seconds since the epoch.
    first_delta_ms: until the first piece of a streamed reply; None where there was none.
    stages_ms: what the turn's own record says of its parts.
    """

    session_id: str
    turn_id: str
    turn_ms: float
    ended_at: float
    degraded: Sequence[str]
    stages_ms: Mapping[str, float]
    first_delta_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call as the simulator measured it. `call` is the id that llm-gateway sent: session/turn/purpose."""

    call: str
    outcome: str
    started_at: float
    duration_ms: float

    @property
    def ended_at(self) -> float:
        return self.started_at + self.duration_ms / 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution, by nearest rank: each figure is a value that was really seen."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """None of no values."""
        ordered = sorted(values)
        if not ordered:
            return None
        p50, p95, p99 = (percentile(ordered, share) for share in (0.50, 0.95, 0.99))
        return cls(len(ordered), p50, p95, p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class Overhead:
    """The product's own time in each turn, and how many turns it cannot be told of.

    degraded: they did not wait for their calls. late: a call ended after the turn. unjoined: no call is known.
    """

    values_ms: Sequence[float]
    model_ms: Sequence[float]
    degraded: int
    late: int
    unjoined: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something was done so far, and how long that took in all."""

    count: float
    seconds: float

    def plus(self, other: "Tally") -> "Tally":
        return Tally(self.count + other.count, self.seconds + other.seconds)


@dataclass(frozen=True, slots=True)
class Work:
    """How often something is done in a turn, and how long it takes from start to end each time (not its CPU)."""

    per_turn: float
    mean_ms: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of `ordered` (ascending, not empty) that at least `share` (0 to 1) of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def overhead(turns: Iterable[Turn], calls: Iterable[ModelCall]) -> Overhead:
    """Each turn less the slower of its two model calls; one that was repeated counts from first start to last end."""
    calls_of: dict[tuple[str, str], dict[str, list[ModelCall]]] = {}
    for call in calls:
        session_id, _, rest = call.call.partition("/")
        turn_id, _, purpose = rest.partition("/")
        if purpose in AWAITED:
            calls_of.setdefault((session_id, turn_id), {}).setdefault(purpose, []).append(call)
    values, models, degraded, late, unjoined = [], [], 0, 0, 0
    for turn in turns:
        by_purpose = calls_of.get((turn.session_id, turn.turn_id))
        if turn.degraded:
            degraded += 1
        elif not by_purpose:
            unjoined += 1
        elif any(_missed(turn, attempts) for attempts in by_purpose.values()):
            late += 1
        else:
            models.append(max(_span_ms(attempts) for attempts in by_purpose.values()))
            values.append(turn.turn_ms - models[-1])
    return Overhead(values, models, degraded, late, unjoined)


def per_turn(before: Mapping[str, float], after: Mapping[str, float], turns: int) -> dict[str, float]:
    """How much each quantity grew for each turn; what did not grow is left out."""
    grown = {name: (value - before.get(name, 0.0)) / turns for name, value in after.items()}
    return {name: value for name, value in grown.items() if value > 0}


def work(before: Mapping[str, Tally], after: Mapping[str, Tally], turns: int) -> dict[str, Work]:
    """What was done between two tallies; what was not is left out."""
    done = {}
    for name, tally in after.items():
        more = tally.plus(Tally(-before[name].count, -before[name].seconds)) if name in before else tally
        if more.count > 0:
            done[name] = Work(more.count / turns, 1000 * more.seconds / more.count)
    return done


def in_yardsticks(cpu_ms: float, before_ms: float, after_ms: float) -> float:
    """CPU time as a multiple of a bare RPC's, which was measured before and after: machines drift."""
    return cpu_ms / ((before_ms + after_ms) / 2)


def _missed(turn: Turn, attempts: Sequence[ModelCall]) -> bool:
    last = max(attempts, key=lambda call: call.ended_at)
    return last.outcome != ANSWERED or last.ended_at > turn.ended_at


def _span_ms(attempts: Sequence[ModelCall]) -> float:
    if len(attempts) == 1:
        return attempts[0].duration_ms
    return (max(call.ended_at for call in attempts) - min(call.started_at for call in attempts)) * 1000
