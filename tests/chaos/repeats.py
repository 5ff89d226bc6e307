"""Model calls that were made more than once, and why: the model's own log against the ledger's attempts. Pure.

A call is one purpose of one turn. Each request that reached the model must be an attempt that the ledger knew before,
and each attempt but the first must follow one that came to nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.judgement import Finding
from tests.chaos.ledger import Attempt
from tests.chaos.model import ModelCall

_PAID_AND_USABLE = "settled"


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often the model was asked.

    Attributes:
        calls: purposes of turns for which it was.
        attempts: what the ledger has written down for them.
        requests: what reached the model; fewer than attempts where a process died between intent and dispatch.
        reasons: of the attempts that follow another one, how that one had ended.
    """

    calls: int
    attempts: int
    requests: int
    reasons: Counter[str]
    findings: Sequence[Finding]


def compared(requests: Iterable[ModelCall], attempts: Iterable[Attempt]) -> Repeats:
    """Hold the model's log against the ledger."""
    reached = Counter(request.key for request in requests if request.key)
    written: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        written[attempt.key].append(attempt)
    reasons = Counter(_why(before) for made in written.values() for before in made[:-1])
    return Repeats(
        calls=len(written),
        attempts=sum(map(len, written.values())),
        requests=reached.total(),
        reasons=reasons,
        findings=[*_unwritten(reached, written), *_unexplained(written)],
    )


def _why(attempt: Attempt) -> str:
    return f"{attempt.state} {attempt.error}".strip()


def _unwritten(reached: Counter[str], written: dict[str, list[Attempt]]) -> Iterator[Finding]:
    for key, count in reached.items():
        if count > len(written.get(key, ())):
            what = f"{key} reached the model {count} times, and the ledger has {len(written.get(key, ()))} attempts"
            yield Finding("intent is written before dispatch", key.partition("/")[0], "", what)


def _unexplained(written: dict[str, list[Attempt]]) -> Iterator[Finding]:
    for key, made in written.items():
        for before in made[:-1]:
            if before.state == _PAID_AND_USABLE and not before.error:
                what = f"{key} was asked again after attempt {before.fence}.{before.attempt} had been answered"
                yield Finding("a call is repeated only after it came to nothing", key.partition("/")[0], "", what)
