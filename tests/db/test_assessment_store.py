"""Interviews and scores on a real PostgreSQL: what folders and scorers do to each other."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import permutations
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from libs.folding.runs import Outcome, Position, first_digest
from libs.runtime import db, telemetry
from services.assessment.domain import Level, Score, ScoredAnswer
from services.assessment.evidence import AnswerState, SessionId, Standing
from services.assessment.store import Store
from services.assessment.usecases import Applied, Interviews
from tests.conftest import FreshDatabase
from tests.databases import Database
from tests.db.assessment_world import (
    BANK,
    ITEMS,
    PLAN,
    begun,
    folded,
    interviews,
    interviews_on,
    item_of,
    key,
    ledger,
    pool,
    run,
    scored,
    store,
)

__all__ = ["interviews", "pool", "store"]  # fixtures


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Another process's connection, with a transaction of its own."""
    async with await psycopg.AsyncConnection.connect(database.owner_dsn) as connection:
        yield connection


async def waiting_for_a_lock(connection: psycopg.AsyncConnection[Any]) -> None:
    """Until somebody waits for what `connection` has locked."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    async with asyncio.timeout(5):
        while not ((await (await connection.execute(query)).fetchone()) or (0,))[0]:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.005)


def statements_sent(name: str) -> float:
    telemetry.flush()
    return REGISTRY.get_sample_value("colloquy_db_statement_seconds_count", {"statement": name}) or 0


async def test_an_interview_starts_once_and_keeps_its_plan(interviews: Interviews) -> None:
    session_id = SessionId(uuid4())
    started = await asyncio.gather(*(interviews.start(session_id, PLAN, BANK.version, "Zoë") for _ in range(20)))

    other, opening = await interviews.start(session_id, "quick", BANK.version, "Zoë")

    assert all(it == started[0] for it in started)
    assert (other, opening) == started[0]


async def test_a_batch_has_an_exact_outcome_for_each_interview_in_its_order(interviews: Interviews) -> None:
    behind, again, other, done, ahead = [await begun(interviews) for _ in range(5)]
    turns = {session_id: ledger(session_id, 4) for session_id in (behind, again, other, done, ahead)}
    lost = ledger(other, 2, "lost")
    await folded(interviews, run(again, turns[again]), run(other, lost), run(done, turns[done]))
    await folded(interviews, run(ahead, turns[ahead]))
    absent, erased = SessionId(uuid4()), SessionId(uuid4())
    await interviews.erase(erased)

    results = await interviews.apply(
        [
            run(absent, ledger(absent, 1)),
            run(behind, turns[behind][1:], 4),
            run(again, turns[again][1:3], 4),
            run(other, turns[other][2:], 4),
            run(done, [], 4, sealed=True),
            run(erased, ledger(erased, 1)),
            run(ahead, turns[ahead][:2]),
        ]
    )

    assert results == [
        Applied(absent, Outcome.ABSENT),
        Applied(behind, Outcome.GAP, Position(0, first_digest(behind))),
        Applied(again, Outcome.DUPLICATE, Position(4, turns[again][3].digest)),
        Applied(other, Outcome.DIVERGED, Position(2, lost[1].digest)),
        Applied(done, Outcome.OK, Position(4, turns[done][3].digest, completed=True)),
        Applied(erased, Outcome.ERASED),
        Applied(ahead, Outcome.DIVERGED, Position(4, turns[ahead][3].digest)),
    ]


async def test_runs_that_continue_their_interviews_are_folded_in_one_statement(
    interviews: Interviews, store: Store
) -> None:
    ids = [await begun(interviews) for _ in range(50)]
    turns = {session_id: ledger(session_id, 1 + number % 5) for number, session_id in enumerate(ids)}
    before = statements_sent("assessment_advance")

    first = await folded(interviews, *(run(it, turns[it]) for it in ids))
    repeated = await folded(interviews, *(run(it, turns[it]) for it in ids))

    assert statements_sent("assessment_advance") - before == 2
    assert set(first) == {Outcome.OK}
    assert set(repeated) == {Outcome.DUPLICATE}
    for it in ids:
        interview = await store.read(it)
        assert interview is not None
        assert interview.asked == tuple(ITEMS[: len(turns[it])])


async def test_a_plan_repairs_an_interview_as_a_batch_would(interviews: Interviews, store: Store) -> None:
    by_plan, by_batch = await begun(interviews), await begun(interviews)
    planned, applied = ledger(by_plan, 3), ledger(by_batch, 3)

    choice = await interviews.plan(run(by_plan, planned))
    await interviews.apply([run(by_batch, applied)])

    left, right = await store.read(by_plan), await store.read(by_batch)
    assert left is not None
    assert right is not None
    assert left.asked == right.asked == tuple(ITEMS[:3])
    assert left.position == Position(3, planned[2].digest)
    assert choice == await interviews.plan(run(by_plan, [], 3))
    assert choice.applied_seq == 3


async def test_a_plan_after_the_last_turn_is_one_statement_that_locks_and_writes_nothing(
    interviews: Interviews, store: Store, owner: psycopg.AsyncConnection[Any]
) -> None:
    session_id = await begun(interviews)
    turns = ledger(session_id, 3)
    await interviews.apply([run(session_id, turns[:2])])
    await store.score(key(session_id, turns[2]), item_of(turns[2]), scored(), 0)
    versions = """
        SELECT interviews.ctid, interviews.xmin, interviews.xmax, answers.ctid, answers.xmin, answers.xmax
        FROM assessment.interviews JOIN assessment.answers USING (session_id) WHERE session_id = %s
        """
    before = await (await owner.execute(versions, [session_id])).fetchall()
    sent = statements_sent("assessment_read")

    choice = await interviews.plan(run(session_id, turns[2:]))

    assert statements_sent("assessment_read") - sent == 1
    assert await (await owner.execute(versions, [session_id])).fetchall() == before
    assert len(before) == 2
    await interviews.apply([run(session_id, turns[2:])])
    assert choice == await interviews.plan(run(session_id, turns[2:])) == await interviews.plan(run(session_id, [], 3))


async def test_a_plan_behind_its_base_says_where_it_stands(interviews: Interviews) -> None:
    session_id = await begun(interviews)
    turns = ledger(session_id, 4)
    await interviews.apply([run(session_id, turns[:1])])

    behind = await interviews.plan(run(session_id, turns[3:]))
    repaired = await interviews.plan(run(session_id, turns[1:]))

    assert behind.applied_seq == 1
    assert repaired.applied_seq == 4


async def test_folds_of_one_run_that_race_fold_it_once(interviews: Interviews, store: Store) -> None:
    session_id = await begun(interviews)
    turns = ledger(session_id, 3)
    await interviews.apply([run(session_id, turns[:1])])

    raced = await asyncio.gather(
        *(interviews.plan(run(session_id, turns[1:])) for _ in range(10)),
        *(interviews.apply([run(session_id, turns)]) for _ in range(10)),
    )

    interview = await store.read(session_id)
    assert interview is not None
    assert interview.asked == tuple(ITEMS[:3])
    assert len({repr(choice) for choice in raced[:10]}) == 1


async def test_folders_of_the_same_interviews_never_wait_in_a_circle(fresh_database: FreshDatabase) -> None:
    own = fresh_database()
    pool = db.Database(own.dsns["assessment"], "assessment", pool_size=12, statement_timeout_ms=10_000)
    store = Store(pool)
    interviews = interviews_on(store)
    ids = [await begun(interviews) for _ in range(40)]
    turns = {session_id: ledger(session_id, 6) for session_id in ids}

    async def fold_in_any_order() -> None:
        for length in range(1, 7):
            runs = [run(session_id, turns[session_id][:length]) for session_id in ids]
            await interviews.apply(random.sample(runs, len(runs)))

    async def score_in_any_order() -> None:
        for session_id in random.sample(ids, len(ids)):
            for turn in turns[session_id][1:]:
                await store.score(key(session_id, turn), item_of(turn), scored(), 0)

    await asyncio.gather(*(fold_in_any_order() for _ in range(6)), *(score_in_any_order() for _ in range(4)))

    assert {(await store.read(session_id)).position.applied_seq for session_id in ids} == {6}  # type: ignore[union-attr]
    await pool.close()
    async with await psycopg.AsyncConnection.connect(own.owner_dsn) as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert await (await connection.execute(query)).fetchone() == (0,)


async def test_a_score_and_the_fold_of_its_turn_commute(interviews: Interviews, store: Store) -> None:
    seen = set()
    for order in permutations(("fold", "first", "second")):
        session_id = await begun(interviews)
        turns = ledger(session_id, 3)
        for step in order:
            if step == "fold":
                await interviews.apply([run(session_id, turns)])
            else:
                turn, level = (turns[1], 1) if step == "first" else (turns[2], 3)
                await store.score(key(session_id, turn), item_of(turn), scored(level), 0)
        interview = await store.read(session_id)
        assert interview is not None
        seen.add(frozenset(interview.scored))

    assert seen == {
        frozenset(
            {
                ScoredAnswer(ITEMS[0], Score(Level(1), 0.5)),
                ScoredAnswer(ITEMS[1], Score(Level(3), 0.5)),
            }
        )
    }


async def test_a_score_counts_only_once_its_turn_is_folded_or_offered(interviews: Interviews, store: Store) -> None:
    session_id = await begun(interviews)
    turns = ledger(session_id, 2)
    await interviews.apply([run(session_id, turns[:1])])
    await store.score(key(session_id, turns[1]), item_of(turns[1]), scored(), 0)

    without = await interviews.plan(run(session_id, [], 1))
    with_it = await interviews.plan(run(session_id, turns[1:]))
    await interviews.apply([run(session_id, turns)])
    reread = await interviews.plan(run(session_id, [], 2))

    assert without.decision.ability.answers == 0
    assert with_it.decision.ability.answers == 1
    assert reread == with_it


async def test_of_a_hundred_scores_of_an_answer_one_is_set_and_all_are_told_it(
    interviews: Interviews, store: Store
) -> None:
    session_id = await begun(interviews)
    turns = ledger(session_id, 2)
    await interviews.plan(run(session_id, turns))

    told = await asyncio.gather(
        *(store.score(key(session_id, turns[1]), item_of(turns[1]), scored(number % 4), 0) for number in range(100))
    )

    interview = await store.read(session_id)
    assert interview is not None
    assert set(told) == {Standing(AnswerState.SCORED, interview.scored[0].score.level)}


async def test_failed_calls_are_kept_and_a_score_may_follow_until_there_were_too_many(
    interviews: Interviews, store: Store
) -> None:
    session_id = await begun(interviews)
    turns = ledger(session_id, 3)
    await interviews.plan(run(session_id, turns))
    first, second = (key(session_id, turn) for turn in turns[1:])
    item = item_of(turns[1])

    pending = await store.fail(first, item, AnswerState.PENDING, 2)
    rescued = await store.score(first, item, scored(1), 2)
    late_failure = await store.fail(first, item, AnswerState.UNSCORABLE, 3)
    given_up = await store.fail(second, item, AnswerState.UNSCORABLE, 3)
    late_score = await store.score(second, item, scored(), 3)

    assert pending == Standing(AnswerState.PENDING)
    assert rescued == late_failure == Standing(AnswerState.SCORED, Level(1))
    assert given_up == late_score == Standing(AnswerState.UNSCORABLE)


async def test_an_answer_without_an_interview_has_nowhere_to_be_scored(store: Store) -> None:
    answered = ledger(SessionId(uuid4()), 2)[1]

    assert await store.score(key(SessionId(uuid4()), answered), item_of(answered), scored(), 0) is None


async def test_a_restored_ledger_is_folded_anew_and_keeps_the_scores_of_its_turns(
    interviews: Interviews, store: Store
) -> None:
    session_id = await begun(interviews)
    before = ledger(session_id, 5)
    await interviews.apply([run(session_id, before, sealed=True)])
    for turn in before[1:]:
        await store.score(key(session_id, turn), item_of(turn), scored(turn.seq - 2), 0)
    restored = before[:2]

    (ahead,) = await interviews.apply([run(session_id, restored)])
    with capture_logs() as logs:
        (anew,) = await interviews.apply([replace(run(session_id, restored), replaces=before[4].digest)])

    interview = await store.read(session_id)
    assert interview is not None
    assert ahead.outcome is Outcome.DIVERGED
    assert anew == Applied(session_id, Outcome.OK, Position(2, restored[1].digest))
    assert interview.asked == tuple(ITEMS[:2])
    assert interview.scored == (ScoredAnswer(ITEMS[0], Score(Level(0), 0.5)),)
    assert [log["event"] for log in logs] == ["projection_refolded"]


async def test_a_plan_for_another_ledger_asks_for_all_of_it_and_then_stands_on_it(
    interviews: Interviews, store: Store
) -> None:
    session_id = await begun(interviews)
    await interviews.apply([run(session_id, ledger(session_id, 2, "lost"))])
    turns = ledger(session_id, 3)

    strange = await interviews.plan(run(session_id, turns[2:]))
    with capture_logs() as logs:
        repaired = await interviews.plan(run(session_id, turns))

    interview = await store.read(session_id)
    assert interview is not None
    assert strange.applied_seq == 0
    assert repaired.applied_seq == 3
    assert interview.position == Position(3, turns[2].digest)
    assert [log["event"] for log in logs] == ["projection_refolded"]
