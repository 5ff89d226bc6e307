"""All the SQL of assessment.

Every statement is one transaction. Each that writes locks the interview's row first, where a tombstone may stand, and
its answers after that, so nobody waits in a circle; a batch locks its interviews in the order of their ids.

A statement that waited for a lock sees other rows as they were before the wait. Nothing here relies on them: an
interview moves only from the position that the statement's snapshot had, so all that was folded into it is in the
snapshot as well; and answers are inserted or updated under conditions that PostgreSQL checks on their newest version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeAlias

from psycopg.types.numeric import Int8

from libs.folding.runs import Fold, Position
from libs.runtime.db import Database, Row, Statement
from services.assessment.domain import BankVersion, ItemId, Level, PlanName, Score, ScoredAnswer
from services.assessment.evidence import (
    AnswerKey,
    AnswerState,
    AppliedTurn,
    Interview,
    Pins,
    Scored,
    SessionId,
    Standing,
    TurnId,
    Unscored,
    UnscoredRequest,
    asked_in,
)

Folded: TypeAlias = Fold[AppliedTurn]

_START = Statement(
    "assessment_start",
    """
    INSERT INTO assessment.interviews (session_id, plan, bank_version, head_digest)
    VALUES (%(session_id)s, %(plan)s, %(bank_version)s, %(head_digest)s)
    ON CONFLICT (session_id) DO NOTHING
    """,
)

# The fold of the last turn, and all that the next choice needs. A turn that was folded before matches no row, and then
# nothing is locked or written. An answer has its row already where its score came first. What is read is the interview
# before the fold; `taken` says whether to add that. One turn, by values: arrays would double what binding them costs.
_FOLD_AND_READ = Statement(
    "assessment_fold_and_read",
    """
    WITH taken AS (
        UPDATE assessment.interviews
        SET applied_seq = applied_seq + 1, head_digest = %(digest)s, completed = false,
            asked = CASE WHEN %(item_asked)s::text IS NULL THEN asked ELSE asked || %(item_asked)s::text END
        WHERE session_id = %(session_id)s AND NOT erased
          AND applied_seq = %(base_seq)s AND head_digest = %(base_digest)s
        RETURNING session_id, applied_seq
    ), numbered AS (
        INSERT INTO assessment.answers (session_id, turn_id, seq, folded_at, item_id)
        SELECT session_id, %(turn_id)s, applied_seq, clock_timestamp(), %(item_answered)s::text
        FROM taken
        WHERE %(item_answered)s::text IS NOT NULL
        ON CONFLICT (session_id, turn_id) DO UPDATE SET seq = excluded.seq, folded_at = excluded.folded_at
    )
    SELECT plan, bank_version, applied_seq, head_digest, completed, asked, taken, item_ids, levels, standard_errors
    FROM assessment.interviews
         CROSS JOIN (SELECT EXISTS (SELECT FROM taken) AS taken) AS step
         CROSS JOIN LATERAL (
             SELECT array_agg(item_id) AS item_ids, array_agg(level) AS levels,
                    array_agg(standard_error) AS standard_errors
             FROM assessment.answers
             WHERE answers.session_id = interviews.session_id AND state = 'SCORED'
               AND (seq IS NOT NULL OR (step.taken AND turn_id = %(turn_id)s))
         ) AS scored
    WHERE session_id = %(session_id)s AND NOT erased
    """,
)

_READ = Statement(
    "assessment_fold_and_read",
    """
    WITH taken AS (
        UPDATE assessment.interviews
        SET applied_seq = %(seq)s, head_digest = %(digest)s, completed = %(completed)s,
            asked = asked || %(asked)s::text[]
        WHERE session_id = %(session_id)s AND NOT erased
          AND applied_seq = %(base_seq)s AND head_digest = %(base_digest)s AND completed = %(base_completed)s
        RETURNING session_id
    ), numbered AS (
        INSERT INTO assessment.answers (session_id, turn_id, seq, folded_at, item_id)
        SELECT session_id, turn_id, seq, clock_timestamp(), item_id
        FROM taken CROSS JOIN unnest(%(turn_ids)s::uuid[], %(seqs)s::bigint[], %(item_ids)s::text[])
          AS answered(turn_id, seq, item_id)
        ON CONFLICT (session_id, turn_id) DO UPDATE SET seq = excluded.seq, folded_at = excluded.folded_at
    )
    SELECT plan, bank_version, applied_seq, head_digest, completed, asked, taken, item_ids, levels, standard_errors
    FROM assessment.interviews
         CROSS JOIN (SELECT EXISTS (SELECT FROM taken) AS taken) AS step
         CROSS JOIN LATERAL (
             SELECT array_agg(item_id) AS item_ids, array_agg(level) AS levels,
                    array_agg(standard_error) AS standard_errors
             FROM assessment.answers
             WHERE answers.session_id = interviews.session_id AND state = 'SCORED'
               AND (seq IS NOT NULL OR (step.taken AND turn_id = ANY(%(turn_ids)s::uuid[])))
         ) AS scored
    WHERE session_id = %(session_id)s AND NOT erased
    """,
)

_READ = Statement(
    "assessment_read",
    """
    SELECT plan, bank_version, applied_seq, head_digest, completed, asked, false AS taken,
           item_ids, levels, standard_errors
    FROM assessment.interviews
         CROSS JOIN LATERAL (
             SELECT array_agg(item_id) AS item_ids, array_agg(level) AS levels,
                    array_agg(standard_error) AS standard_errors
             FROM assessment.answers
             WHERE answers.session_id = interviews.session_id AND state = 'SCORED' AND seq IS NOT NULL
         ) AS scored
    WHERE session_id = %(session_id)s AND NOT erased
    """,
)

# The items of all steps are one array, of which each step has a slice. What an interview forgets when it is folded anew
# are the places of its answers, not their scores: those of turns that the ledger no longer has stay without a seq.
_ADVANCE = Statement(
    "assessment_advance",
    """
    WITH step AS (
        SELECT *
        FROM unnest(%(step_ids)s::uuid[], %(base_seqs)s::bigint[], %(base_digests)s::bytea[],
                    %(base_completed)s::boolean[], %(seqs)s::bigint[], %(digests)s::bytea[], %(completed)s::boolean[],
                    %(refolded)s::boolean[], %(asked_from)s::bigint[], %(asked_to)s::bigint[])
          AS step(session_id, base_seq, base_digest, base_completed, seq, digest, completed, refolded, asked_from,
                  asked_to)
    ), answered AS (
        SELECT *
        FROM unnest(%(answer_ids)s::uuid[], %(answer_turns)s::uuid[], %(answer_seqs)s::bigint[],
                    %(answer_items)s::text[]) AS answered(session_id, turn_id, seq, item_id)
    ), held AS MATERIALIZED (
        SELECT session_id, step.seq, step.digest, step.completed, step.refolded, asked_from, asked_to
        FROM assessment.interviews JOIN step USING (session_id)
        WHERE NOT erased AND applied_seq = base_seq AND head_digest = base_digest
          AND interviews.completed = base_completed
        ORDER BY session_id
        FOR NO KEY UPDATE OF interviews
    ), taken AS (
        UPDATE assessment.interviews
        SET applied_seq = held.seq, head_digest = held.digest, completed = held.completed,
            asked = CASE WHEN refolded THEN '{}' ELSE asked END || (%(asked)s::text[])[asked_from:asked_to]
        FROM held
        WHERE interviews.session_id = held.session_id
        RETURNING interviews.session_id, refolded
    ), forgotten AS (
        UPDATE assessment.answers SET seq = NULL, folded_at = NULL
        FROM taken
        WHERE refolded AND answers.session_id = taken.session_id AND answers.seq IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM answered WHERE answered.session_id = answers.session_id AND answered.turn_id = answers.turn_id
          )
    ), numbered AS (
        INSERT INTO assessment.answers (session_id, turn_id, seq, folded_at, item_id)
        SELECT session_id, turn_id, seq, clock_timestamp(), item_id FROM answered JOIN taken USING (session_id)
        ON CONFLICT (session_id, turn_id) DO UPDATE SET seq = excluded.seq, folded_at = excluded.folded_at
    )
    SELECT session_id, applied_seq, head_digest, completed, erased, taken.session_id IS NOT NULL AS taken
    FROM assessment.interviews LEFT JOIN taken USING (session_id)
    WHERE session_id = ANY(%(session_ids)s)
    """,
)

# What an answer stands at for good is told without a lock; else what its judge calls came to is recorded, unless
# somebody was faster. No row: the interview is absent or erased, or somebody was.
_RECORD = Statement(
    "assessment_record",
    """
    WITH known AS (
        SELECT state, level
        FROM assessment.answers JOIN assessment.interviews USING (session_id)
        WHERE session_id = %(session_id)s AND turn_id = %(turn_id)s AND state <> 'PENDING' AND NOT erased
    ), open AS MATERIALIZED (
        SELECT session_id
        FROM assessment.interviews
        WHERE session_id = %(session_id)s AND NOT erased AND NOT EXISTS (SELECT FROM known)
        FOR SHARE
    ), recorded AS (
        INSERT INTO assessment.answers AS answer (
            session_id, turn_id, item_id, state, level, standard_error, confidence, misquotes, quotes, rationale,
            judge_version, judge_model, failed_calls, scored_at)
        SELECT session_id, %(turn_id)s, %(item_id)s, %(state)s, %(level)s::smallint, %(standard_error)s::float8,
               %(confidence)s::float8, %(misquotes)s::smallint, %(quotes)s::text[], %(rationale)s::text,
               %(judge_version)s::text, %(judge_model)s::text, %(failed_calls)s,
               CASE WHEN %(state)s = 'SCORED' THEN clock_timestamp() END
        FROM open
        ON CONFLICT (session_id, turn_id) DO UPDATE
        SET state = excluded.state, level = excluded.level, standard_error = excluded.standard_error,
            confidence = excluded.confidence, misquotes = excluded.misquotes, quotes = excluded.quotes,
            rationale = excluded.rationale, judge_version = excluded.judge_version,
            judge_model = excluded.judge_model, scored_at = excluded.scored_at,
            failed_calls = greatest(answer.failed_calls, excluded.failed_calls)
        WHERE answer.state = 'PENDING'
        RETURNING state, level
    )
    SELECT state, level FROM recorded UNION ALL SELECT state, level FROM known
    """,
)

_STANDING = Statement(
    "assessment_standing",
    """
    SELECT state, level
    FROM assessment.answers JOIN assessment.interviews USING (session_id)
    WHERE session_id = %(session_id)s AND turn_id = %(turn_id)s AND NOT erased
    """,
)

_UNSCORED = Statement(
    "assessment_unscored",
    """
    SELECT session_id, turn_id, seq, item_id, bank_version
    FROM assessment.answers JOIN assessment.interviews USING (session_id)
    WHERE state = 'PENDING' AND folded_at <= clock_timestamp() - %(min_age_ms)s * interval '1 millisecond'
      AND NOT erased
    ORDER BY folded_at, session_id, turn_id
    LIMIT %(max_answers)s
    """,
)


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
                _START,
                {
                    "session_id": session_id,
                    "plan": pins.plan,
                    "bank_version": pins.bank_version,
                    "head_digest": position.head_digest,
                },
            )
        )

    async def read(self, session_id: SessionId) -> Interview | None:
        """The interview as it stands; None where it is absent or erased."""
        row = await self._db.one(_READ, {"session_id": session_id})
        return None if row is None else _interview(row)

    async def fold_and_read(self, step: Step) -> tuple[Interview, bool] | None:
        """The interview after the step, and True; or as it stands, and False, where that is not at the step's base.

        None where it is absent or erased. The step is a single turn of a ledger that is not sealed, and no fold anew.
        """
        (turn,) = step.fold.news
        row = await self._db.one(
            _FOLD_AND_READ,
            {
                "session_id": step.session_id,
                "base_seq": Int8(step.base.applied_seq),
                "base_digest": step.base.head_digest,
                "digest": turn.digest,
                "turn_id": turn.turn_id,
                "item_asked": turn.item_asked,
                "item_answered": turn.item_answered,
            },
        )
        if row is None:
            return None
        found = _interview(row)
        if not row.taken:
            return found, False
        return replace(found, position=step.fold.position, asked=(*found.asked, *asked_in(step.fold.news))), True

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
        rows = await self._db.retrying(lambda: self._db.all(_ADVANCE, params))
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
        return await self._record(
            key, nothing | {"item_id": item, "state": state.value, "failed_calls": Int8(failed_calls)}
        )

    async def unscored(self, request: UnscoredRequest) -> list[Unscored]:
        """Answers that have a seq and no score, oldest first."""
        params = {"max_answers": Int8(request.max_answers), "min_age_ms": Int8(request.min_age_ms)}
        return [
            Unscored(
                AnswerKey(SessionId(row.session_id), TurnId(row.turn_id)),
                row.seq,
                ItemId(row.item_id),
                BankVersion(row.bank_version),
            )
            for row in await self._db.all(_UNSCORED, params)
        ]

    async def _record(self, key: AnswerKey, outcome: Mapping[str, object]) -> Standing | None:
        params: dict[str, object] = {"session_id": key.session_id, "turn_id": key.turn_id}
        row = await self._db.one(_RECORD, {**params, **outcome}) or await self._db.one(_STANDING, params)
        return None if row is None else Standing(AnswerState(row.state), row.level)


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
