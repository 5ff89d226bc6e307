"""What operators see and do: sessions that are stuck and what they lack, repairs by hand, a turn's whole life.

Read from the contexts and composed; nothing here repairs anything by itself.
"""

import asyncio
import uuid
from collections.abc import Awaitable

from colloquy.assessment.v1 import assessment_pb2
from colloquy.gateway.v1 import operations_pb2
from colloquy.history.v1 import history_pb2
from colloquy.history.v1 import operations_pb2 as ledger_pb2
from colloquy.llm.v1 import llm_pb2
from colloquy.session.v1 import session_pb2
from libs.runtime.client import call
from libs.runtime.errors import ColloquyError, FieldViolation, InvalidField
from services.gateway import lives
from services.gateway.contexts import Contexts
from services.gateway.records import VIEWED_KIND
from services.gateway.settling import Settling

READ_CAP_MS = 2000
REPAIR_CAP_MS = 2000
MAX_PAGE = 50

Stuck = operations_pb2.StuckSession
Unsettled = history_pb2.ListUnsettledResponse.Unsettled


class Operations:
    """ListStuckSessions, RepairSession, GetTurnLife."""

    def __init__(self, contexts: Contexts, settling: Settling) -> None:
        self._contexts = contexts
        self._settling = settling

    async def stuck(self, request: operations_pb2.ListStuckSessionsRequest) -> operations_pb2.ListStuckSessionsResponse:
        """A page of the sessions that are not settled although nothing was written to them for a while."""
        _check_page(request)
        unsettled = history_pb2.ListUnsettledRequest(
            max_streams=request.page_size or MAX_PAGE,
            min_age_ms=request.older_than_ms,
            after_session_id=request.page_token,
        )
        page = await call(self._contexts.history.ListUnsettled, unsettled, READ_CAP_MS)
        sessions = await asyncio.gather(*(self._stuck(stream) for stream in page.streams))
        token = page.streams[-1].head.session_id if page.more else ""
        return operations_pb2.ListStuckSessionsResponse(sessions=sessions, next_page_token=token)

    async def repair(
        self, request: operations_pb2.RepairSessionRequest, session_id: str, repair_id: str, actor: str
    ) -> operations_pb2.Repair:
        """Repair a session by hand, and have it folded; what was put on record.

        Raises:
            NotFound, RequestIdReused, InvalidField: nothing was done.
        """
        asked = ledger_pb2.InterveneStreamRequest(
            session_id=session_id,
            intervention_id=repair_id,
            action=lives.INTERVENTION.get(request.action, ledger_pb2.Intervention.ACTION_UNSPECIFIED),
            actor=actor,
            reason=request.reason,
        )
        done = await call(self._contexts.operations.InterveneStream, asked, REPAIR_CAP_MS)
        if done.head.acked_rev < done.head.rev:
            self._settling.catch_up_soon(session_id)
        return lives.repair(done.intervention)

    async def turn_life(self, session_id: str, turn_or_request_id: str) -> operations_pb2.GetTurnLifeResponse:
        """All that is known of a turn but what was said; without its calls where their ledger does not answer.

        Raises:
            NotFound: the session has no such turn.
        """
        asked = ledger_pb2.GetTurnRequest(session_id=session_id, turn_or_request_id=turn_or_request_id)
        found = await call(self._contexts.operations.GetTurn, asked, READ_CAP_MS)
        life = lives.of(found)
        listing = ledger_pb2.ListInterventionsRequest(session_id=session_id)
        made = await call(self._contexts.operations.ListInterventions, listing, READ_CAP_MS)
        life.repairs.extend(map(lives.repair, made.interventions))
        try:
            wanted = llm_pb2.ListCallsRequest(session_id=session_id, turn_id=found.turn.turn_id)
            calls = await call(self._contexts.llm.ListCalls, wanted, READ_CAP_MS)
            life.calls.extend(map(lives.model_call, calls.calls))
        except ColloquyError as error:
            life.calls_missing = error.reason
        return life

    async def _stuck(self, stream: Unsettled) -> Stuck:
        head = stream.head
        behind = [] if stream.erased or stream.HasField("active") else await self._behind(head)
        return Stuck(
            session_id=head.session_id,
            kind=VIEWED_KIND[head.kind],
            owner_id=head.owner_id,
            lack=lack_of(stream, folded=not behind),
            age_ms=stream.age_ms,
            last_seq=head.last_seq,
            sealed=head.sealed,
            turn_id=stream.active.turn_id,
            behind=behind,
        )

    async def _behind(self, head: history_pb2.Head) -> list[Stuck.Behind]:
        """The projections that do not hold what the ledger held when `head` was read, or do not say."""
        questions = [_asked("session", self._directory(head))]
        if head.kind == history_pb2.KIND_INTERVIEW:
            questions.append(_asked("assessment", self._evidence(head)))
        return [answer for answer in await asyncio.gather(*questions) if answer]

    async def _directory(self, head: history_pb2.Head) -> tuple[int, bool]:
        anybody = session_pb2.Viewer(any_owner=True)
        request = session_pb2.GetSessionRequest(session_id=head.session_id, viewer=anybody)
        entry = (await call(self._contexts.session.GetSession, request, READ_CAP_MS)).session
        closed = entry.status == session_pb2.STATUS_COMPLETED or not head.sealed
        return entry.applied_seq, entry.applied_seq >= head.last_seq and closed

    async def _evidence(self, head: history_pb2.Head) -> tuple[int, bool]:
        request = assessment_pb2.GetPlanRequest(session_id=head.session_id, base_seq=head.last_seq)
        plan = (await call(self._contexts.assessment.GetPlan, request, READ_CAP_MS)).plan
        return plan.applied_seq, plan.applied_seq >= head.last_seq


def lack_of(stream: Unsettled, *, folded: bool) -> Stuck.Lack.ValueType:
    """What keeps a stream from being settled."""
    if stream.erased:
        return Stuck.LACK_ERASURE
    if stream.HasField("active"):
        return Stuck.LACK_ANSWER if stream.lease_left_ms else Stuck.LACK_REPAIR
    return Stuck.LACK_ACKNOWLEDGEMENT if folded else Stuck.LACK_FOLD


async def _asked(name: str, question: Awaitable[tuple[int, bool]]) -> Stuck.Behind | None:
    """Where a projection stands, None where it is not behind."""
    try:
        applied_seq, holds = await question
    except ColloquyError as error:
        return Stuck.Behind(context=name, reason=error.reason)
    return None if holds else Stuck.Behind(context=name, applied_seq=applied_seq)


def _check_page(request: operations_pb2.ListStuckSessionsRequest) -> None:
    violations = []
    if not 0 <= request.page_size <= MAX_PAGE:
        violations.append(FieldViolation("page_size", f"From 1 to {MAX_PAGE}."))
    if request.older_than_ms < 0:
        violations.append(FieldViolation("older_than_ms", "Must not be negative."))
    if request.page_token and not _is_canonical(request.page_token):
        violations.append(FieldViolation("page_token", "Give the token of a page as it was, or none."))
    if violations:
        raise InvalidField(violations)


def _is_canonical(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
