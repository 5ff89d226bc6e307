"""Answers without a score: the judge was late, failed or out of reach. They are judged now, from what the ledger holds.

Late is not lost: a score feeds the next choice and the report whenever it comes. How often an answer is judged before
it is given up, and how soon it is named again, is for assessment to say.
"""

from functools import partial
from typing import ClassVar

from colloquy.assessment.v1 import assessment_pb2
from colloquy.history.v1 import history_pb2
from libs.runtime.client import call
from libs.runtime.errors import ColloquyError, DeadlineExceeded, Internal, Unavailable
from services.gateway import records
from services.gateway.composition import LATE_SCORE_CAP_MS
from services.gateway.contexts import Contexts
from services.gateway.settling import EVERYBODY
from services.gateway.sweep import each

MIN_AGE_MS = 5000  # by then the turn's own gateway usually has had it judged; asked twice, it is judged once
PAGE_ANSWERS = 50
LIST_CAP_MS = 2000


class Unscored:
    """What is unscored, a page at a time, round and round."""

    name: ClassVar = "unscored"
    period_seconds: ClassVar = 5.0

    def __init__(self, contexts: Contexts) -> None:
        self._assessment = contexts.assessment
        self._history = contexts.history
        self._page_token = ""

    async def round(self) -> bool:
        """Have each answer of a page judged; whether there are more pages.

        Raises:
            Unavailable: a context, or the judge, did not answer.
        """
        request = assessment_pb2.ListUnscoredRequest(
            max_answers=PAGE_ANSWERS, min_age_ms=MIN_AGE_MS, page_token=self._page_token
        )
        try:
            page = await call(self._assessment.ListUnscored, request, LIST_CAP_MS)
        except ColloquyError as error:
            if not isinstance(error, (Unavailable, DeadlineExceeded)):
                self._page_token = ""  # refused: perhaps for where it was to go on, so the list is begun again
            raise
        self._page_token = page.next_page_token
        if not await each((answer.session_id, partial(self._score, answer)) for answer in page.answers):
            raise Unavailable
        return bool(self._page_token)

    async def _score(self, answer: assessment_pb2.ListUnscoredResponse.Unscored) -> None:
        """The question stands in the turn before the answer's."""
        wanted = history_pb2.ListTurnsRequest(
            session_id=answer.session_id,
            viewer=EVERYBODY,
            after_seq=answer.seq - 2,
            before_seq=answer.seq + 1,
            max_turns=2,
        )
        turns = (await call(self._history.ListTurns, wanted, LIST_CAP_MS)).turns
        if len(turns) != 2 or turns[1].turn_id != answer.turn_id:
            raise Internal  # the two do not hold the same ledger
        question, turn = turns
        request = records.answer_to_judge(
            answer.session_id, turn.turn_id, turn.user_text, question, bank_version=answer.bank_version
        )
        await call(self._assessment.AssessAnswer, request, LATE_SCORE_CAP_MS)
