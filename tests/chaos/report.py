"""What a run has shown, as a table for people and a document for machines. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import orjson

from tests.chaos.figures import Figure
from tests.chaos.judgement import stories
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Planned
from tests.chaos.suite import Outcome

_SHOWN_FINDINGS = 40


@dataclass(slots=True)
class Row:
    """One part of the plan, which is a fault as a rule, over all the times it was planned.

    Attributes:
        fired: the times that it did.
        in_flight: messages that were under way at those times, together.
        recovered: how these ended: whose commit it was, or which state they are in; `not begun` has no row.
        violations: findings in their sessions.
    """

    fault: str
    planned: int = 0
    fired: int = 0
    in_flight: int = 0
    recovered: Counter[str] = field(default_factory=Counter)
    violations: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What was asked for, and of which version of the product."""

    what: str
    seed: int
    turns: int
    commit: str


def rows(outcome: Outcome, named: Callable[[Planned], str] = lambda planned: planned.part) -> list[Row]:
    """The table: a line for each part of the plan, or for what else `named` calls a fault."""
    made: dict[str, Row] = {}
    for struck in outcome.struck:
        name = named(struck.planned)
        row = made.setdefault(name, Row(name))
        row.planned += 1
        row.fired += struck.fired > 0
        row.in_flight += len(struck.flights)
        row.recovered.update(_ending(outcome.ledger, flight.request) for flight in struck.flights)
        sessions = {flight.session for flight in struck.flights} - {""}
        row.violations += sum(finding.session in sessions for finding in outcome.findings)
    return sorted(made.values(), key=lambda row: row.fault)


def by_kind(planned: Planned) -> str:
    """What the short table calls a fault."""
    return planned.fault.kind.value


def problems(outcome: Outcome, measured: Sequence[Figure] = ()) -> list[str]:
    """Why the run has failed, a line for each reason; empty where it has not."""
    unfired = [row.fault for row in rows(outcome) if row.fired < row.planned]
    by_rule = Counter(finding.rule for finding in outcome.findings)
    made = [f"{count} times violated: {rule}" for rule, count in sorted(by_rule.items())]
    if unfired:
        made.append(f"{len(unfired)} faults did not fire: {', '.join(unfired)}")
    if outcome.quiet_seconds is None:
        made.append("it did not get quiet")
    return [*made, *(str(figure) for figure in measured if not figure.kept)]


def text(outcome: Outcome, header: Header, measured: Sequence[Figure] = ()) -> str:
    """All of it for a person."""
    failed = problems(outcome, measured)
    verdict = "failed" if failed else "passed: nothing was lost, nothing happened twice"
    tables = [*_table(rows(outcome)), "", *_table(rows(outcome, by_kind)), ""] if outcome.struck else []
    lines = [*tables, *_summary(outcome, header), *map(str, measured)]
    return "\n".join([*lines, *(f"FAILED: {problem}" for problem in failed), *_details(outcome), verdict])


def document(outcome: Outcome, header: Header, measured: Sequence[Figure] = ()) -> bytes:
    """All of it for a machine."""
    return orjson.dumps(
        {
            **asdict(header),
            "problems": problems(outcome, measured),
            "measured": [{**asdict(figure), "kept": figure.kept} for figure in measured],
            "table": list(map(_as_json, rows(outcome))),
            "table_by_kind": list(map(_as_json, rows(outcome, by_kind))),
            "figures": figures(outcome),
            "model_calls": {
                "calls": outcome.repeats.calls,
                "attempts": outcome.repeats.attempts,
                "requests": outcome.repeats.requests,
                "repeated_after": dict(outcome.repeats.reasons),
            },
            "findings": [asdict(finding) for finding in outcome.findings],
        },
        option=orjson.OPT_INDENT_2,
    )


def figures(outcome: Outcome) -> dict[str, float | None]:
    """What was sent and what became of it; durations in seconds."""
    known = stories(outcome.entries).values()
    messages = [story for story in known if story.text]
    return {
        "sessions": len(outcome.ledger.streams),
        "messages": len(messages),
        "answered": sum(bool(it.bodies) for it in messages),
        "refused": sum(bool(it.refusals and not it.bodies) for it in messages),
        "given_up": sum(bool(it.gave_up) for it in known),
        "acknowledged": sum(bool(it.bodies or it.turns) for it in known),
        "turns_committed": sum(turn.state == "COMMITTED" for turn in outcome.ledger.turns.values()),
        "sessions_erased": sum(stream.erased for stream in outcome.ledger.streams.values()),
        "load_seconds": round(outcome.load_seconds, 1),
        "quiet_seconds": None if outcome.quiet_seconds is None else round(outcome.quiet_seconds, 1),
    }


def _summary(outcome: Outcome, header: Header) -> list[str]:
    seen, model = figures(outcome), outcome.repeats
    recovered = Counter(turn.committed_by for turn in outcome.ledger.turns.values())
    known = stories(outcome.entries).values()
    gave_up = Counter(story.gave_up for story in known if story.gave_up)
    refused = Counter(reason for story in known for reason in story.refusals if not story.bodies)
    return [
        f"{header.what}, seed {header.seed}: {header.turns} turns, {len(outcome.struck)} faults, at {header.commit}",
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in seen.items()),
        f"turns: {_listed(recovered)}",
        f"refused: {_listed(refused) or 'nothing'}; given up after: {_listed(gave_up) or 'nothing'}",
        f"model: {model.calls} calls, {model.attempts} attempts, {model.requests} requests",
        f"repeated after: {_listed(model.reasons) or 'nothing'}",
    ]


def _details(outcome: Outcome) -> Iterable[str]:
    for it in outcome.findings[:_SHOWN_FINDINGS]:
        yield f"  {it.rule}: session {it.session or '?'}, request {it.request or '-'}: {it.what}"
    if len(outcome.findings) > _SHOWN_FINDINGS:
        yield f"  and {len(outcome.findings) - _SHOWN_FINDINGS} more, in the JSON report"


def _ending(ledger: Ledger, request: str) -> str:
    turn = ledger.turns.get(request)
    return turn.committed_by if turn else "not begun"


def _listed(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items(), key=lambda item: -item[1]))


def _as_json(row: Row) -> Mapping[str, object]:
    return {**asdict(row), "recovered": dict(row.recovered)}


def _table(shown: Iterable[Row]) -> Iterable[str]:
    titles = ("fault", "planned", "fired", "in flight", "recovered how", "violations")
    lines = [
        (row.fault, str(row.planned), str(row.fired), str(row.in_flight), _listed(row.recovered), str(row.violations))
        for row in shown
    ]
    return _aligned([titles, *lines])


def _aligned(table: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
