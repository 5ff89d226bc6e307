"""`colloquy turns show`: the whole life of one turn on one screen, without a word of what was said."""

import json
import sys
from collections.abc import Iterator, Mapping
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.gateway.v1 import gateway_pb2, operations_pb2
from libs.runtime.client import call
from services.cli.operators import ANSWER_MS, ask, plain
from services.cli.sessions import described

Life = operations_pb2.GetTurnLifeResponse
_NANOSECONDS_IN_MS = 1_000_000


def show(settled: Mapping[str, str], session_id: UUID, turn_or_request_id: UUID, *, as_json: bool) -> None:
    """Print a turn's states, fences, calls, attempts, timings and repairs.

    Raises:
        CommandError: there is none, or the gateway refused or does not answer.
    """
    request = operations_pb2.GetTurnLifeRequest(session_id=str(session_id), turn_or_request_id=str(turn_or_request_id))
    life = ask(settled, lambda gateway: call(gateway.GetTurnLife, request, ANSWER_MS))
    lines = [json.dumps(plain(life), indent=2)] if as_json else list(screen(life))
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def screen(life: Life) -> Iterator[str]:
    """A turn's life, line by line. Times are milliseconds since the message was saved."""
    stream, turn = life.stream, life.turn
    kind = gateway_pb2.Kind.Name(stream.kind).removeprefix("KIND_").lower()
    marks = [("closed" if stream.sealed else "open"), *(["erased"] if stream.erased else [])]
    marks.append("settled" if stream.settled else "not settled")
    yield f"session    {stream.session_id}  {kind}, {', '.join(marks)}, {stream.last_seq} turns, fence {stream.fence}"
    yield f"turn       {turn.turn_id}  request {turn.request_id}"
    yield f"state      {' '.join(_state(turn))}"
    yield f"begun      {_moment(turn.begun_at)}"
    if turn.HasField("committed_at"):
        yield f"committed  {_moment(turn.committed_at)}  {_since(turn, turn.committed_at)}"
    yield f"tokens     message {turn.user_tokens}, reply {turn.reply_tokens}"
    if items := [*_named("answers", turn.item_answered), *_named("asks", turn.item_asked)]:
        yield f"items      {', '.join(items)}"
    if life.HasField("account"):
        yield from _account(life.account)
    yield from _calls(life)
    for made in life.repairs:
        yield f"repair     {_moment(made.at)}  {described(made)}"
        yield f"           why: {made.reason}"


def _state(turn: Life.LedgerTurn) -> Iterator[str]:
    yield turn.state
    if turn.reason:
        yield f"({turn.reason})"
    if turn.seq:
        yield f"as turn {turn.seq},"
    yield f"on {turn.base_seq} turns, under fence {turn.fence}"
    if turn.state == "RUNNING":
        yield f"with {turn.lease_left_ms} ms of its lease left" if turn.lease_left_ms else "whose lease is over"


def _account(account: Life.Account) -> Iterator[str]:
    degraded = ", ".join(account.degraded) or "nothing"
    scored = "scored in time" if account.scored else "no score in time"
    yield f"made by    {account.committed_by}; degraded: {degraded}; {scored}"
    stages = ", ".join(f"{stage.name} {stage.duration_ms:.0f}" for stage in account.timing.stages)
    yield f"timing     {account.timing.total_ms:.0f} of {account.timing.budget_ms} ms: {stages or 'no stages'}"
    yield f"usage      {_usage(account.usage)}"
    if account.versions:
        yield f"versions   {', '.join(f'{name} {version}' for name, version in sorted(account.versions.items()))}"


def _calls(life: Life) -> Iterator[str]:
    if life.calls_missing:
        yield f"calls      not known: the call ledger is {life.calls_missing}"
    elif not life.calls:
        yield "calls      none"
    for made in life.calls:
        notes = [f"repeated {made.repeats} times"] if made.repeats else []
        notes += [made.error] if made.error else []
        notes += ["cleared"] if made.cleared else []
        notes += [f"{made.lease_left_ms} ms of its lease left"] if made.state == "INFLIGHT" else []
        said = f"; {', '.join(notes)}" if notes else ""
        how = f"{made.state}, fence {made.fence}, {made.prompt_version}, {_usage(made.usage)}"
        yield f"call       {made.purpose}  {how}{said}"
        for attempt in made.attempts:
            yield f"  attempt  {' '.join(_attempt(life.turn, attempt))}"


def _attempt(turn: Life.LedgerTurn, attempt: Life.Attempt) -> Iterator[str]:
    yield f"{attempt.fence}.{attempt.attempt}  {attempt.state}"
    yield from [f"HTTP {attempt.status}"] if attempt.status else []
    yield from [attempt.error] if attempt.error else []
    ended = attempt.HasField("finished_at")
    lasted = f" for {_between(attempt.dispatched_at, attempt.finished_at)} ms" if ended else ""
    yield f" {attempt.model} at {attempt.provider}, {_since(turn, attempt.dispatched_at)}{lasted},"
    yield _usage(attempt.usage)


def _named(verb: str, item: str) -> list[str]:
    return [f"{verb} {item}"] if item else []


def _usage(usage: gateway_pb2.Usage) -> str:
    return f"{usage.prompt_tokens} + {usage.completion_tokens} tokens, ${usage.cost_nano_usd / 1e9:.6f}"


def _moment(at: Timestamp) -> str:
    return at.ToDatetime().isoformat(sep=" ", timespec="milliseconds") + "Z"


def _since(turn: Life.LedgerTurn, at: Timestamp) -> str:
    return f"{_between(turn.begun_at, at):+} ms"


def _between(start: Timestamp, end: Timestamp) -> int:
    return round((end.ToNanoseconds() - start.ToNanoseconds()) / _NANOSECONDS_IN_MS)
