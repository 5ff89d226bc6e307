"""The SQL of assessment, all of it; `store` binds and reads it.

Every statement is one transaction, but for the two of an erasure. Each that writes locks the interview's row first,
where a tombstone may stand, and its answers after that, so nobody waits in a circle; a batch locks its interviews in
the order of their ids.

A statement that waited for a lock sees other rows as they were before the wait. Nothing here relies on them: an
interview moves only from the position that the statement's snapshot had, so all that was folded into it is in the
snapshot as well; and answers are inserted or updated under conditions that PostgreSQL checks on their newest version.
"""

from libs.runtime.db import Statement

START = Statement(
    "assessment_start",
    """
    INSERT INTO assessment.interviews (session_id, plan, bank_version, head_digest)
    VALUES (%(session_id)s, %(plan)s, %(bank_version)s, %(head_digest)s)
    ON CONFLICT (session_id) DO NOTHING
    """,
)

# An interview and all that the next choice needs. The score of a turn that is not folded yet counts where the choice is
# to be made as if it were.
READ = Statement(
    "assessment_read",
    """
    SELECT plan, bank_version, applied_seq, head_digest, completed, asked, item_ids, levels, standard_errors
    FROM assessment.interviews
         CROSS JOIN LATERAL (
             SELECT array_agg(item_id) AS item_ids, array_agg(level) AS levels,
                    array_agg(standard_error) AS standard_errors
             FROM assessment.answers
             WHERE answers.session_id = %(session_id)s AND state = 'SCORED'
               AND (seq IS NOT NULL OR turn_id = %(turn_id)s)
         ) AS scored
    WHERE session_id = %(session_id)s AND NOT erased
    """,
)

# The items of all steps are one array, of which each step has a slice. What an interview forgets when it is folded anew
# are the places of its answers, not their scores: those of turns that the ledger no longer has stay without a seq.
ADVANCE = Statement(
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
RECORD = Statement(
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
            judge_version, judge_model, failed_calls, retry_at, scored_at)
        SELECT session_id, %(turn_id)s, %(item_id)s, %(state)s, %(level)s::smallint, %(standard_error)s::float8,
               %(confidence)s::float8, %(misquotes)s::smallint, %(quotes)s::text[], %(rationale)s::text,
               %(judge_version)s::text, %(judge_model)s::text, %(failed_calls)s,
               clock_timestamp() + %(pause_ms)s::bigint * interval '1 millisecond',
               CASE WHEN %(state)s = 'SCORED' THEN clock_timestamp() END
        FROM open
        ON CONFLICT (session_id, turn_id) DO UPDATE
        SET state = excluded.state, level = excluded.level, standard_error = excluded.standard_error,
            confidence = excluded.confidence, misquotes = excluded.misquotes, quotes = excluded.quotes,
            rationale = excluded.rationale, judge_version = excluded.judge_version,
            judge_model = excluded.judge_model, scored_at = excluded.scored_at,
            failed_calls = greatest(answer.failed_calls, excluded.failed_calls),
            retry_at = greatest(answer.retry_at, excluded.retry_at)
        WHERE answer.state = 'PENDING'
        RETURNING state, level
    )
    SELECT state, level FROM recorded UNION ALL SELECT state, level FROM known
    """,
)

# An answer that nothing is recorded of is as pending as one that is recorded so. No row: no interview to score in.
STANDING = Statement(
    "assessment_standing",
    """
    SELECT coalesce(state, 'PENDING') AS state, level
    FROM assessment.interviews LEFT JOIN assessment.answers
         ON answers.session_id = interviews.session_id AND answers.turn_id = %(turn_id)s
    WHERE interviews.session_id = %(session_id)s AND NOT erased
    """,
)

# What waits is in no erased interview: an erasure leaves nothing pending.
UNSCORED = Statement(
    "assessment_unscored",
    """
    SELECT session_id, turn_id, seq, item_id, bank_version, greatest(folded_at, retry_at) AS waits_from
    FROM assessment.answers JOIN assessment.interviews USING (session_id)
    WHERE state = 'PENDING' AND folded_at IS NOT NULL
      AND greatest(folded_at, retry_at) <= statement_timestamp() - %(min_age_ms)s * interval '1 millisecond'
      AND (greatest(folded_at, retry_at), session_id, turn_id)
          > (%(after)s::timestamptz, %(after_session_id)s, %(after_turn_id)s)
    ORDER BY greatest(folded_at, retry_at), session_id, turn_id
    LIMIT %(max_answers)s
    """,
)

# A tombstone, made where no interview was: from its commit on nothing is written to the interview or its answers.
BURY = Statement(
    "assessment_bury",
    """
    INSERT INTO assessment.interviews AS interview (session_id, erased) VALUES (%(session_id)s, true)
    ON CONFLICT (session_id) DO UPDATE SET erased = true WHERE NOT interview.erased
    """,
)

# After BURY, in its transaction: that has waited for whoever was writing, so this one, being younger, sees what they
# wrote. What is pending would wait for ever.
ERASE = Statement(
    "assessment_erase",
    """
    UPDATE assessment.answers
    SET quotes = NULL, rationale = NULL, state = CASE state WHEN 'PENDING' THEN 'UNSCORABLE' ELSE state END
    WHERE session_id = %(session_id)s AND (num_nonnulls(quotes, rationale) > 0 OR state = 'PENDING')
    """,
)
