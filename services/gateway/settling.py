"""After the commit: the projections fold what the ledger holds, and the ledger hears that they did.

Nobody waits for this. Commits of many sessions are folded in one round, since under load a call for each would cost
more than the fold. What a round cannot settle stays unacknowledged (acked_rev < rev) and is caught up from the ledger.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.assessment.v1 import assessment_pb2
from colloquy.history.v1 import history_pb2
from colloquy.session.v1 import session_pb2
from libs.runtime import telemetry
from libs.runtime.client import call
from libs.runtime.errors import ColloquyError
from libs.runtime.server import Background
from services.gateway import records
from services.gateway.contexts import Contexts

GATHER_SECONDS = 0.025  # how long the first commit of a round waits for others
FOLD_CAP_MS = 2000
MAX_BATCH = 100
PAGE_TURNS = 200
EVERYBODY = history_pb2.Viewer(any_owner=True)

_FOLDED = {session_pb2.ApplyTurnsResponse.OUTCOME_OK, session_pb2.ApplyTurnsResponse.OUTCOME_DUPLICATE}
_ASSESSED = {assessment_pb2.ApplyTurnsResponse.OUTCOME_OK, assessment_pb2.ApplyTurnsResponse.OUTCOME_DUPLICATE}


@dataclass(slots=True)
class Unsettled:
    """A run of one session's ledger that the projections have not confirmed yet."""

    session_id: str
    kind: history_pb2.Kind.ValueType
    last_seq: int
    rev: int
    sealed: bool
    sealed_at: Timestamp | None
    turns: list[history_pb2.Turn] = field(default_factory=list)

    def extend(self, later: "Unsettled") -> None:
        """Take over what a later commit of the same session added."""
        self.last_seq, self.rev = later.last_seq, later.rev
        self.sealed, self.sealed_at = later.sealed, later.sealed_at
        self.turns += later.turns


def committed(head: history_pb2.Head, response: history_pb2.CommitTurnResponse) -> Unsettled:
    """What a commit leaves to be settled."""
    turn = response.turn
    sealed_at = turn.committed_at if response.sealed else None
    return Unsettled(head.session_id, head.kind, turn.seq, response.rev, response.sealed, sealed_at, [turn])


class Settling:
    """Folds committed turns into the projections, in rounds."""

    def __init__(self, contexts: Contexts, background: Background) -> None:
        self._contexts = contexts
        self._background = background
        self._waiting: dict[str, Unsettled] = {}

    def add(self, unsettled: Unsettled) -> None:
        """Settle this soon."""
        first = not self._waiting
        if earlier := self._waiting.get(unsettled.session_id):
            earlier.extend(unsettled)
        else:
            self._waiting[unsettled.session_id] = unsettled
        if first:
            self._background.spawn(self._round(), name="settle")

    async def catch_up(self, session_id: str) -> bool:
        """Settle one session from the ledger, finishing a half-made one; whether it is settled now.

        Raises:
            ColloquyError: a context did not answer.
        """
        head = (await self._history_page(session_id, 0, 1)).head
        if head.kind == history_pb2.KIND_INTERVIEW:
            await call(self._contexts.assessment.StartInterview, records.start_request(head), FOLD_CAP_MS)
        entry = session_pb2.CreateSessionRequest(session=records.directory_entry(head))
        created = await call(self._contexts.session.CreateSession, entry, FOLD_CAP_MS)
        assessed_seq = await self._assessed_seq(head)
        after_seq = min(created.session.applied_seq, assessed_seq)
        while True:
            page = await self._history_page(session_id, after_seq, PAGE_TURNS)
            run = _run_of(page)
            if run.turns:
                after_seq = run.turns[-1].seq
            settled = await self._fold([run])
            if after_seq >= page.head.last_seq or not run.turns:
                await self._acknowledge(settled)
                return bool(settled)

    async def _round(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        batch, self._waiting = list(self._waiting.values()), {}
        for start in range(0, len(batch), MAX_BATCH):
            part = batch[start : start + MAX_BATCH]
            settled = await self._fold(part)
            await self._acknowledge(settled)
            known = {unsettled.session_id for unsettled in settled}
            for unsettled in part:
                if unsettled.session_id not in known:
                    await self._catch_up_quietly(unsettled.session_id)

    async def _catch_up_quietly(self, session_id: str) -> None:
        try:
            await self.catch_up(session_id)
        except ColloquyError as error:
            telemetry.logger().warning("unsettled", session_id=session_id, reason=str(error.reason))

    async def _fold(self, batch: list[Unsettled]) -> list[Unsettled]:
        """Offer each run to the projections of its kind; those that all of them hold now to the end."""
        interviews = [run for run in batch if run.kind == history_pb2.KIND_INTERVIEW]
        listed, assessed = await asyncio.gather(self._list(batch), self._assess(interviews))
        return [
            run
            for run in batch
            if run.session_id in listed and (run.kind != history_pb2.KIND_INTERVIEW or run.session_id in assessed)
        ]

    async def _list(self, batch: list[Unsettled]) -> set[str]:
        request = session_pb2.ApplyTurnsRequest(
            sessions=[
                session_pb2.SessionTurns(
                    session_id=run.session_id,
                    turns=[records.listed_turn(turn) for turn in run.turns],
                    last_seq=run.last_seq,
                    sealed=run.sealed,
                    sealed_at=run.sealed_at,
                )
                for run in batch
            ]
        )
        try:
            response = await call(self._contexts.session.ApplyTurns, request, FOLD_CAP_MS)
        except ColloquyError as error:
            telemetry.logger().warning("fold_failed", context="session", reason=str(error.reason))
            return set()
        last_seqs = {run.session_id: run.last_seq for run in batch}
        return {
            result.session_id
            for result in response.results
            if result.outcome in _FOLDED and result.applied_seq >= last_seqs[result.session_id]
        }

    async def _assess(self, batch: list[Unsettled]) -> set[str]:
        if not batch:
            return set()
        request = assessment_pb2.ApplyTurnsRequest(
            sessions=[
                assessment_pb2.InterviewTurns(
                    session_id=run.session_id,
                    turns=[records.assessed_turn(turn) for turn in run.turns],
                    last_seq=run.last_seq,
                    sealed=run.sealed,
                )
                for run in batch
            ]
        )
        try:
            response = await call(self._contexts.assessment.ApplyTurns, request, FOLD_CAP_MS)
        except ColloquyError as error:
            telemetry.logger().warning("fold_failed", context="assessment", reason=str(error.reason))
            return set()
        last_seqs = {run.session_id: run.last_seq for run in batch}
        return {
            result.session_id
            for result in response.results
            if result.outcome in _ASSESSED and result.applied_seq >= last_seqs[result.session_id]
        }

    async def _acknowledge(self, settled: Iterable[Unsettled]) -> None:
        streams = [
            history_pb2.AcknowledgeStreamsRequest.Settled(session_id=run.session_id, rev=run.rev) for run in settled
        ]
        if not streams:
            return
        request = history_pb2.AcknowledgeStreamsRequest(streams=streams)
        try:
            await call(self._contexts.history.AcknowledgeStreams, request, FOLD_CAP_MS)
        except ColloquyError as error:
            telemetry.logger().warning("acknowledge_failed", reason=str(error.reason))

    async def _history_page(self, session_id: str, after_seq: int, max_turns: int) -> history_pb2.ListTurnsResponse:
        request = history_pb2.ListTurnsRequest(
            session_id=session_id, viewer=EVERYBODY, after_seq=after_seq, max_turns=max_turns
        )
        return await call(self._contexts.history.ListTurns, request, FOLD_CAP_MS)

    async def _assessed_seq(self, head: history_pb2.Head) -> int:
        """How far the assessment has folded; an empty run asks without changing anything."""
        if head.kind != history_pb2.KIND_INTERVIEW:
            return head.last_seq
        request = assessment_pb2.ApplyTurnsRequest(
            sessions=[assessment_pb2.InterviewTurns(session_id=head.session_id, last_seq=head.last_seq)]
        )
        response = await call(self._contexts.assessment.ApplyTurns, request, FOLD_CAP_MS)
        return response.results[0].applied_seq


def _run_of(page: history_pb2.ListTurnsResponse) -> Unsettled:
    head = page.head
    sealed_at = head.sealed_at if head.sealed else None
    return Unsettled(head.session_id, head.kind, head.last_seq, head.rev, head.sealed, sealed_at, list(page.turns))
