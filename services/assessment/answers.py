"""What assessment does with an answer: have it judged until it has a score for good, or is given up.

The llm-gateway's ledger makes each judge call once, whoever asks, so an answer is asked for without being looked up
first: one that has been judged finds its call DONE, and its score stored. It is looked up where that call came to
nothing, or what it said has been cleared, before anything more is spent on it.
"""

from dataclasses import dataclass

from libs.prompts import rendering
from libs.prompts.rendering import Rendered
from libs.runtime import telemetry
from libs.runtime.errors import FieldViolation, InvalidField, NotFound, Unavailable
from services.assessment.catalogue import Catalogue
from services.assessment.domain import Item, ItemId, Level
from services.assessment.evidence import (
    MAX_FAILED_CALLS,
    AnswerKey,
    AnswerState,
    Scored,
    Standing,
    UnscoredPage,
    UnscoredRequest,
)
from services.assessment.judge import PURPOSES, Judge, Reply, Usage
from services.assessment.judging import Rejection, Verdict, read_verdict, score_of
from services.assessment.store import Store


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to be judged: the question as it was asked, and what was written. `degraded`: the question was not
    asked as usual, so the score carries a wider error."""

    key: AnswerKey
    bank_version: str
    item_id: str
    question: str
    text: str
    degraded: bool


@dataclass(frozen=True, slots=True)
class Assessed:
    """Where an answer stands for good, and what its judge calls consumed; `level` is None for an unscorable one."""

    level: Level | None
    usage: Usage


class Answers:
    """The answers and their scores."""

    def __init__(self, store: Store, catalogue: Catalogue, judge: Judge) -> None:
        self._store = store
        self._catalogue = catalogue
        self._judge = judge

    async def assess(self, answer: Answer) -> Assessed:
        """Have an answer judged and record its score, where it has none.

        Raises:
            InvalidField: no such bank or item.
            NotFound: the interview is absent or erased.
            DeadlineExceeded: the judge is late; its call goes on.
            Unavailable: the judge failed, or cannot be reached.
        """
        item = self._item(answer)
        prompt = rendering.render_judge(answer.question or item.wording, item.rubric, answer.text)
        failed_calls, usage = 0, Usage()
        for purpose in PURPOSES:
            reply = await self._judge.ask(answer.key, purpose, prompt)
            if reply.exhausted:
                again = await self._again(answer, item, purpose, prompt)
                if isinstance(again, Assessed):
                    return again
                reply = again
            failed_calls += reply.failed_calls
            usage += reply.usage
            if reply.text is None:
                break
            verdict = read_verdict(
                reply.text, top_level=item.top_level, answer=answer.text, shown=rendering.shown_answer(answer.text)
            )
            if isinstance(verdict, Verdict):
                return _for_good(await self._score(answer, item, verdict, reply, failed_calls), usage)
            _note(purpose, reply, verdict)
            failed_calls += 1
            if failed_calls >= MAX_FAILED_CALLS:
                break
        return _for_good(await self._fail(answer, item, failed_calls), usage)

    async def unscored(self, request: UnscoredRequest) -> UnscoredPage:
        """Answers that have a seq and no score, those that have waited longest first."""
        return await self._store.unscored(request)

    async def _again(self, answer: Answer, item: Item, purpose: str, prompt: Rendered) -> Reply | Assessed:
        """Repeat a call that came to nothing before, or was cleared; or tell where its answer stands for good.

        The llm-gateway's ledger has all calls that were made, those whose end was never recorded here too. One that
        somebody else has begun meanwhile is followed: it may be the last, and bring a verdict.
        """
        spent = await self._judge.spent(answer.key)
        known = await self._store.standing(answer.key)
        if known is None or known.state is not AnswerState.PENDING:
            return _for_good(known, spent.usage)
        calls = sum(spent.calls.values())
        if calls >= MAX_FAILED_CALLS and not spent.under_way:
            return _for_good(await self._fail(answer, item, calls), spent.usage)
        left = max(0, MAX_FAILED_CALLS - calls)
        return await self._judge.ask(answer.key, purpose, prompt, max_calls=spent.calls[purpose] + left)

    def _item(self, answer: Answer) -> Item:
        item = self._catalogue.bank(answer.bank_version).item(ItemId(answer.item_id))
        if item is None:
            raise InvalidField([FieldViolation("item_id", "Not an item of that bank.")])
        return item

    async def _score(self, answer: Answer, item: Item, verdict: Verdict, reply: Reply, failed: int) -> Standing | None:
        score = score_of(verdict, degraded=answer.degraded)
        return await self._store.score(answer.key, item.id, Scored(verdict, score, reply.version, reply.model), failed)

    async def _fail(self, answer: Answer, item: Item, failed_calls: int) -> Standing | None:
        state = AnswerState.PENDING if failed_calls < MAX_FAILED_CALLS else AnswerState.UNSCORABLE
        return await self._store.fail(answer.key, item.id, state, failed_calls)


def _for_good(standing: Standing | None, usage: Usage) -> Assessed:
    if standing is None:
        raise NotFound
    if standing.state is AnswerState.PENDING:
        raise Unavailable("The judge gave no usable verdict; the answer may be sent again.")
    return Assessed(standing.level, usage)


def _note(purpose: str, reply: Reply, rejection: Rejection) -> None:
    telemetry.logger().warning(
        "verdict_rejected",
        purpose=purpose,
        rejection=rejection.reason.value,
        detail=rejection.detail,
        judge_version=reply.version,
        judge_model=reply.model,
    )
