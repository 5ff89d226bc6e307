"""After the commit: the projections fold what the ledger holds, and the ledger hears that they did.

Nobody waits for this. Commits of many sessions are folded in one round, since under load a call for each would cost
more than the fold. What a round cannot settle stays unacknowledged (acked_rev < rev) and is caught up from the ledger.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from colloquy.history.v1 import history_pb2
from libs.runtime import context, telemetry
from libs.runtime.client import call
from libs.runtime.errors import ColloquyError, DeadlineExceeded, NotFound, Unavailable
from libs.runtime.server import Background
from services.gateway.contexts import Contexts
from services.gateway.projections import FOLD_CAP_MS, Directory, Evidence, Outcome, Projection, Run, run_of

GATHER_SECONDS = 0.25  # how long the first commit of a round waits for others
ROUND_BUDGET_MS = 10_000
MAX_BATCH = 100
PAGE_TURNS = 200
MAX_OFFERS = 20  # of pages to one projection: more than the longest session has, and an end to any disagreement
EVERYBODY = history_pb2.Viewer(any_owner=True)


def committed(head: history_pb2.Head, response: history_pb2.CommitTurnResponse) -> Run:
    """What a commit leaves to be settled."""
    turn = response.turn
    sealed_at = turn.committed_at if response.sealed else None
    return Run(head.session_id, head.kind, turn.seq, turn.digest, response.rev, response.sealed, sealed_at, [turn])


@dataclass(frozen=True, slots=True)
class Left:
    """What a batch leaves unacknowledged: sessions that some projection is behind with, to be caught up one by one, and
    those, if `unanswered`, of a projection that did not answer: to be settled another time."""

    behind: Sequence[str]
    unanswered: bool


class Settling:
    """Folds committed turns into the projections, in rounds."""

    def __init__(self, contexts: Contexts, background: Background) -> None:
        self._history = contexts.history
        self._directory = Directory(contexts)
        self._evidence = Evidence(contexts)
        self._background = background
        self._waiting: dict[str, Run] = {}

    def projections(self, kind: history_pb2.Kind.ValueType) -> list[Projection]:
        """Those that a session of this kind has."""
        return [self._directory, self._evidence] if kind == history_pb2.KIND_INTERVIEW else [self._directory]

    def add(self, run: Run) -> None:
        """Settle this soon."""
        first = not self._waiting
        if earlier := self._waiting.get(run.session_id):
            earlier.extend(run)
        else:
            self._waiting[run.session_id] = run
        if first:
            self._background.spawn(self._round(), name="settle", budget_ms=ROUND_BUDGET_MS)

    async def catch_up(self, session_id: str) -> None:
        """Settle one session from the ledger, making what is half-made and folding again what has diverged.

        Raises:
            ColloquyError: a context did not answer, or does not agree with the ledger.
        """
        # The last turn is what shows a projection that it has folded as many turns, but others.
        read = history_pb2.ListTurnsRequest(session_id=session_id, viewer=EVERYBODY, max_turns=1, newest=True)
        end = await call(self._history.ListTurns, read, FOLD_CAP_MS)
        for projection in self.projections(end.head.kind):
            await self._bring(projection, end)
        await self.acknowledge([run_of(end.head)])

    def catch_up_soon(self, session_id: str) -> None:
        """Settle one session from the ledger, when what it lacks is not known; nobody waits."""
        self._background.spawn(self._catch_up_quietly(session_id), name="catch_up", budget_ms=ROUND_BUDGET_MS)

    async def _round(self) -> None:
        """What was committed in the last moment. A call of its own in the logs: it is on behalf of many."""
        await asyncio.sleep(GATHER_SECONDS)
        batch, self._waiting = list(self._waiting.values()), {}
        with context.serving(budget_ms=ROUND_BUDGET_MS, rpc="settle"):
            for start in range(0, len(batch), MAX_BATCH):
                for session_id in (await self.settle(batch[start : start + MAX_BATCH])).behind:
                    await self._catch_up_quietly(session_id)

    async def settle(self, batch: Sequence[Run]) -> Left:
        """Fold runs of different sessions, at most MAX_BATCH, and acknowledge those that every projection holds."""
        interviews = [run for run in batch if run.kind == history_pb2.KIND_INTERVIEW]
        listed, assessed = await asyncio.gather(
            self._offer(self._directory, batch), self._offer(self._evidence, interviews)
        )
        offered = [*((run, listed) for run in batch), *((run, assessed) for run in interviews)]
        behind = {run.session_id for run, held in offered if held.get(run.session_id) is False}
        unanswered = {run.session_id for run, held in offered if run.session_id not in held}
        await self.acknowledge([run for run in batch if run.session_id not in behind | unanswered])
        return Left(sorted(behind - unanswered), bool(unanswered))

    async def _catch_up_quietly(self, session_id: str) -> None:
        try:
            await self.catch_up(session_id)
        except ColloquyError as error:
            telemetry.logger().warning("unsettled", session_id=session_id, reason=str(error.reason))

    async def _offer(self, projection: Projection, runs: Sequence[Run]) -> Mapping[str, bool]:
        """For each session whether the projection holds its run now; nothing where it does not answer."""
        if not runs:
            return {}
        try:
            results = await projection.fold(runs)
        except ColloquyError as error:
            telemetry.logger().warning("fold_failed", projection=type(projection).__name__, reason=str(error.reason))
            # What the projection refuses may be the fault of one run: each has to be tried by itself.
            is_down = isinstance(error, (Unavailable, DeadlineExceeded))
            return {} if is_down else dict.fromkeys((run.session_id for run in runs), False)
        return {run.session_id: folded.holds(run) for run, folded in zip(runs, results, strict=True)}

    async def _bring(self, projection: Projection, end: history_pb2.ListTurnsResponse) -> None:
        """Bring one projection to where the ledger stood when its `end`, the last turn, was read, or further."""
        head, run, doubted = end.head, run_of(end.head, end.turns), True
        for _ in range(MAX_OFFERS):
            [folded] = await projection.fold([run])
            if folded.holds(run) and run.last_seq >= head.last_seq:
                return
            after_seq, replaces = folded.applied_seq, b""
            match folded.outcome:
                case Outcome.ERASED:
                    raise NotFound
                case Outcome.ABSENT:
                    await projection.make(head)
                    continue
                case Outcome.DIVERGED if doubted:
                    # It may only be newer than our reading: read again from the turn at which it stands.
                    after_seq, doubted = max(0, folded.applied_seq - 1), False
                case Outcome.DIVERGED:
                    telemetry.logger().error("projection_diverged", session_id=head.session_id)
                    after_seq, replaces = 0, folded.head_digest
            wanted = history_pb2.ListTurnsRequest(
                session_id=head.session_id, viewer=EVERYBODY, after_seq=after_seq, max_turns=PAGE_TURNS
            )
            page = await call(self._history.ListTurns, wanted, FOLD_CAP_MS)
            run = run_of(page.head, page.turns, replaces)
        raise Unavailable

    async def acknowledge(self, settled: Sequence[Run]) -> None:
        """Tell the ledger up to which rev nothing is left to be done; should that get lost, the sweep does it again."""
        if not settled:
            return
        streams = [
            history_pb2.AcknowledgeStreamsRequest.Settled(session_id=run.session_id, rev=run.rev) for run in settled
        ]
        try:
            await call(
                self._history.AcknowledgeStreams, history_pb2.AcknowledgeStreamsRequest(streams=streams), FOLD_CAP_MS
            )
        except ColloquyError as error:
            telemetry.logger().warning("acknowledge_failed", reason=str(error.reason))
