"""StartSession: a session comes into being in three contexts, and an interview says its first words.

The stream is opened first: from then on the same request, or anybody who reads its facts, can finish the rest.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from colloquy.assessment.v1 import assessment_pb2
from colloquy.gateway.v1 import gateway_pb2, record_pb2
from colloquy.history.v1 import history_pb2
from colloquy.session.v1 import session_pb2
from libs.runtime import context, telemetry
from libs.runtime.client import call
from libs.runtime.errors import ColloquyError, DeadlineExceeded, TurnInProgress, Unavailable
from libs.runtime.server import Background
from services.gateway import domain, records
from services.gateway.claim import Claim
from services.gateway.composition import NOTHING_USED, Composition, Reply, own_words
from services.gateway.contexts import Contexts
from services.gateway.projections import run_of
from services.gateway.settling import Settling, committed
from services.gateway.stopwatch import Stopwatch

STEP_CAP_MS = 1000
PLAN_KEPT_SECONDS = 10.0
LEASE_RESERVE_MS = 2000  # a lease is the kind's whole budget and this
POLL_MS = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What a new session pins.

    interview_ms, chat_ms: the whole budget of a turn; max_turns: of an interview or chat; min_interval_ms: between two
    new messages, 0 for none.
    """

    interview_ms: int
    chat_ms: int
    max_turns: int
    min_interval_ms: int


class Sessions:
    """Opens sessions."""

    def __init__(
        self,
        contexts: Contexts,
        composition: Composition,
        settling: Settling,
        background: Background,
        limits: Limits,
        prompt_versions: Mapping[str, str],
    ) -> None:
        self._contexts = contexts
        self._composition = composition
        self._settling = settling
        self._background = background
        self._limits = limits
        self._prompt_versions = prompt_versions
        self._plans: dict[str, tuple[float, assessment_pb2.ResolvePlanResponse]] = {}

    async def start(
        self, asked: domain.Opening, owner_id: str, tenant_id: str, request_id: uuid.UUID | None
    ) -> gateway_pb2.StartSessionResponse:
        """Open a session, or answer with the one that this request opened.

        Raises:
            ColloquyError: as the contract of StartSession lists them.
        """
        watch, granted = Stopwatch(), domain.budget(self._limits.interview_ms, context.remaining_ms())
        request = await self._stream_of(asked, owner_id, tenant_id, request_id)
        opening: asyncio.Task[gateway_pb2.StartSessionResponse | ColloquyError] = self._background.spawn(
            self._opened(request, watch, granted), name="opening"
        )
        opened = await asyncio.shield(opening)
        if isinstance(opened, ColloquyError):
            raise opened
        return opened

    async def _opened(
        self, request: history_pb2.OpenStreamRequest, watch: Stopwatch, granted: domain.Budget
    ) -> gateway_pb2.StartSessionResponse | ColloquyError:
        """A task of its own, so that a claim which the ledger has granted is never left without its owner.

        Whoever asked may have left: a refusal is a result, no failure of the task.
        """
        try:
            return await self._open(request, watch, granted)
        except ColloquyError as error:
            return error

    async def _open(
        self, request: history_pb2.OpenStreamRequest, watch: Stopwatch, granted: domain.Budget
    ) -> gateway_pb2.StartSessionResponse:
        while True:
            opened = await self._ask(request, watch, granted)
            match opened.WhichOneof("outcome"):
                case "opened":
                    return await self._chat(opened)
                case "replay":
                    return await self._replay(opened)
                case "owner":
                    with context.deadline(opened.owner.lease_ms):
                        response = await self._open_interview(Claim(opened.owner, "", watch, granted))
                    if response.turn.state == history_pb2.TURN_STATE_COMMITTED:
                        return _started(opened.head, response.turn, replayed=False)
                case _:
                    if watch.left_ms(granted.total_ms) <= POLL_MS:
                        raise TurnInProgress(opened.in_progress.lease_left_ms)
            await _pause()

    async def _ask(
        self, request: history_pb2.OpenStreamRequest, watch: Stopwatch, granted: domain.Budget
    ) -> history_pb2.OpenStreamResponse:
        """Ask the ledger, and while the time allows again: if only its reply was lost, the claim id makes it the same
        claim, which else nobody would attend to until its lease ends. (A chat opens without a claim, and is told as
        opened before then: the header of its reply may call the first answer a replay.)"""
        while True:
            try:
                return await call(self._contexts.history.OpenStream, request, STEP_CAP_MS)
            except (Unavailable, DeadlineExceeded):
                if watch.left_ms(granted.total_ms) <= POLL_MS:
                    raise
            await _pause()

    async def _stream_of(
        self, asked: domain.Opening, owner_id: str, tenant_id: str, request_id: uuid.UUID | None
    ) -> history_pb2.OpenStreamRequest:
        """The stream that a request opens: immutable from here on, so everything is resolved first."""
        facts = record_pb2.SessionFacts(versions=self._prompt_versions)
        interview = asked.kind == "interview"
        if interview:
            plan = await self._resolve(asked.plan)
            facts.plan = plan.plan
            facts.versions["bank"] = plan.bank_version
        personal = record_pb2.PersonalFacts(candidate_name=asked.candidate_name, metadata=asked.metadata)
        session_id = domain.session_id_of(owner_id, request_id) if request_id else uuid.uuid4()
        budget_ms = self._limits.interview_ms if interview else self._limits.chat_ms
        return history_pb2.OpenStreamRequest(
            session_id=str(session_id),
            owner_id=owner_id,
            tenant_id=tenant_id,
            kind=history_pb2.KIND_INTERVIEW if interview else history_pb2.KIND_CHAT,
            request_id=str(request_id or uuid.uuid4()),
            fingerprint=asked.fingerprint(),
            facts=facts.SerializeToString(deterministic=True),
            personal_facts=personal.SerializeToString(deterministic=True),
            max_turns=self._limits.max_turns,
            min_interval_ms=self._limits.min_interval_ms,
            lease_ms=budget_ms + LEASE_RESERVE_MS,
            claim_id=str(uuid.uuid4()),
            with_opening=interview,
        )

    async def _resolve(self, plan: str) -> assessment_pb2.ResolvePlanResponse:
        kept = self._plans.get(plan)
        if kept and time.monotonic() - kept[0] < PLAN_KEPT_SECONDS:
            return kept[1]
        request = assessment_pb2.ResolvePlanRequest(plan=plan)
        resolved = await call(self._contexts.assessment.ResolvePlan, request, STEP_CAP_MS)
        self._plans[plan] = (time.monotonic(), resolved)
        return resolved

    async def _chat(self, opened: history_pb2.OpenStreamResponse) -> gateway_pb2.StartSessionResponse:
        if opened.head.acked_rev < opened.head.rev:
            await self._enter(opened.head)
            self._settling.add(run_of(opened.head))
        return gateway_pb2.StartSessionResponse(session=records.opened_view(opened.head, 0), replayed=opened.replayed)

    async def _replay(self, opened: history_pb2.OpenStreamResponse) -> gateway_pb2.StartSessionResponse:
        """The opening stands; a half-made session is finished on the way, so that it is listed."""
        if opened.head.acked_rev < opened.head.rev:
            await self._enter(opened.head)
            self._settling.catch_up_soon(opened.head.session_id)
        return _started(opened.head, opened.replay, replayed=True)

    async def _open_interview(self, claim: Claim) -> history_pb2.CommitTurnResponse:
        """Start and Create, then the opening is committed like any turn.

        Where that fails the claim is not given back: an opening that is ABANDONED would let a message in before it.
        Its lease ends, and the same request or the next message finishes it.
        """
        head = claim.owner.head
        entering = self._background.spawn(self._enter(head), name="enter", budget_ms=STEP_CAP_MS)
        with claim.watch.stage("plan"):
            reply = await first_words(self._contexts, head)
        await asyncio.wait({entering})
        response = await self._composition.commit(claim, reply, NOTHING_USED, final=False)
        if response.outcome == history_pb2.CommitTurnResponse.OUTCOME_COMMITTED:
            self._settling.add(committed(head, response))
        return response

    async def _enter(self, head: history_pb2.Head) -> None:
        """Enter the session into the directory, so that a list shows it; if that fails, settling does it."""
        request = session_pb2.CreateSessionRequest(session=records.directory_entry(head))
        try:
            await call(self._contexts.session.CreateSession, request, STEP_CAP_MS)
        except ColloquyError as error:
            telemetry.logger().warning("not_listed_yet", session_id=head.session_id, reason=str(error.reason))


async def _pause() -> None:
    await asyncio.sleep(POLL_MS * random.uniform(0.75, 1.25) / 1000)


async def first_words(contexts: Contexts, head: history_pb2.Head) -> Reply:
    """The opening: a greeting and the first item, in their own wording."""
    started = await call(contexts.assessment.StartInterview, records.start_request(head), STEP_CAP_MS)
    items = records.items_of_plan(started.plan)
    if not items:
        raise Unavailable
    choice = domain.Choice(items[0], items[1:], started.plan.closing_text)
    reply = own_words(choice)
    return Reply(started.opening_text, reply.choice, reply.usage, reply.versions)


def _started(head: history_pb2.Head, opening: history_pb2.Turn, *, replayed: bool) -> gateway_pb2.StartSessionResponse:
    if opening.state == history_pb2.TURN_STATE_FAILED:
        raise records.frozen_error(opening)
    return gateway_pb2.StartSessionResponse(
        session=records.opened_view(head, 1), opening=records.turn_view(head.session_id, opening), replayed=replayed
    )
