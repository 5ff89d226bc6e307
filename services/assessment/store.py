"""The tables of assessment, and all that is done to them; the SQL is in `statements`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from psycopg.types.numeric import Int8

from libs.folding.runs import Fold, Position
from libs.runtime.db import Database, Row
from services.assessment import statements
from services.assessment.domain import BankVersion, ItemId, Level, PlanName, Score, ScoredAnswer
from services.assessment.evidence import (
    PAUSES_MS,
    AnswerKey,
    AnswerState,
    AppliedTurn,
    Cursor,
    Interview,
    Pins,
    Scored,
    SessionId,
    Standing,
    TurnId,
    Unscored,
    UnscoredPage,
    UnscoredRequest,
    asked_in,
)

Folded: TypeAlias = Fold[AppliedTurn]


@dataclass(frozen=True, slots=True)
class Step:
    """A fold to be written to an interview that still stands at `base`."""

    session_id: SessionId
    base: Position
    fold: Folded


@dataclass(frozen=True, slots=True)
class Found:
    """Where an interview stood (None: erased), and whether its step was then taken."""

    before: Position | None
    taken: bool


class Store:
    """The tables of assessment."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def start(self, session_id: SessionId, pins: Pins, position: Position) -> bool:
        """Make an interview that has folded nothing. False, and no change, where there is one or a tombstone."""
        return bool(
            await self._db.execute(
                statements.START,
                {
                    "session_id": session_id,
                    "plan": pins.plan,
                    "bank_version": pins.bank_version,
                    "head_digest": position.head_digest,
                },
            )
        )

    async def read(self, session_id: SessionId, turn_id: TurnId | None = None) -> Interview | None:
        """The interview as it stands, with the score of this turn too; None where it is absent or erased."""
        row = await self._db.one(statements.READ, {"session_id": session_id, "turn_id": turn_id})
        return None if row is None else _interview(row)

    async def advance(self, session_ids: Sequence[SessionId], steps: Sequence[Step]) -> Mapping[SessionId, Found]:
        """Take each step whose base is where its interview stands, and say what was found.

        One transaction. Absent sessions are left out. `steps` has at most one for each of `session_ids`.
        """
        asked = [asked_in(step.fold.news) for step in steps]
        asked_to = list(accumulate(map(len, asked)))
        answered = [
            (step.session_id, turn) for step in steps for turn in step.fold.news if turn.item_answered is not None
        ]
        params = {
            "session_ids": list(session_ids),
            "step_ids": [step.session_id for step in steps],
            "base_seqs": [Int8(step.base.applied_seq) for step in steps],
            "base_digests": [step.base.head_digest for step in steps],
            "base_completed": [step.base.completed for step in steps],
            "seqs": [Int8(step.fold.position.applied_seq) for step in steps],
            "digests": [step.fold.position.head_digest for step in steps],
            "completed": [step.fold.position.completed for step in steps],
            "refolded": [step.fold.refolded for step in steps],
            "asked": [item for items in asked for item in items],
            "asked_from": [Int8(last - len(items) + 1) for items, last in zip(asked, asked_to, strict=True)],
            "asked_to": [Int8(last) for last in asked_to],
            "answer_ids": [session_id for session_id, _ in answered],
            "answer_turns": [turn.turn_id for _, turn in answered],
            "answer_seqs": [Int8(turn.seq) for _, turn in answered],
            "answer_items": [turn.item_answered for _, turn in answered],
        }
        rows = await self._db.retrying(lambda: self._db.all(statements.ADVANCE, params))
        return {row.session_id: Found(None if row.erased else _position(row), row.taken) for row in rows}

    async def score(self, key: AnswerKey, item: ItemId, scored: Scored, failed_calls: int) -> Standing | None:
        """Set the score where there is none, and say where the answer stands; None: no interview to score in."""
        return await self._record(
            key,
            {
                "item_id": item,
                "state": AnswerState.SCORED.value,
                "level": scored.score.level,
                "standard_error": scored.score.standard_error,
                "confidence": scored.verdict.confidence,
                "misquotes": scored.verdict.misquotes,
                "quotes": list(scored.verdict.quotes),
                "rationale": scored.verdict.rationale,
                "judge_version": scored.judge_version,
                "judge_model": scored.judge_model,
                "failed_calls": Int8(failed_calls),
                "pause_ms": None,
            },
        )

    async def fail(self, key: AnswerKey, item: ItemId, state: AnswerState, failed_calls: int) -> Standing | None:
        """Record failed calls, PENDING or UNSCORABLE by now, where there is no score; else as `score`."""
        nothing = dict.fromkeys(
            (
                "level",
                "standard_error",
                "confidence",
                "misquotes",
                "quotes",
                "rationale",
                "judge_version",
                "judge_model",
            )
        )
        pause_ms = Int8(PAUSES_MS[failed_calls]) if state is AnswerState.PENDING else None
        counted = {"failed_calls": Int8(failed_calls), "pause_ms": pause_ms}
        return await self._record(key, nothing | {"item_id": item, "state": state.value} | counted)

    async def standing(self, key: AnswerKey) -> Standing | None:
        """Where an answer stands; None where there is no interview, or it was erased."""
        row = await self._db.one(statements.STANDING, {"session_id": key.session_id, "turn_id": key.turn_id})
        return None if row is None else _standing(row)

    async def unscored(self, request: UnscoredRequest) -> UnscoredPage:
        """Answers that have a seq and no score, those that have waited longest first."""
        after = request.after
        params = {
            "max_answers": Int8(request.max_answers),
            "min_age_ms": Int8(request.min_age_ms),
            "after": after.waits_from,
            "after_session_id": after.key.session_id,
            "after_turn_id": after.key.turn_id,
        }
        rows = await self._db.all(statements.UNSCORED, params)
        answers = tuple(map(_unscored, rows))
        full = len(rows) == request.max_answers
        return UnscoredPage(answers, Cursor(rows[-1].waits_from, answers[-1].key) if full else None)

    async def erase(self, session_id: SessionId) -> None:
        """Leave a tombstone and clear what stands under it: both, or nothing."""
        key = {"session_id": session_id}
        async with self._db.transaction("assessment_erase") as transaction:
            await transaction.execute(statements.BURY, key)
            await transaction.execute(statements.ERASE, key)

    async def _record(self, key: AnswerKey, outcome: Mapping[str, object]) -> Standing | None:
        params: dict[str, object] = {"session_id": key.session_id, "turn_id": key.turn_id}
        row = await self._db.one(statements.RECORD, params | dict(outcome))
        return await self.standing(key) if row is None else _standing(row)


def _standing(row: Row) -> Standing:
    return Standing(AnswerState(row.state), row.level)


def _unscored(row: Row) -> Unscored:
    key = AnswerKey(SessionId(row.session_id), TurnId(row.turn_id))
    return Unscored(key, row.seq, ItemId(row.item_id), BankVersion(row.bank_version))


def _position(row: Row) -> Position:
    return Position(row.applied_seq, row.head_digest, row.completed)


def _interview(row: Row) -> Interview:
    scores = zip(row.item_ids or (), row.levels or (), row.standard_errors or (), strict=True)
    return Interview(
        Pins(PlanName(row.plan), BankVersion(row.bank_version)),
        _position(row),
        tuple(row.asked),
        tuple(ScoredAnswer(ItemId(item), Score(Level(level), error)) for item, level, error in scores),
    )
