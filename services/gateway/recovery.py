"""Repair of a turn that its owner left behind: found expired, it is brought to an end without a new model call.

Under the fence it was found with, so an owner that wakes up and this repair exclude each other at the commit.
"""

from colloquy.history.v1 import history_pb2
from libs.runtime import context, telemetry
from libs.runtime.client import call
from libs.runtime.errors import Reason
from libs.runtime.server import Background
from services.gateway import domain, opening, telling
from services.gateway.claim import Claim
from services.gateway.composition import LATE_SCORE_CAP_MS, NOTHING_USED, Composition, Reply, own_words
from services.gateway.contexts import Contexts
from services.gateway.domain import Degradation
from services.gateway.settling import EVERYBODY, Settling, committed
from services.gateway.stopwatch import Stopwatch

READ_CAP_MS = 1000
REPAIR_MS = 2000


class Recovery:
    """Rolls an expired turn forward, answers it in the item's own wording, or abandons it."""

    def __init__(
        self, contexts: Contexts, composition: Composition, settling: Settling, background: Background
    ) -> None:
        self._contexts = contexts
        self._composition = composition
        self._settling = settling
        self._background = background

    async def repair(self, session_id: str, expired: history_pb2.OtherTurn) -> bool:
        """End the expired turn, so that the session can go on; whether it was this repair that ended it.

        Raises:
            TurnInProgress: its model call is still under way.
            ColloquyError: a context did not answer.
        """
        with context.deadline(REPAIR_MS):
            claim = await self._claim(session_id, expired)
            reply, how = await self._reply(claim)
            if reply is None:
                ended = await self._composition.give_back(claim, history_pb2.TURN_STATE_ABANDONED, Reason.UNAVAILABLE)
            else:
                ended = await self._commit(claim, reply)
        if ended:
            telling.TURNS_RECOVERED.labels(how).inc()
            telemetry.logger().info("turn_recovered", session_id=session_id, turn_id=expired.turn_id, how=how)
        return ended

    async def _commit(self, claim: Claim, reply: Reply) -> bool:
        final = reply.choice.final and claim.is_interview
        response = await self._composition.commit(claim, reply, None, final=final)
        if response.outcome != history_pb2.CommitTurnResponse.OUTCOME_COMMITTED:
            return False
        self._settling.add(committed(claim.owner.head, response))
        late = self._composition.assess(claim, LATE_SCORE_CAP_MS)
        self._background.spawn(late, name="late_score", budget_ms=LATE_SCORE_CAP_MS)
        return True

    async def _claim(self, session_id: str, expired: history_pb2.OtherTurn) -> Claim:
        """The expired claim, as its owner had it: the base's last turn and the head."""
        request = history_pb2.ListTurnsRequest(session_id=session_id, viewer=EVERYBODY, max_turns=1, newest=True)
        page = await call(self._contexts.history.ListTurns, request, READ_CAP_MS)
        owner = history_pb2.Owner(
            turn_id=expired.turn_id,
            fence=expired.fence,
            base_seq=expired.turn.base_seq,
            head=page.head,
            last_turn=page.turns[0] if page.turns else None,
        )
        granted = domain.budget(REPAIR_MS, None)
        return Claim(owner, expired.turn.user_text, Stopwatch(), granted, repair=True)

    async def _reply(self, claim: Claim) -> tuple[Reply | None, str]:
        """What to commit, without spending anything; None abandons the turn."""
        if claim.is_interview and claim.owner.base_seq == 0:
            return await opening.first_words(self._contexts, claim.owner.head), "bank"
        if made := await self._composition.rolled_forward(claim):
            return made, "rolled_forward"
        if not claim.is_interview:
            return None, "abandoned"
        choice = (await self._composition.choose(claim)).marked(Degradation.BANK)
        return own_words(choice, NOTHING_USED), "bank"
