"""Assessment on a real llm-gateway: what an answer costs, counted where it is paid, at the provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import pytest

from colloquy.llm.v1 import llm_pb2 as pb
from libs.runtime import client, db
from libs.runtime.errors import NotFound, Unavailable
from services.assessment.answers import Answer, Answers, Assessed
from services.assessment.evidence import AnswerKey, SessionId, TurnId
from services.assessment.judge import Judge
from services.assessment.store import Store
from services.assessment.usecases import Interviews
from tests.databases import Database
from tests.rpc.assessment_world import ANSWER, CATALOGUE, QUESTION, verdict
from tests.rpc.llm_world import CAP_MS, Step, World, completion, refuses, says, shared_world, world

__all__ = ["shared_world", "world"]  # fixtures


class Assessment:
    """The service's use cases, with the llm-gateway behind them."""

    def __init__(self, store: Store, llm: World) -> None:
        self.llm, self.interviews = llm, Interviews(store, CATALOGUE)
        self._answers = Answers(store, CATALOGUE, Judge(llm.stub))

    async def answer(self) -> Answer:
        """An answer in an interview that has just begun."""
        session_id = SessionId(uuid4())
        await self.interviews.start(session_id, "backend-engineer", "backend-engineer/1", "")
        key = AnswerKey(session_id, TurnId(uuid4()))
        return Answer(key, "backend-engineer/1", "data-suddenly-slow-query", QUESTION, ANSWER, degraded=False)

    async def assess(self, answer: Answer) -> Assessed:
        return await self._answers.assess(answer)

    async def settled(self, answer: Answer) -> Assessed:
        """What is asked for until it is there."""
        async with asyncio.timeout(20):
            while True:
                with suppress(Unavailable):
                    return await self.assess(answer)

    async def clear(self, answer: Answer) -> None:
        key = answer.key
        request = pb.ClearResultsRequest(session_id=str(key.session_id), turn_ids=[str(key.turn_id)])
        await client.call(self.llm.stub.ClearResults, request, CAP_MS)


@pytest.fixture
async def assessment(database: Database, world: World) -> AsyncIterator[Assessment]:
    pool = db.Database(database.dsns["assessment"], "assessment", pool_size=24, statement_timeout_ms=10_000)
    yield Assessment(Store(pool), world)
    await pool.close()


async def test_a_score_is_paid_for_once_also_when_its_call_has_been_cleared(assessment: Assessment) -> None:
    answer, provider = await assessment.answer(), assessment.llm.provider
    provider.script = [says(completion(verdict(3)))]

    scored = await assessment.assess(answer)
    again = await assessment.assess(answer)
    await assessment.clear(answer)
    cleared = await assessment.assess(answer)

    assert scored.level == 3
    assert scored.usage.prompt_tokens > 0
    assert again == cleared == scored
    assert len(provider.received) == 1


@pytest.mark.parametrize("step", [refuses(401), says(completion(verdict(9)))], ids=["failed", "rejected"])
async def test_an_answer_is_given_up_after_three_requests_and_costs_none_afterwards(
    assessment: Assessment, step: Step
) -> None:
    answer, provider = await assessment.answer(), assessment.llm.provider
    provider.script = [step] * 100

    for _ in range(4):
        await asyncio.gather(*(assessment.assess(answer) for _ in range(10)), return_exceptions=True)
    given_up = await assessment.settled(answer)
    await assessment.clear(answer)
    again = await assessment.settled(answer)

    assert given_up.level is None
    assert again == given_up
    assert len(provider.received) == 3


async def test_an_erased_interview_is_not_judged_again(assessment: Assessment) -> None:
    answer, provider = await assessment.answer(), assessment.llm.provider
    provider.script = [refuses(401)]
    with pytest.raises(Unavailable):
        await assessment.assess(answer)
    await assessment.interviews.erase(answer.key.session_id)

    with pytest.raises(NotFound):
        await assessment.assess(answer)

    assert len(provider.received) == 1
