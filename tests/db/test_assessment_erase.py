"""Erasing an interview: what is left, and that no write brings anything back, whichever comes first."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from libs.folding.runs import Outcome
from libs.runtime.errors import NotFound
from services.assessment import statements
from services.assessment.domain import Level, Score
from services.assessment.evidence import AnswerState, AppliedTurn, Scored, SessionId, UnscoredRequest
from services.assessment.judging import Verdict
from services.assessment.store import Store
from services.assessment.usecases import Applied, Interviews
from tests.databases import Database
from tests.db.assessment_world import (
    BANK,
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
    store,
)
from tests.db.erasure import open_transaction, remains, writing

__all__ = ["interviews", "pool", "store"]  # fixtures

QUOTE, RATIONALE = "I locked the row before I looked", "The candidate locks before reading."
SCORED = Scored(Verdict(Level(2), (QUOTE,), 0, RATIONALE, 0.9), Score(Level(2), 0.5), "judge/v1", "scripted")

Turns = tuple[AppliedTurn, ...]
Write = Callable[[Store, SessionId, Turns], Awaitable[object]]


def assert_nothing_said(database: Database, session_id: SessionId) -> None:
    """The interview is a tombstone, and nothing waits for a score."""
    rows = remains(database, "assessment", session_id)
    assert [row["erased"] for row in rows if "erased" in row] == [True]
    assert not [said for said in (QUOTE, RATIONALE) if said in str(rows)]
    assert "PENDING" not in {row.get("state") for row in rows}


async def told(interviews: Interviews, length: int = 4) -> tuple[SessionId, Turns]:
    """An interview whose turns are folded, without a score."""
    session_id = await begun(interviews)
    turns = ledger(session_id, length)
    await interviews.apply([run(session_id, turns)])
    return session_id, turns


async def test_an_erase_leaves_levels_and_counts_and_no_word_of_the_evidence(
    interviews: Interviews, store: Store, database: Database
) -> None:
    session_id, turns = await told(interviews, 3)
    await store.score(key(session_id, turns[1]), item_of(turns[1]), SCORED, 1)
    before = remains(database, "assessment", session_id)

    await interviews.erase(session_id)

    changed = {
        (name, row.get("state"))
        for was, row in zip(before, remains(database, "assessment", session_id), strict=True)
        for name in was
        if was[name] != row[name]
    }
    assert changed == {
        ("erased", None),
        ("quotes", "SCORED"),
        ("rationale", "SCORED"),
        ("state", "UNSCORABLE"),
    }
    assert_nothing_said(database, session_id)


async def test_an_erase_again_changes_nothing(interviews: Interviews, store: Store, database: Database) -> None:
    session_id, turns = await told(interviews)
    await store.score(key(session_id, turns[1]), item_of(turns[1]), SCORED, 0)
    await interviews.erase(session_id)
    before = remains(database, "assessment", session_id)

    await asyncio.gather(*(interviews.erase(session_id) for _ in range(4)))

    assert remains(database, "assessment", session_id) == before


async def test_a_tombstone_refuses_everything(interviews: Interviews, store: Store) -> None:
    for session_id, turns in (await told(interviews, 2), (SessionId(uuid4()), ledger(SessionId(uuid4()), 2))):
        await interviews.erase(session_id)
        opening, answered = ledger(session_id, 2)

        with pytest.raises(NotFound):
            await interviews.start(session_id, PLAN, BANK.version, "")
        with pytest.raises(NotFound):
            await interviews.plan(run(session_id, [opening]))
        with pytest.raises(NotFound):
            await interviews.plan(run(session_id, [opening, answered]))
        with pytest.raises(NotFound):
            await interviews.plan(run(session_id, []))
        assert await interviews.apply([run(session_id, [opening])]) == [Applied(session_id, Outcome.ERASED)]
        for turn in (turns[1], answered):
            assert await store.score(key(session_id, turn), item_of(turn), SCORED, 0) is None
            assert await store.fail(key(session_id, turn), item_of(turn), AnswerState.PENDING, 1) is None
            assert await store.standing(key(session_id, turn)) is None


async def test_an_erased_interview_waits_for_no_score(interviews: Interviews, store: Store) -> None:
    session_id, _ = await told(interviews)

    await interviews.erase(session_id)

    page = await store.unscored(UnscoredRequest(500, 0))
    assert session_id not in {answer.key.session_id for answer in page.answers}


# Each write against the erase, on two connections.


async def starts(store: Store, session_id: SessionId, _: Turns) -> None:
    await interviews_on(store).start(session_id, PLAN, BANK.version, "")


async def folds(store: Store, session_id: SessionId, turns: Turns) -> None:
    await folded(interviews_on(store), run(session_id, turns))


async def repairs(store: Store, session_id: SessionId, turns: Turns) -> None:
    """A plan that lacks more than one turn folds them."""
    await interviews_on(store).plan(run(session_id, turns))


async def scores(store: Store, session_id: SessionId, turns: Turns) -> None:
    await store.score(key(session_id, turns[1]), item_of(turns[1]), SCORED, 0)


async def scores_early(store: Store, session_id: SessionId, turns: Turns) -> None:
    """Before the turn is folded: the answer has no row yet that both would wait for."""
    await store.score(key(session_id, turns[3]), item_of(turns[3]), SCORED, 0)


async def fails(store: Store, session_id: SessionId, turns: Turns) -> None:
    await store.fail(key(session_id, turns[1]), item_of(turns[1]), AnswerState.PENDING, 1)


WRITES = pytest.mark.parametrize("write", [starts, folds, repairs, scores, scores_early, fails])


def test_every_statement_that_writes_is_tried_here() -> None:
    tried = {"assessment_start", "assessment_advance", "assessment_record"}

    assert writing(statements) == tried | {"assessment_bury", "assessment_erase"}


async def ready_for(write: Write, interviews: Interviews) -> tuple[SessionId, Turns]:
    """An interview as the write wants it, and a ledger of which two turns are folded there."""
    session_id = SessionId(uuid4()) if write is starts else await begun(interviews)
    turns = ledger(session_id, 4)
    if write is not starts:
        await folded(interviews, run(session_id, turns[:2]))
    return session_id, turns


@WRITES
async def test_a_write_that_waited_for_the_erase_changes_nothing(
    interviews: Interviews, store: Store, database: Database, write: Write
) -> None:
    session_id, turns = await ready_for(write, interviews)
    async with open_transaction(database.dsns["assessment"]) as (erasing, transaction):
        await Store(erasing).erase(session_id)

        writing = asyncio.ensure_future(write(store, session_id, turns))
        await transaction.is_waited_for()
        await transaction.commit()
        await asyncio.wait([writing])

    assert_nothing_said(database, session_id)
    rows = remains(database, "assessment", session_id)
    [(plan, applied_seq)] = [(row["plan"], row["applied_seq"]) for row in rows if "plan" in row]
    answers = [(row["seq"], row["state"], row["failed_calls"]) for row in rows if "seq" in row]
    if write is starts:
        assert (plan, applied_seq, answers) == (None, 0, [])
    else:
        assert (plan, applied_seq, answers) == (PLAN, 2, [(2, "UNSCORABLE", 0)])


@WRITES
async def test_an_erase_that_waited_for_a_write_clears_what_it_wrote(
    interviews: Interviews, database: Database, write: Write
) -> None:
    session_id, turns = await ready_for(write, interviews)
    async with open_transaction(database.dsns["assessment"]) as (writing, transaction):
        await write(Store(writing), session_id, turns)

        erasing = asyncio.create_task(interviews.erase(session_id))
        await transaction.is_waited_for()
        await transaction.commit()
        await erasing

    assert_nothing_said(database, session_id)


async def test_whatever_the_order_nothing_is_left_of_what_was_said(
    interviews: Interviews, store: Store, database: Database
) -> None:
    for _ in range(20):
        session_id = SessionId(uuid4())
        turns = ledger(session_id, 4)
        writes = [starts, folds, repairs, scores, scores_early, fails]
        steps: list[Awaitable[object]] = [write(store, session_id, turns) for write in writes * 2]
        steps.append(interviews.erase(session_id))
        random.shuffle(steps)

        await asyncio.gather(*steps, return_exceptions=True)

        assert_nothing_said(database, session_id)
