"""`colloquy sessions`: which sessions are stuck and why, and the repairs that an operator makes by hand."""

import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from colloquy.gateway.v1 import operations_pb2
from libs.runtime.client import call
from libs.runtime.errors import DeadlineExceeded, Unavailable
from services.cli.operators import ANSWER_MS, ask, plain

if TYPE_CHECKING:  # the generated async types exist for type checkers only
    from colloquy.gateway.v1.operations_pb2_grpc import OperationsServiceAsyncStub

ACTIONS = {
    "reset": operations_pb2.Repair.ACTION_RESET,
    "complete": operations_pb2.Repair.ACTION_COMPLETE,
}
_LACKS = {
    "ANSWER": "is being answered",
    "REPAIR": "a turn's lease is over, nobody has repaired it",
    "FOLD": "a projection is behind",
    "ACKNOWLEDGEMENT": "is settled, the ledger has not heard of it",
    "ERASURE": "is not erased everywhere",
}
_MILLISECONDS = 1000
_SHOWN_AT_MOST_MS = 2**31 - 1


def stuck(settled: Mapping[str, str], older_than_seconds: float, *, as_json: bool) -> None:
    """Print the sessions that nothing was written to for so long, though they are not settled.

    Raises:
        CommandError: the gateway refused or does not answer.
    """
    request = operations_pb2.ListStuckSessionsRequest(
        older_than_ms=min(round(older_than_seconds * _MILLISECONDS), _SHOWN_AT_MOST_MS)
    )
    found: list[dict[str, Any]] = []
    while True:
        page = ask(settled, lambda gateway: call(gateway.ListStuckSessions, request, ANSWER_MS))
        found.extend(map(plain, page.sessions))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for session in found:
        sys.stdout.write(f"{session['session_id']}  {_age(session['age_ms'])}  {session['kind'].lower()}  ")
        sys.stdout.write(f"{_LACKS.get(session['lack'], session['lack'])}{_where(session)}\n")
    sys.stdout.write(f"{len(found)} stuck for more than {older_than_seconds:g} s\n")


def repair(settled: Mapping[str, str], session_id: UUID, command: str, reason: str) -> None:
    """Repair a session by hand, on record under the name in the operator's token; print what was done.

    Raises:
        CommandError: the gateway refused or does not answer.
    """
    request = operations_pb2.RepairSessionRequest(
        session_id=str(session_id), repair_id=str(uuid4()), action=ACTIONS[command], reason=reason
    )
    made = ask(settled, partial(_repaired, request)).repair
    sys.stdout.write(f"{session_id}  {described(made)}\n")


async def _repaired(
    request: operations_pb2.RepairSessionRequest, gateway: "OperationsServiceAsyncStub"
) -> operations_pb2.RepairSessionResponse:
    """Ask a second time where no answer came: under the same id it is done once."""
    try:
        return await call(gateway.RepairSession, request, ANSWER_MS / 2)
    except (Unavailable, DeadlineExceeded):
        return await call(gateway.RepairSession, request, ANSWER_MS / 2)


def described(made: operations_pb2.Repair) -> str:
    """What a repair did, on one line."""
    before, after = made.before, made.after
    changes = [f"fence {before.fence} to {after.fence}"]
    if made.turn_id:
        changes.append(f"turn {made.turn_id} ended with {before.lease_left_ms} ms of its lease left")
    else:
        changes.append("no turn was being answered")
    if made.action == operations_pb2.Repair.ACTION_COMPLETE:
        changes.append("was closed already" if before.sealed else f"closed after {after.last_seq} turns")
    name = operations_pb2.Repair.Action.Name(made.action).removeprefix("ACTION_").lower()
    return f"{name} by {made.actor}: {', '.join(changes)}"


def _where(session: Mapping[str, Any]) -> str:
    if session["turn_id"]:
        return f": turn {session['turn_id']}"
    behind = [
        f"{it['context']} {it['reason']}"
        if it["reason"]
        else f"{it['context']} at {it['applied_seq']} of {session['last_seq']}"
        for it in session["behind"]
    ]
    return f": {', '.join(behind)}" if behind else ""


def _age(age_ms: int) -> str:
    seconds = age_ms // _MILLISECONDS
    if seconds < 60 * 60:
        return f"{seconds // 60:2}:{seconds % 60:02}"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
