"""The parts of a turn: the choice, the question, the score, the commit. Each has a way out when its source is late.

The ladder of an interview's question: the model's phrasing, else the item's own wording; without a plan the head of
the last record's next items in its own wording. A chat has no ladder: without a model there is no reply.
"""

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass

from colloquy.assessment.v1 import assessment_pb2
from colloquy.gateway.v1 import gateway_pb2, record_pb2
from colloquy.history.v1 import history_pb2
from colloquy.llm.v1 import llm_pb2
from libs.prompts import rendering
from libs.runtime import context
from libs.runtime.client import call, stream
from libs.runtime.errors import (
    ColloquyError,
    DeadlineExceeded,
    InvalidField,
    NotFound,
    Reason,
    TurnInProgress,
    Unavailable,
)
from services.gateway import records
from services.gateway.claim import Claim
from services.gateway.contexts import Contexts
from services.gateway.domain import Choice, Degradation, choose, usable_reply
from services.gateway.live import LiveTurn
from services.gateway.settling import EVERYBODY, PAGE_TURNS

COMMIT_CAP_MS = 1000
RELEASE_CAP_MS = 500
GET_CALL_CAP_MS = 300
LATE_SCORE_CAP_MS = 14_000  # above the llm-gateway's lease of one call
ROLES = {
    "system": llm_pb2.Message.ROLE_SYSTEM,
    "user": llm_pb2.Message.ROLE_USER,
    "assistant": llm_pb2.Message.ROLE_ASSISTANT,
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What will be said, and what it took."""

    text: str
    choice: Choice
    usage: llm_pb2.Usage
    versions: dict[str, str]


NOTHING_USED = llm_pb2.Usage()


class RefusedError(Exception):
    """The provider refuses the message for what it says, or has said what cannot be shown: no reply will ever come."""


class Composition:
    """Makes the parts of a turn out of the contexts."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    async def choose(self, claim: Claim) -> Choice:
        """What to ask after the base. Without a plan in time: what the last record offers.

        Raises:
            Unavailable: neither a plan nor a record that says what may come next. A repair closes the interview then.
        """
        owner = claim.owner
        try:
            with claim.watch.stage("plan"):
                plan = await self._plan(claim)
        except ColloquyError as error:
            if not owner.HasField("last_turn"):
                raise Unavailable from error
            left = records.fallback(owner.last_turn)
            # A plan that left nothing had come to its end; a supply that was used up without plans says nothing.
            if left.item is None and Degradation.PLAN in left.degraded and not claim.repair:
                raise Unavailable from error
            items = (left.item, *left.alternatives) if left.item else ()
            closing_text, marks = left.closing_text, [Degradation.PLAN]
        else:
            items, closing_text, marks = records.items_of_plan(plan), plan.closing_text, []
        chosen = choose(items, closing_text, base_seq=owner.base_seq, max_turns=owner.head.max_turns)
        return chosen.marked(*marks)

    async def phrase(self, claim: Claim, choice: Choice, live: LiveTurn) -> Reply:
        """The choice in a model's words, or in its own where the model is late, broken or not to be asked.

        A call that was made for this turn before comes back with the choice it was made for.
        """
        if choice.item is None or Degradation.PLAN in choice.degraded:
            return (await self.rolled_forward(claim) if claim.owner.takeover else None) or own_words(choice)
        prompt = rendering.render_question(
            choice.item.wording,
            [("candidate" if said.from_user else "interviewer", said.text) for said in claim.owner.window],
            claim.text,
            record_pb2.PersonalFacts.FromString(claim.owner.head.personal_facts).candidate_name or None,
        )
        try:
            with claim.watch.stage("question"):
                made = await self._generate(claim, "question", prompt, live, context_bytes=records.context_of(choice))
        except ColloquyError:
            return own_words(choice.marked(Degradation.BANK))
        return reply_of(made) or own_words(records.choice_of(made.context).marked(Degradation.BANK), made.usage)

    async def rolled_forward(self, claim: Claim) -> Reply | None:
        """What an earlier owner's call of this turn has brought, without a new one; None where that is nothing.

        Raises:
            TurnInProgress: the call of a turn under repair is still under way.
        """
        request = llm_pb2.GetCallRequest(
            session_id=claim.session_id,
            turn_id=claim.owner.turn_id,
            purpose="question" if claim.is_interview else "chat",
        )
        try:
            made = (await call(self._contexts.llm.GetCall, request, GET_CALL_CAP_MS)).call
        except NotFound:
            return None
        except ColloquyError:
            if claim.is_interview:  # its own wording needs nobody, and the fence keeps it safe
                return None
            raise
        if made.state == llm_pb2.CALL_STATE_INFLIGHT and claim.repair:
            raise TurnInProgress(made.lease_left_ms)
        return reply_of(made) if made.state == llm_pb2.CALL_STATE_DONE else None

    async def answer_chat(self, claim: Claim, live: LiveTurn) -> Reply:
        """A chat's reply.

        Raises:
            RefusedError: there will never be one.
            ColloquyError: there is no reply now.
        """
        prompt = rendering.render_chat(
            [("user" if said.from_user else "assistant", said.text) for said in claim.owner.window], claim.text
        )
        try:
            with claim.watch.stage("question"):
                made = await self._generate(claim, "chat", prompt, live)
        except InvalidField as error:
            raise RefusedError from error
        reply = reply_of(made)
        if reply is None:  # and never another: a call that is DONE says the same to whoever asks
            raise RefusedError
        return reply

    async def assess(self, claim: Claim, cap_ms: float) -> llm_pb2.Usage | None:
        """Have the answer scored; what the judge consumed, or None where that is late or failed."""
        owner = claim.owner
        if not claim.item_answered:
            return NOTHING_USED
        bank_version = record_pb2.SessionFacts.FromString(owner.head.facts).versions["bank"]
        request = records.answer_to_judge(
            claim.session_id, owner.turn_id, claim.text, owner.last_turn, bank_version=bank_version
        )
        try:
            with claim.watch.stage("judge"):
                score = await call(self._contexts.assessment.AssessAnswer, request, cap_ms)
        except ColloquyError:
            return None
        return llm_pb2.Usage(
            prompt_tokens=score.prompt_tokens,
            completion_tokens=score.completion_tokens,
            cost_nano_usd=score.cost_nano_usd,
        )

    async def commit(
        self, claim: Claim, reply: Reply, judged: llm_pb2.Usage | None, *, final: bool
    ) -> history_pb2.CommitTurnResponse:
        """Offer the reply to the ledger, one rung lower while its item turns out to be asked already.

        Raises:
            ColloquyError: not confirmed before the lease ended.
        """
        while True:
            response = await self._commit_once(claim, commit_request(claim, reply, judged, final=final))
            if response.outcome != history_pb2.CommitTurnResponse.OUTCOME_ITEM_ALREADY_ASKED:
                return response
            reply = own_words(reply.choice.without_its_item().marked(Degradation.BANK), reply.usage)
            final = reply.choice.final

    async def give_back(self, claim: Claim, state: history_pb2.TurnState.ValueType, reason: Reason) -> bool:
        """End the claim: ABANDONED, so that the same request id may try again at once, or FAILED for good.

        Whether the claim was still held, as far as that can be known.
        """
        release = history_pb2.ReleaseTurnRequest(
            session_id=claim.session_id,
            turn_id=claim.owner.turn_id,
            fence=claim.owner.fence,
            state=state,
            reason=reason.value,
        )
        with context.detach(RELEASE_CAP_MS):
            try:
                return (await call(self._contexts.history.ReleaseTurn, release, RELEASE_CAP_MS)).released
            except ColloquyError:
                return False

    async def _commit_once(
        self, claim: Claim, request: history_pb2.CommitTurnRequest
    ) -> history_pb2.CommitTurnResponse:
        """Ask until the ledger has answered or the lease is over: the commit is idempotent by its turn."""
        while True:
            try:
                with claim.watch.stage("commit"):
                    return await call(self._contexts.history.CommitTurn, request, COMMIT_CAP_MS)
            except (Unavailable, DeadlineExceeded):
                pause_ms = random.uniform(20, 80)
                if (context.remaining_ms() or 0) <= pause_ms:
                    raise
                await asyncio.sleep(pause_ms / 1000)

    async def _plan(self, claim: Claim) -> assessment_pb2.Plan:
        """The plan at the base, with one batched repair where the assessment is behind."""
        owner = claim.owner
        request = assessment_pb2.GetPlanRequest(
            session_id=claim.session_id,
            base_seq=owner.base_seq,
            turns=[records.assessed_turn(owner.last_turn)] if owner.HasField("last_turn") else [],
        )
        try:
            plan = await self._ask_plan(claim, request)
        except NotFound:
            start = records.start_request(owner.head)
            plan = (await call(self._contexts.assessment.StartInterview, start, claim.plan_cap_ms())).plan
        if plan.applied_seq != owner.base_seq:
            missing = history_pb2.ListTurnsRequest(
                session_id=claim.session_id, viewer=EVERYBODY, after_seq=plan.applied_seq, max_turns=PAGE_TURNS
            )
            page = await call(self._contexts.history.ListTurns, missing, claim.plan_cap_ms())
            del request.turns[:]
            request.turns.extend(records.assessed_turn(turn) for turn in page.turns)
            plan = await self._ask_plan(claim, request)
        if plan.applied_seq != owner.base_seq:
            raise Unavailable
        return plan

    async def _ask_plan(self, claim: Claim, request: assessment_pb2.GetPlanRequest) -> assessment_pb2.Plan:
        return (await call(self._contexts.assessment.GetPlan, request, claim.plan_cap_ms())).plan

    async def _generate(
        self,
        claim: Claim,
        purpose: str,
        prompt: rendering.Rendered,
        live: LiveTurn,
        context_bytes: bytes = b"",
    ) -> llm_pb2.Call:
        request = llm_pb2.GenerateRequest(
            session_id=claim.session_id,
            turn_id=claim.owner.turn_id,
            purpose=purpose,
            prompt=llm_pb2.Prompt(
                messages=[
                    llm_pb2.Message(role=ROLES[said["role"]], content=said["content"]) for said in prompt.messages
                ],
                version=prompt.version,
                max_output_tokens=prompt.max_output_tokens,
                temperature=prompt.temperature,
                json_schema=prompt.json_schema,
            ),
            context=context_bytes,
        )
        cap_ms = claim.model_cap_ms()
        if not claim.streamed:
            return (await call(self._contexts.llm.Generate, request, cap_ms)).call
        wanted = llm_pb2.StreamGenerateRequest(call=request)
        made = None
        async with aclosing(stream(self._contexts.llm.StreamGenerate, wanted, cap_ms)) as events:
            async for event in events:  # to its end: leaving after `done` would cancel a call that has succeeded
                if event.HasField("done"):
                    made = event.done.call
                else:
                    live.write(event.delta)
        if made is None:
            raise Unavailable
        return made


def reply_of(made: llm_pb2.Call) -> Reply | None:
    """What a DONE call says, with the choice it was made for; None where that cannot be said."""
    chosen = records.choice_of(made.context)
    cut_off = made.finish_reason == "length" and chosen.item is not None
    text = None if cut_off else usable_reply(made.text)
    versions = {"prompt": made.prompt_version, "model": made.model}
    return Reply(text, chosen, made.usage, versions) if text else None


def own_words(choice: Choice, usage: llm_pb2.Usage = NOTHING_USED) -> Reply:
    """The choice without a model."""
    return Reply(choice.own_wording(), choice, usage, {})


def commit_request(
    claim: Claim, reply: Reply, judged: llm_pb2.Usage | None, *, final: bool
) -> history_pb2.CommitTurnRequest:
    """The commit of a reply, with the record that is frozen in it."""
    scored = judged or NOTHING_USED
    usage = gateway_pb2.Usage(
        prompt_tokens=reply.usage.prompt_tokens + scored.prompt_tokens,
        completion_tokens=reply.usage.completion_tokens + scored.completion_tokens,
        cost_nano_usd=reply.usage.cost_nano_usd + scored.cost_nano_usd,
    )
    facts = record_pb2.SessionFacts.FromString(claim.owner.head.facts)
    record = records.record_of(
        reply.choice,
        final=final,
        timing=claim.watch.timing(claim.granted.total_ms),
        usage=usage,
        versions={**facts.versions, **reply.versions},
        committed_by=claim.committed_by,
        scored=judged is not None,
    )
    return history_pb2.CommitTurnRequest(
        session_id=claim.session_id,
        turn_id=claim.owner.turn_id,
        fence=claim.owner.fence,
        reply_text=reply.text,
        record=record,
        item_asked=reply.choice.item.item_id if reply.choice.item else "",
        final=final,
    )
