"""One turn, as the protocol has it: begin, choose, ask and judge in parallel, commit, settle.

Only BeginTurn refuses and only CommitTurn makes it true; everything between is repeatable. Once the ledger has made
this process the turn's owner, the turn runs as a task of its own: whoever waits may leave, the turn goes on.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from colloquy.gateway.v1 import gateway_pb2
from colloquy.history.v1 import history_pb2
from libs.runtime import context
from libs.runtime.client import call
from libs.runtime.errors import (
    ColloquyError,
    DeadlineExceeded,
    Internal,
    RateLimited,
    TurnInProgress,
    Unavailable,
)
from libs.runtime.server import Background
from services.gateway import domain, records, telling
from services.gateway.claim import Claim, Message
from services.gateway.composition import LATE_SCORE_CAP_MS, Composition
from services.gateway.contexts import Contexts
from services.gateway.following import Attended, Following
from services.gateway.live import LiveTurn, LiveTurns, Superseded
from services.gateway.recovery import Recovery
from services.gateway.settling import Settling, committed
from services.gateway.stopwatch import Stopwatch

BEGIN_CAP_MS = 1000
WINDOW = history_pb2.WindowLimit(max_messages=10, max_tokens=3000)


@dataclass(frozen=True, slots=True)
class Budgets:
    """The whole time of a turn, by kind, in milliseconds."""

    interview_ms: int
    chat_ms: int


class Turns:
    """SubmitTurn and StreamTurn."""

    def __init__(
        self,
        contexts: Contexts,
        composition: Composition,
        settling: Settling,
        recovery: Recovery,
        background: Background,
        budgets: Budgets,
    ) -> None:
        self._contexts = contexts
        self._composition = composition
        self._settling = settling
        self._recovery = recovery
        self._background = background
        self._budgets = budgets
        self._live = LiveTurns()
        self._following = Following(self._begin, self._take_over, self._live)

    async def submit(self, message: Message) -> gateway_pb2.SubmitTurnResponse:
        """Answer a message, or say why not.

        Raises:
            ColloquyError: as the contract of SubmitTurn lists them.
        """
        watch, waits_ms = Stopwatch(), self._waits_ms(self._budgets.interview_ms)
        while True:
            attended, mine = await self._attend(message, watch, waits_ms, streamed=False)
            try:
                turn = await _outcome(attended, watch.left_ms(waits_ms), mine=mine)
            except Superseded:
                continue
            return _answer(message.session_id, turn, replayed=not mine)

    async def stream(self, message: Message) -> AsyncIterator[gateway_pb2.StreamTurnResponse]:
        """The same turn as it is written: `accepted`, drafts, `completed`."""
        watch, accepted = Stopwatch(), False
        waits_ms = self._waits_ms(self._budgets.chat_ms)
        while True:
            attended, mine = await self._attend(message, watch, waits_ms, streamed=True)
            if not accepted:
                accepted = True
                told = gateway_pb2.StreamTurnResponse.Accepted(turn_id=attended.turn_id, request_id=message.request_id)
                yield gateway_pb2.StreamTurnResponse(accepted=told)
            try:
                if isinstance(attended, LiveTurn):
                    async for piece in self._draft(attended, watch, waits_ms):
                        yield gateway_pb2.StreamTurnResponse(delta=piece)
                turn = await _outcome(attended, watch.left_ms(waits_ms), mine=mine)
            except Superseded:
                continue
            answer = _answer(message.session_id, turn, replayed=not mine)
            yield gateway_pb2.StreamTurnResponse(completed=answer)
            return

    # -- step 1: BeginTurn ---------------------------------------------------------------------------------------------

    async def _attend(
        self, message: Message, watch: Stopwatch, waits_ms: float, *, streamed: bool
    ) -> tuple[Attended, bool]:
        """Begin the turn, find who answers it, or wait for that; and whether this request made it.

        An expired turn of another request is repaired first.
        """
        claim_id = uuid.uuid4()
        while True:
            with watch.stage("begin"):
                begun = await self._begin(message, claim_id)
            match begun.WhichOneof("outcome"):
                case "owner":
                    return self._own(begun.owner, message, watch, streamed=streamed), True
                case "replay":
                    return begun.replay, False
                case "in_progress":
                    live = self._live.find(message.key)
                    left_ms = watch.left_ms(waits_ms)
                    return live or await self._following.follow(message, begun.in_progress, left_ms), False
                case _:
                    other = begun.other_turn
                    if other.lease_left_ms > 0:
                        raise TurnInProgress(other.lease_left_ms)
                    await self._recovery.repair(message.session_id, other)

    async def _begin(self, message: Message, claim_id: uuid.UUID) -> history_pb2.BeginTurnResponse:
        try:
            return await call(self._contexts.history.BeginTurn, message.begin(WINDOW, claim_id), BEGIN_CAP_MS)
        except RateLimited:
            telling.RATE_LIMITED.labels("turn_interval").inc()
            raise
        except Unavailable as error:
            raise Unavailable("Not confirmed; send the same message again with the same request id.") from error

    def _take_over(self, owner: history_pb2.Owner, message: Message) -> LiveTurn:
        return self._own(owner, message, Stopwatch(), streamed=False)

    def _own(self, owner: history_pb2.Owner, message: Message, watch: Stopwatch, *, streamed: bool) -> LiveTurn:
        """The message is saved and the claim is ours: answer it, whoever waits."""
        context.bind(turn_id=owner.turn_id)
        if owner.head.kind == history_pb2.KIND_INTERVIEW:
            granted = domain.budget(self._budgets.interview_ms, context.remaining_ms())
        else:
            granted = domain.budget(self._budgets.chat_ms, None)
        claim = Claim(owner, message.request_id, message.text, watch, granted, streamed=streamed)
        live = LiveTurn(owner.turn_id, owner.head.kind, owner.lease_ms)
        if owner.takeover:
            telling.TURNS_RECOVERED.labels("takeover").inc()
        self._live.enter(message.key, live)
        self._background.spawn(self._run(claim, live), name="turn", budget_ms=owner.lease_ms)
        return live

    # -- steps 2 to 5 --------------------------------------------------------------------------------------------------

    async def _run(self, claim: Claim, live: LiveTurn) -> None:
        """The turn itself, to whatever end."""
        try:
            if claim.owner.head.kind == history_pb2.KIND_INTERVIEW:
                response = await self._interview(claim, live)
            else:
                response = await self._chat(claim, live)
            self._conclude(claim, live, response)
        except ColloquyError as error:
            await self._composition.give_back(claim, error)
            self._tell(claim, "abandoned", "")
            live.fail(error)
        except BaseException:
            live.fail(Internal())
            raise
        finally:
            self._live.leave((claim.session_id, claim.request_id), live)

    async def _interview(self, claim: Claim, live: LiveTurn) -> history_pb2.CommitTurnResponse:
        judging = asyncio.create_task(self._composition.assess(claim, claim.model_cap_ms()), name="judge")
        choice = await self._composition.choose(claim)
        reply = await self._composition.phrase(claim, choice, live)
        judged = await judging
        response = await self._composition.commit(claim, reply, judged, final=reply.choice.final)
        if judged is None:
            late = self._composition.assess(claim, LATE_SCORE_CAP_MS)
            self._background.spawn(late, name="late_score", budget_ms=LATE_SCORE_CAP_MS)
        return response

    async def _chat(self, claim: Claim, live: LiveTurn) -> history_pb2.CommitTurnResponse:
        reply = await self._composition.answer_chat(claim, live)
        return await self._composition.commit(claim, reply, None, final=False)

    def _conclude(self, claim: Claim, live: LiveTurn, response: history_pb2.CommitTurnResponse) -> None:
        """What the ledger says is what everybody hears."""
        turn = response.turn
        if response.outcome == history_pb2.CommitTurnResponse.OUTCOME_COMMITTED:
            self._settling.add(committed(claim.owner.head, response))
            self._tell(claim, "committed", next(iter(records.turn_view(claim.session_id, turn).degraded), ""))
        if turn.state in (history_pb2.TURN_STATE_COMMITTED, history_pb2.TURN_STATE_FAILED):
            live.complete(turn)
        else:
            live.fail(Superseded())

    def _tell(self, claim: Claim, outcome: str, degraded: str) -> None:
        kind = history_pb2.Kind.Name(claim.owner.head.kind).removeprefix("KIND_").lower()
        took_ms, stages = claim.watch.elapsed_ms(), claim.watch.stages
        telling.TURNS.labels(kind, outcome, degraded).inc()
        telling.TURN_DURATION.labels(kind, outcome).observe(took_ms / 1000)
        models_ms = max(stages.get("question", 0.0), stages.get("judge", 0.0))
        telling.TURN_OVERHEAD.observe((took_ms - models_ms) / 1000)
        for stage, stage_ms in stages.items():
            telling.TURN_STAGE.labels(stage).observe(stage_ms / 1000)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _waits_ms(self, budget_ms: int) -> float:
        return domain.budget(budget_ms, context.remaining_ms()).total_ms

    async def _draft(self, live: LiveTurn, watch: Stopwatch, waits_ms: float) -> AsyncIterator[str]:
        """The draft as it grows: an interview's within its budget, a chat's first piece within two seconds."""
        if live.kind == history_pb2.KIND_INTERVIEW:
            until_ms = waits_ms = min(waits_ms, self._budgets.interview_ms)
        else:
            until_ms = min(waits_ms, domain.FIRST_DELTA_MS)
        pieces = aiter(live.draft())
        while True:
            try:
                async with asyncio.timeout(max(0.0, watch.left_ms(until_ms) / 1000)):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise DeadlineExceeded from None
            yield piece
            until_ms = waits_ms


async def _outcome(attended: Attended, left_ms: float, *, mine: bool) -> history_pb2.Turn:
    """Wait for a live turn's outcome; leaving ends the wait, never the turn."""
    if isinstance(attended, history_pb2.Turn):
        return attended
    try:
        async with asyncio.timeout(max(0.0, left_ms / 1000)):
            return await attended.outcome()
    except TimeoutError:
        raise (DeadlineExceeded() if mine else TurnInProgress(attended.lease_left_ms())) from None


def _answer(session_id: str, turn: history_pb2.Turn, *, replayed: bool) -> gateway_pb2.SubmitTurnResponse:
    """A committed turn; a FAILED one is the error it was frozen with."""
    if turn.state == history_pb2.TURN_STATE_FAILED:
        raise records.frozen_error(turn)
    return gateway_pb2.SubmitTurnResponse(turn=records.turn_view(session_id, turn), replayed=replayed)
