"""Answers that wait for their scores: which are named, in which order, and that none keeps the others waiting."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from libs.runtime import db
from services.assessment.evidence import (
    LONGEST,
    PAUSES_MS,
    AnswerKey,
    AnswerState,
    AppliedTurn,
    Cursor,
    SessionId,
    Unscored,
    UnscoredRequest,
)
from services.assessment.store import Store
from services.assessment.usecases import Interviews
from tests.conftest import FreshDatabase
from tests.db.assessment_world import BANK, ITEMS, begun, interviews_on, key, ledger, run, scored


@dataclass(frozen=True)
class Waiting:
    """A database in which nothing else waits."""

    store: Store
    interviews: Interviews
    dsn: str

    async def told(self, length: int) -> tuple[SessionId, tuple[AppliedTurn, ...]]:
        """An interview whose ledger, of so many turns, is folded."""
        session_id = await begun(self.interviews)
        turns = ledger(session_id, length)
        await self.interviews.apply([run(session_id, turns)])
        return session_id, turns

    def age(self, minutes: int, session_id: SessionId, *seqs: int) -> None:
        """Let all that happened to these answers have been so long ago."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                """
                UPDATE assessment.answers
                SET folded_at = folded_at - %(age)s * interval '1 minute',
                    retry_at = retry_at - %(age)s * interval '1 minute'
                WHERE session_id = %(session_id)s AND seq = ANY(%(seqs)s)
                """,
                {"age": minutes, "session_id": session_id, "seqs": list(seqs)},
            )

    def asked(self, query: str) -> datetime:
        """The one moment that a query answers."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row
        moment: datetime = row[0]
        return moment

    async def named(self, max_answers: int = 500, min_age_ms: int = 0, after: Cursor = LONGEST) -> list[AnswerKey]:
        page = await self.store.unscored(UnscoredRequest(max_answers, min_age_ms, after))
        return [answer.key for answer in page.answers]


@pytest.fixture
async def waiting(fresh_database: FreshDatabase) -> AsyncIterator[Waiting]:
    own = fresh_database()
    pool = db.Database(own.dsns["assessment"], "assessment")
    store = Store(pool)
    yield Waiting(store, interviews_on(store), own.dsns["assessment"])
    await pool.close()


async def test_answers_are_named_once_they_are_folded_those_first_that_have_waited_longest(waiting: Waiting) -> None:
    (early, early_turns), (late, late_turns) = await waiting.told(4), await waiting.told(4)
    unfolded = ledger(late, 6)[5]
    await waiting.store.score(key(early, early_turns[1]), ITEMS[0], scored(), 0)
    await waiting.store.fail(key(early, early_turns[2]), ITEMS[1], AnswerState.UNSCORABLE, 3)
    await waiting.store.fail(key(late, unfolded), ITEMS[4], AnswerState.PENDING, 0)
    waiting.age(60, late, 3, 4)

    page = await waiting.store.unscored(UnscoredRequest(500, 0))
    old = await waiting.named(min_age_ms=60_000)

    assert page.answers[:2] == (
        Unscored(key(late, late_turns[2]), 3, ITEMS[1], BANK.version),
        Unscored(key(late, late_turns[3]), 4, ITEMS[2], BANK.version),
    )
    assert {answer.key for answer in page.answers[2:]} == {key(early, early_turns[3]), key(late, late_turns[1])}
    assert page.next is None
    assert old == [key(late, late_turns[2]), key(late, late_turns[3])]


@pytest.mark.parametrize("failed_calls", [1, 2])
async def test_an_answer_whose_judge_failed_is_named_again_after_a_pause(waiting: Waiting, failed_calls: int) -> None:
    session_id, turns = await waiting.told(2)
    answer, pause = key(session_id, turns[1]), timedelta(milliseconds=PAUSES_MS[failed_calls])
    waiting.age(60, session_id, 2)

    before = waiting.asked("SELECT clock_timestamp()")
    await waiting.store.fail(answer, ITEMS[0], AnswerState.PENDING, failed_calls)
    after = waiting.asked("SELECT clock_timestamp()")
    waits_from = waiting.asked("SELECT retry_at FROM assessment.answers")

    assert before <= waits_from - pause <= after
    waiting.age(-60, session_id, 2)
    assert await waiting.named() == []
    waiting.age(60 + 10, session_id, 2)
    assert await waiting.named() == [answer]
    assert await waiting.named(min_age_ms=60 * 60_000) == []


async def test_a_late_judge_earns_an_answer_no_pause(waiting: Waiting) -> None:
    session_id, turns = await waiting.told(2)

    await waiting.store.fail(key(session_id, turns[1]), ITEMS[0], AnswerState.PENDING, 0)

    assert await waiting.named() == [key(session_id, turns[1])]


async def test_a_session_that_keeps_failing_keeps_no_other_waiting(waiting: Waiting) -> None:
    (failing, failing_turns), (other, other_turns) = await waiting.told(6), await waiting.told(2)
    waiting.age(60, failing, *range(2, 7))
    for turn in failing_turns[1:]:
        await waiting.store.fail(key(failing, turn), ITEMS[turn.seq - 2], AnswerState.PENDING, 1)

    assert await waiting.named(max_answers=1) == [key(other, other_turns[1])]


async def test_pages_come_to_every_answer_though_none_is_scored_meanwhile(waiting: Waiting) -> None:
    sessions = [await waiting.told(4) for _ in range(3)]
    with psycopg.connect(waiting.dsn) as connection:  # of one instant: then the ids decide
        connection.execute("UPDATE assessment.answers SET folded_at = date_trunc('day', now() - interval '2 days')")

    seen, pages, after = list[AnswerKey](), 0, LONGEST
    while True:
        page = await waiting.store.unscored(UnscoredRequest(2, 0, after))
        seen += [answer.key for answer in page.answers]
        pages += 1
        if page.next is None:
            break
        after = page.next

    every = [key(session_id, turn) for session_id, turns in sessions for turn in turns[1:]]
    assert seen == sorted(every, key=lambda answer: (answer.session_id, answer.turn_id))
    assert pages == 5


async def test_an_answer_that_nothing_is_recorded_of_is_pending_where_there_is_an_interview(waiting: Waiting) -> None:
    session_id, turns = await waiting.told(2)
    never = SessionId(uuid4())

    standing = await waiting.store.standing(key(session_id, ledger(session_id, 3)[2]))

    assert standing is not None
    assert standing.state is AnswerState.PENDING
    assert await waiting.store.standing(key(never, turns[1])) is None
