"""One turn, as the protocol has it: begin, choose, ask and judge in parallel, commit, settle.

Only BeginTurn refuses and only CommitTurn makes it true; everything between is repeatable. From its arrival a message
is attended by a task of its own, shared by all who send the same: whoever waits may leave, the turn goes on.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from colloquy.gateway.v1 import gateway_pb2
from colloquy.history.v1 import history_pb2
from libs.runtime import context
from libs.runtime.client import call
from libs.runtime.errors import (
    ColloquyError,
    DeadlineExceeded,
    Internal,
    NotFound,
    RateLimited,
    Reason,
    TurnInProgress,
    Unavailable,
)
from libs.runtime.server import Background
from services.gateway import domain, records, telling
from services.gateway.claim import Claim, Message
from services.gateway.composition import LATE_SCORE_CAP_MS, Composition, RefusedError
from services.gateway.contexts import Contexts
from services.gateway.live import LiveTurn, Outcome
from services.gateway.recovery import Recovery
from services.gateway.settling import Settling, committed
from services.gateway.stopwatch import Stopwatch

BEGIN_CAP_MS = 1000
POLL_MS = 100
TAKEOVER_NEEDS_MS = 300  # with less, taking a turn over could not answer whoever waits
WINDOW = history_pb2.WindowLimit(max_messages=10, max_tokens=3000)

NOT_CONFIRMED = "Not confirmed; send the same message again with the same request id."
_T = TypeVar("_T")

# What a caller may hear of another context's failure; anything else there is a defect of ours.
_TOLD = (Unavailable, DeadlineExceeded, NotFound, TurnInProgress)


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
        self._live: dict[Message, LiveTurn] = {}

    async def submit(self, message: Message) -> gateway_pb2.SubmitTurnResponse:
        """Answer a message, or say why not.

        Raises:
            ColloquyError: as the contract of SubmitTurn lists them.
        """
        watch, waits_ms = Stopwatch(), self._waits_ms(self._budgets.interview_ms)
        live, mine = self._attend(message, streamed=False)
        with live.wanted(waits_ms):
            outcome = await _outcome(live, watch.left_ms(waits_ms), mine=mine)
        return _answer(message.session_id, outcome, mine=mine)

    async def stream(self, message: Message) -> AsyncIterator[gateway_pb2.StreamTurnResponse]:
        """The same turn as it is written: `accepted`, drafts, `completed`."""
        watch, waits_ms = Stopwatch(), self._waits_ms(self._budgets.chat_ms)
        live, mine = self._attend(message, streamed=True)
        with live.wanted(waits_ms):
            accepted = await _within(live.accepted(), waits_ms, lambda: Unavailable(NOT_CONFIRMED))
            told = gateway_pb2.StreamTurnResponse.Accepted(
                turn_id=accepted.turn_id, request_id=message.request_id, replayed=accepted.followed or not mine
            )
            yield gateway_pb2.StreamTurnResponse(accepted=told)
            # Who follows another replica knows the kind only if the message names it. Else it may be a chat's, and has
            # a chat's time within the caller's deadline; whoever takes an interview over keeps to its budget.
            is_interview = accepted.kind == history_pb2.KIND_INTERVIEW
            if is_interview:
                waits_ms = min(waits_ms, self._budgets.interview_ms)
            # What another replica writes is not to be had here: its first words come with the reply.
            is_promised = not is_interview and mine and not live.is_followed
            first_ms = min(waits_ms, domain.FIRST_DELTA_MS) if is_promised else waits_ms
            async for piece in _draft(live, watch, first_ms, waits_ms, mine=mine):
                yield gateway_pb2.StreamTurnResponse(delta=piece)
            outcome = await _outcome(live, watch.left_ms(waits_ms), mine=mine)
        yield gateway_pb2.StreamTurnResponse(completed=_answer(message.session_id, outcome, mine=mine))

    # -- step 1: BeginTurn ---------------------------------------------------------------------------------------------

    def _attend(self, message: Message, *, streamed: bool) -> tuple[LiveTurn, bool]:
        """The live turn of this message, and whether this request is the first of this process to send it."""
        live = self._live.get(message)
        if live is not None:
            return live, False
        live = self._live[message] = LiveTurn()
        left_ms = context.remaining_ms()
        self._background.spawn(self._run(message, live, left_ms, streamed=streamed), name="turn")
        return live, True

    async def _run(self, message: Message, live: LiveTurn, caller_left_ms: int | None, *, streamed: bool) -> None:
        """Find out who answers the message; answer it where that is us, else wait for it as long as anybody does."""
        watch, claim_id = Stopwatch(), uuid.uuid4()
        try:
            while True:
                begun = await self._begin(message, claim_id, live, watch)
                match begun.WhichOneof("outcome"):
                    case "replay":
                        live.accept(begun.replay.turn_id, message.kind, 0, followed=True)
                        live.complete(Outcome(begun.replay, made_here=False))
                        return
                    case "owner":
                        owner = begun.owner
                        live.accept(owner.turn_id, owner.head.kind, owner.lease_ms, followed=False)
                        claim = self._claim(owner, message, watch, caller_left_ms, streamed=streamed)
                        if turn := await self._answer(claim, live):
                            live.complete(Outcome(turn, made_here=True))
                            return
                        claim_id = uuid.uuid4()  # somebody else has the turn now: follow them
                    case "in_progress":
                        live.accept(
                            begun.in_progress.turn_id, message.kind, begun.in_progress.lease_left_ms, followed=True
                        )
                    case _:
                        if begun.other_turn.lease_left_ms > 0:
                            raise TurnInProgress(begun.other_turn.lease_left_ms)
                        if await self._repair(message.session_id, begun.other_turn):
                            continue
                await self._follow(live)
                watch, caller_left_ms = Stopwatch(), int(live.wanted_ms()) + domain.CALLER_RESERVE_MS
        except ColloquyError as error:
            live.fail(error)
        except BaseException:
            live.fail(Internal())
            raise
        finally:
            del self._live[message]

    async def _begin(
        self, message: Message, claim_id: uuid.UUID, live: LiveTurn, watch: Stopwatch
    ) -> history_pb2.BeginTurnResponse:
        """Ask the ledger; a lost reply costs nothing, since the claim id makes it the same claim. Once the message is
        saved, silence is ridden out for as long as anybody waits."""
        tries = 0
        while True:
            try:
                with watch.stage("begin"):
                    return await call(self._contexts.history.BeginTurn, message.begin(WINDOW, claim_id), BEGIN_CAP_MS)
            except RateLimited:
                telling.RATE_LIMITED.labels("turn_interval").inc()
                raise
            except (Unavailable, DeadlineExceeded) as error:
                tries += 1
                if tries > 1 and not (live.is_accepted and live.wanted_ms() > POLL_MS):
                    raise Unavailable(NOT_CONFIRMED) from error
                await _pause()

    async def _repair(self, session_id: str, expired: history_pb2.OtherTurn) -> bool:
        """Bring the turn of another message to its end. What is wrong with that one is not for this one to hear."""
        try:
            return await self._recovery.repair(session_id, expired)
        except _TOLD:
            raise
        except ColloquyError as error:
            raise Internal from error

    async def _follow(self, live: LiveTurn) -> None:
        """Let whoever has the claim go on for a moment.

        Raises:
            TurnInProgress: nobody waits any more, or not for long enough to take over.
        """
        lease_left_ms, wanted_ms = live.lease_left_ms(), live.wanted_ms()
        if wanted_ms <= 0 or (lease_left_ms <= POLL_MS and wanted_ms < TAKEOVER_NEEDS_MS):
            raise TurnInProgress(lease_left_ms)
        await _pause()

    def _claim(
        self, owner: history_pb2.Owner, message: Message, watch: Stopwatch, left_ms: int | None, *, streamed: bool
    ) -> Claim:
        context.bind(turn_id=owner.turn_id)
        if owner.takeover:
            telling.TURNS_RECOVERED.labels("takeover").inc()
        is_chat = owner.head.kind == history_pb2.KIND_CHAT
        granted = domain.budget(self._budgets.chat_ms, None) if is_chat else self._budget(left_ms)
        # A chat is always streamed here: its reply may be resumed as a stream after a first wait without one.
        return Claim(owner, message.text, watch, granted, streamed=streamed or is_chat)

    # -- steps 2 to 5 --------------------------------------------------------------------------------------------------

    async def _answer(self, claim: Claim, live: LiveTurn) -> history_pb2.Turn | None:
        """Compose and commit; the turn as the ledger has it, None where somebody else has taken it over.

        Raises:
            ColloquyError: there is no answer now, and the claim was given back.
        """
        try:
            with context.deadline(claim.owner.lease_ms):
                response = await (self._interview if claim.is_interview else self._chat)(claim, live)
        except RefusedError:
            if await self._composition.give_back(claim, history_pb2.TURN_STATE_FAILED, Reason.INVALID_FIELD):
                self._tell(claim, "refused")
                return history_pb2.Turn(
                    turn_id=claim.owner.turn_id, state=history_pb2.TURN_STATE_FAILED, reason=Reason.INVALID_FIELD.value
                )
            return None
        except Exception as error:
            await self._composition.give_back(claim, history_pb2.TURN_STATE_ABANDONED, Reason.UNAVAILABLE)
            self._tell(claim, "abandoned")
            if isinstance(error, ColloquyError) and not isinstance(error, _TOLD):
                raise Internal from error
            raise
        return self._conclude(claim, response)

    async def _interview(self, claim: Claim, live: LiveTurn) -> history_pb2.CommitTurnResponse:
        judge = self._composition.assess(claim, claim.model_cap_ms())
        judging = self._background.spawn(judge, name="judge", budget_ms=claim.owner.lease_ms)
        choice = await self._composition.choose(claim)
        reply = await self._composition.phrase(claim, choice, live)
        judged = await judging
        response = await self._composition.commit(claim, reply, judged, final=reply.choice.final)
        if judged is None and response.turn.state == history_pb2.TURN_STATE_COMMITTED:
            late = self._composition.assess(claim, LATE_SCORE_CAP_MS)
            self._background.spawn(late, name="late_score", budget_ms=LATE_SCORE_CAP_MS)
        return response

    async def _chat(self, claim: Claim, live: LiveTurn) -> history_pb2.CommitTurnResponse:
        reply = await self._composition.answer_chat(claim, live)
        return await self._composition.commit(claim, reply, None, final=False)

    def _conclude(self, claim: Claim, response: history_pb2.CommitTurnResponse) -> history_pb2.Turn | None:
        """What the ledger says is what everybody hears; what it holds is settled."""
        turn = response.turn
        match response.outcome:
            case history_pb2.CommitTurnResponse.OUTCOME_COMMITTED:
                self._settling.add(committed(claim.owner.head, response))
                self._tell(claim, "committed", next(iter(records.turn_view(claim.session_id, turn).degraded), ""))
            case history_pb2.CommitTurnResponse.OUTCOME_DUPLICATE:
                # The reply to our commit was lost, or another owner's commit came first: its settling may be lost too.
                self._settling.catch_up_soon(claim.session_id)
                self._tell(claim, "duplicate")
            case _:
                self._tell(claim, "fenced")
        ended = turn.state in (history_pb2.TURN_STATE_COMMITTED, history_pb2.TURN_STATE_FAILED)
        return turn if ended else None

    def _tell(self, claim: Claim, outcome: str, degraded: str = "") -> None:
        kind = "interview" if claim.is_interview else "chat"
        took_ms, stages = claim.watch.elapsed_ms(), claim.watch.stages
        telling.TURNS.labels(kind, outcome, degraded).inc()
        telling.TURN_DURATION.labels(kind, outcome).observe(took_ms / 1000)
        for stage, stage_ms in stages.items():
            telling.TURN_STAGE.labels(stage).observe(stage_ms / 1000)
        if outcome == "committed":
            models_ms = max(stages.get("question", 0.0), stages.get("judge", 0.0))
            telling.TURN_OVERHEAD.observe((took_ms - models_ms) / 1000)

    def _waits_ms(self, kind_ms: int) -> float:
        """How long a caller waits: for its kind's budget, within its own deadline."""
        return domain.budget(kind_ms, context.remaining_ms()).total_ms

    def _budget(self, caller_left_ms: int | None) -> domain.Budget:
        return domain.budget(self._budgets.interview_ms, caller_left_ms)


async def _pause() -> None:
    await asyncio.sleep(POLL_MS * random.uniform(0.75, 1.25) / 1000)


async def _outcome(live: LiveTurn, left_ms: float, *, mine: bool) -> Outcome:
    """Wait for the outcome."""
    return await _within(live.outcome(), left_ms, lambda: _too_late(live, mine=mine))


def _too_late(live: LiveTurn, *, mine: bool) -> ColloquyError:
    """Who made the turn and waits too long hears DEADLINE_EXCEEDED, who follows, when to ask."""
    return TurnInProgress(live.lease_left_ms()) if live.is_followed or not mine else DeadlineExceeded()


async def _draft(
    live: LiveTurn, watch: Stopwatch, first_ms: float, rest_ms: float, *, mine: bool
) -> AsyncIterator[str]:
    """The draft as it grows: its first piece until `first_ms` of the watch, the rest until `rest_ms`."""
    pieces, until_ms = aiter(live.draft()), first_ms
    while True:
        try:
            piece = await _within(anext(pieces), watch.left_ms(until_ms), lambda: _too_late(live, mine=mine))
        except StopAsyncIteration:
            return
        yield piece
        until_ms = rest_ms


async def _within(waited: Awaitable[_T], left_ms: float, late: Callable[[], ColloquyError]) -> _T:
    """Wait for so long, then raise what `late` says."""
    try:
        async with asyncio.timeout(max(0.0, left_ms / 1000)):
            return await waited
    except TimeoutError:
        raise late() from None


def _answer(session_id: str, outcome: Outcome, *, mine: bool) -> gateway_pb2.SubmitTurnResponse:
    """A committed turn; a FAILED one is the error it was frozen with."""
    if outcome.turn.state == history_pb2.TURN_STATE_FAILED:
        raise records.frozen_error(outcome.turn)
    replayed = not (mine and outcome.made_here)
    return gateway_pb2.SubmitTurnResponse(turn=records.turn_view(session_id, outcome.turn), replayed=replayed)
