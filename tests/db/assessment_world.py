"""Interviews on a real PostgreSQL for tests: the store and its use cases, ledgers to fold, scores to set.

from tests.db.assessment_world import interviews, pool, store  # the fixtures
"""

from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from uuid import uuid4

import pytest

from libs.folding.runs import Digest, Outcome, Run, first_digest
from libs.runtime import db
from services.assessment.bankfile import read_banks
from services.assessment.catalogue import Catalogue
from services.assessment.domain import ItemId, Level, Score
from services.assessment.evidence import AnswerKey, AppliedTurn, Scored, SessionId, TurnId
from services.assessment.judging import Verdict
from services.assessment.store import Store
from services.assessment.usecases import Interviews, LedgerRun
from tests.databases import Database

BANK = read_banks()[0]
ITEMS = [item.id for item in BANK.items]
PLAN = "backend-engineer"


def interviews_on(store: Store) -> Interviews:
    return Interviews(store, Catalogue.of([BANK]))


@pytest.fixture(scope="module")
async def pool(database: Database) -> AsyncIterator[db.Database]:
    pool = db.Database(database.dsns["assessment"], "assessment", pool_size=24, statement_timeout_ms=10_000)
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
def store(pool: db.Database) -> Store:
    return Store(pool)


@pytest.fixture(scope="module")
def interviews(store: Store) -> Interviews:
    return interviews_on(store)


async def begun(interviews: Interviews) -> SessionId:
    session_id = SessionId(uuid4())
    await interviews.start(session_id, PLAN, BANK.version, "")
    return session_id


def ledger(session_id: SessionId, length: int, seed: str = "") -> tuple[AppliedTurn, ...]:
    """An opening and its answers: turn k asks the k-th item and answers the one before."""
    turns: list[AppliedTurn] = []
    digest = first_digest(session_id)
    for seq in range(1, length + 1):
        following = Digest(sha256(f"{seed}{session_id}{seq}".encode()).digest())
        answered = ITEMS[seq - 2] if seq > 1 else None
        turns.append(AppliedTurn(TurnId(uuid4()), seq, digest, following, answered, ITEMS[seq - 1]))
        digest = following
    return tuple(turns)


def run(
    session_id: SessionId, turns: Sequence[AppliedTurn], last_seq: int | None = None, *, sealed: bool = False
) -> LedgerRun:
    return Run(session_id, tuple(turns), (turns[-1].seq if turns else 0) if last_seq is None else last_seq, sealed)


async def folded(interviews: Interviews, *runs: LedgerRun) -> list[Outcome]:
    return [applied.outcome for applied in await interviews.apply(runs)]


def key(session_id: SessionId, turn: AppliedTurn) -> AnswerKey:
    return AnswerKey(session_id, turn.turn_id)


def scored(level: int = 2, error: float = 0.5) -> Scored:
    verdict = Verdict(Level(level), ("an index",), 0, "It names an index.", 0.9)
    return Scored(verdict, Score(Level(level), error), "judge/v1", "scripted")


def item_of(turn: AppliedTurn) -> ItemId:
    assert turn.item_answered is not None
    return turn.item_answered
