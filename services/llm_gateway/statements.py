"""All the SQL of the call ledger, for `store` to send. Each statement is one transaction.

Money stands in three places that always agree: `sessions.spent_nano_usd` and `calls.cost_nano_usd` are sums of
`attempts.cost_nano_usd`. An attempt enters at its ceiling and is corrected when its end is known; so one that nobody
ends, because its process died, is counted at its ceiling without anybody's doing.

Each that writes begins with the lock on the session's row, where a tombstone may stand and which an erase takes too:
what is written was written before the tombstone, or knows of it. All lock in one order, session, call, attempts, so
never in a circle. A statement that waits for the first lock sees other rows as they were before the wait. None depends
on that: a call is inserted under its key, or updated under conditions on itself that PostgreSQL checks again on the
newest version of the row. Where the other rows matter, what was read of the call before is a condition (a repeat), or
the lock is taken by a statement of its own, in the transaction of the one that needs it (clearing, erasing).

Rows are named by parameters, not by joins with what another part returned: the planner does not know that this is one
row, and on young tables it would read all of them.
"""

# ruff: noqa: S608 - the fragments put together here are constants of this file

from typing import Final

from libs.runtime.db import Statement
from services.llm_gateway.domain import Failure

_KEY: Final = "session_id = %(session_id)s AND turn_id = %(turn_id)s AND purpose = %(purpose)s"

# Two that read as UNKNOWN: a lease that ended without a word, and a result that was cleared.
_CALL: Final = """
    fence, attempt,
    CASE WHEN (state = 'INFLIGHT' AND lease_until <= clock_timestamp()) OR (state = 'DONE' AND result IS NULL)
         THEN 'UNKNOWN' ELSE state END AS state,
    context, context IS NULL AS cleared, result, finish_reason, model, error, prompt_tokens, completion_tokens,
    cost_nano_usd, prompt_version, repeats,
    CASE WHEN state = 'INFLIGHT'
         THEN (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint END AS lease_left_ms,
    (extract(epoch FROM finished_at - dispatched_at) * 1000)::bigint AS duration_ms"""

_LEASE: Final = "clock_timestamp() + %(lease_ms)s * interval '1 millisecond'"

_INSERT_ATTEMPT: Final = """
    INSERT INTO llm.attempts (session_id, turn_id, purpose, fence, attempt, state, provider, model, cost_nano_usd)
    SELECT session_id, turn_id, purpose, fence, %(attempt)s, 'dispatched', %(provider)s, %(model)s, %(ceiling)s
    FROM call"""

# The usual case, a call that nobody has asked for, in one statement: the account is charged, and locked, only where the
# call is absent. Should it appear during the wait for that lock, inserting it violates its key and undoes the charge.
OPEN: Final = Statement(
    "llm_open",
    f"""
    WITH known AS (
        SELECT {_CALL} FROM llm.calls WHERE {_KEY}
    ), account AS (
        INSERT INTO llm.sessions AS held (session_id, spent_nano_usd)
        SELECT %(session_id)s, %(ceiling)s WHERE NOT EXISTS (SELECT FROM known)
        ON CONFLICT (session_id) DO UPDATE SET spent_nano_usd = held.spent_nano_usd + excluded.spent_nano_usd
        WHERE NOT held.erased
        RETURNING session_id
    ), call AS (
        INSERT INTO llm.calls (session_id, turn_id, purpose, state, fence, lease_until, context, cost_nano_usd,
                               prompt_version, prompt_hash)
        SELECT session_id, %(turn_id)s, %(purpose)s, 'INFLIGHT', 1, {_LEASE}, %(context)s, %(ceiling)s,
               %(prompt_version)s, %(prompt_hash)s
        FROM account
        RETURNING session_id, turn_id, purpose, fence
    ), attempt AS ({_INSERT_ATTEMPT}
    )
    SELECT call.fence AS opened, known.*,
           EXISTS (SELECT FROM llm.sessions WHERE session_id = %(session_id)s AND erased) AS erased
    FROM call FULL JOIN known ON true
    """,
)

# The next intent of a call that gave nothing, on the word of whoever saw it end: `fence` and `ended` are the fence and
# the attempt that it had then. So each end is followed by one repeat at most. And as long as they are the same nobody
# has added an attempt, so that this statement sees all there are although it may be older than its lock: those that
# have not been ended are unknown now, and none stays `dispatched` under a fence that has passed.
REPEAT: Final = Statement(
    "llm_repeat",
    f"""
    WITH account AS (
        SELECT session_id FROM llm.sessions WHERE session_id = %(session_id)s AND NOT erased FOR NO KEY UPDATE
    ), call AS (
        UPDATE llm.calls AS call
        SET state = 'INFLIGHT', fence = fence + 1, attempt = 1, repeats = repeats + 1, lease_until = {_LEASE},
            context = %(context)s, prompt_version = %(prompt_version)s, prompt_hash = %(prompt_hash)s,
            result = NULL, finish_reason = NULL, model = NULL, error = NULL,
            cost_nano_usd = cost_nano_usd + %(ceiling)s, dispatched_at = clock_timestamp(), finished_at = NULL
        FROM account
        WHERE call.session_id = %(session_id)s AND turn_id = %(turn_id)s AND purpose = %(purpose)s
          AND fence = %(fence)s AND attempt = %(ended)s
          AND (state IN ('FAILED', 'UNKNOWN') OR (state = 'INFLIGHT' AND lease_until <= clock_timestamp())
               OR (state = 'DONE' AND result IS NULL))
        RETURNING call.session_id, turn_id, purpose, fence
    ), lost AS (
        UPDATE llm.attempts AS attempt
        SET state = 'unknown', error = '{Failure.LOST}', finished_at = clock_timestamp()
        FROM call
        WHERE attempt.session_id = call.session_id AND attempt.turn_id = call.turn_id
          AND attempt.purpose = call.purpose AND attempt.state = 'dispatched'
    ), attempt AS ({_INSERT_ATTEMPT}
    ), paid AS (
        UPDATE llm.sessions AS held SET spent_nano_usd = spent_nano_usd + %(ceiling)s
        WHERE held.session_id = %(session_id)s AND EXISTS (SELECT FROM call)
    )
    SELECT fence FROM call
    """,
)

_END_ATTEMPT: Final = """
    UPDATE llm.attempts AS attempt
    SET state = %(attempt_state)s, status = %(status)s, error = %(attempt_error)s, finished_at = clock_timestamp(),
        prompt_tokens = %(prompt_tokens)s, completion_tokens = %(completion_tokens)s, cost_nano_usd = %(cost)s
    WHERE attempt.session_id = %(session_id)s AND attempt.turn_id = %(turn_id)s AND attempt.purpose = %(purpose)s
      AND attempt.fence = %(fence)s AND attempt.attempt = %(ended)s AND EXISTS (SELECT FROM call)"""

# A statement that is sent again because its answer got lost changes nothing: the attempt it ends is current no more.
_HELD_CALL: Final = """
        WHERE call.session_id = %(session_id)s AND turn_id = %(turn_id)s AND purpose = %(purpose)s
          AND state = 'INFLIGHT' AND fence = %(fence)s AND attempt = %(ended)s"""

# One attempt ends and the next begins, under the same intent while its lease lasts: as one ceiling goes and the other
# comes, the sums grow by what the first one cost.
RETRY: Final = Statement(
    "llm_retry",
    f"""
    WITH account AS (
        SELECT session_id FROM llm.sessions WHERE session_id = %(session_id)s AND NOT erased FOR NO KEY UPDATE
    ), call AS (
        UPDATE llm.calls AS call
        SET attempt = %(attempt)s, prompt_tokens = prompt_tokens + %(prompt_tokens)s,
            completion_tokens = completion_tokens + %(completion_tokens)s,
            cost_nano_usd = cost_nano_usd + %(cost)s
        FROM account{_HELD_CALL} AND lease_until > clock_timestamp()
        RETURNING call.session_id, turn_id, purpose, fence
    ), ended AS ({_END_ATTEMPT}
    ), attempt AS ({_INSERT_ATTEMPT}
    ), paid AS (
        UPDATE llm.sessions AS held SET spent_nano_usd = spent_nano_usd + %(cost)s
        WHERE held.session_id = %(session_id)s AND EXISTS (SELECT FROM call)
    )
    SELECT fence FROM call
    """,
)

# The result. Under a tombstone only what it cost is kept.
FINISH: Final = Statement(
    "llm_finish",
    f"""
    WITH account AS (
        SELECT session_id, erased FROM llm.sessions WHERE session_id = %(session_id)s FOR NO KEY UPDATE
    ), call AS (
        UPDATE llm.calls AS call
        SET state = %(state)s, result = CASE WHEN NOT erased THEN %(result)s END, finish_reason = %(finish_reason)s,
            model = %(model)s, error = %(error)s, finished_at = clock_timestamp(),
            prompt_tokens = prompt_tokens + %(prompt_tokens)s,
            completion_tokens = completion_tokens + %(completion_tokens)s,
            cost_nano_usd = cost_nano_usd + %(cost)s - %(ceiling)s
        FROM account{_HELD_CALL}
        RETURNING call.session_id, turn_id, purpose, {_CALL}, erased
    ), attempt AS ({_END_ATTEMPT}
    ), paid AS (
        UPDATE llm.sessions AS held SET spent_nano_usd = spent_nano_usd + %(cost)s - %(ceiling)s
        WHERE held.session_id = %(session_id)s AND EXISTS (SELECT FROM call)
    )
    SELECT * FROM call
    """,
)

READ: Final = Statement(
    "llm_read",
    f"SELECT {_CALL}, erased FROM llm.calls JOIN llm.sessions USING (session_id) WHERE {_KEY}",
)

# As it was recorded, and beside that what time has made of it: nobody ends a call, or its attempt, whose lease is over.
ENTRIES: Final = Statement(
    "llm_entries",
    """
    SELECT call.purpose,
           CASE WHEN call.state = 'INFLIGHT' AND lease_until <= now() THEN 'UNKNOWN' ELSE call.state END AS state,
           call.fence, call.repeats,
           CASE WHEN call.state = 'INFLIGHT'
                THEN (extract(epoch FROM lease_until - now()) * 1000)::bigint END AS lease_left_ms,
           call.error, call.prompt_tokens, call.completion_tokens, call.cost_nano_usd, call.finish_reason,
           call.prompt_version, call.model, call.dispatched_at, call.finished_at, call.context IS NULL AS cleared,
           made.fence AS made_fence, made.attempt AS made_attempt,
           CASE WHEN made.state = 'dispatched' AND lease_until <= now()
                THEN 'unknown' ELSE made.state END AS made_state,
           made.provider AS made_provider, made.model AS made_model, made.status AS made_status,
           made.error AS made_error, made.prompt_tokens AS made_prompt_tokens,
           made.completion_tokens AS made_completion_tokens, made.cost_nano_usd AS made_cost_nano_usd,
           made.dispatched_at AS made_dispatched_at, made.finished_at AS made_finished_at
    FROM llm.calls AS call JOIN llm.attempts AS made USING (session_id, turn_id, purpose)
    WHERE session_id = %(session_id)s AND turn_id = %(turn_id)s
    ORDER BY call.purpose, made.fence, made.attempt
    """,
)

# In the order in which they were dispatched, which is that of the index: when a call ended is in no index, so that
# recording it touches none. Nearly all that were dispatched before the moment have ended before it, too.
CLEARABLE: Final = Statement(
    "llm_clearable",
    """
    SELECT session_id, turn_id, dispatched_at
    FROM llm.calls AS call
    WHERE context IS NOT NULL
      AND dispatched_at <= statement_timestamp() - %(min_age_ms)s * interval '1 millisecond'
      AND (dispatched_at, session_id, turn_id) > (%(after)s, %(after_session_id)s, %(after_turn_id)s)
      AND NOT EXISTS (
          SELECT FROM llm.calls AS other
          WHERE other.session_id = call.session_id AND other.turn_id = call.turn_id
            AND coalesce(other.finished_at, other.lease_until)
                > statement_timestamp() - %(min_age_ms)s * interval '1 millisecond'
      )
    ORDER BY dispatched_at, session_id, turn_id
    LIMIT %(max_calls)s
    """,
)

# The lock of a transaction that goes on with what it protects.
HOLD: Final = Statement(
    "llm_hold",
    "SELECT session_id FROM llm.sessions WHERE session_id = %(session_id)s AND NOT erased FOR NO KEY UPDATE",
)

# After HOLD. An intent keeps its context as long as its result may come, so a call whose lease is over without a word
# ends here: a result that came after this would have been made for a context that is not there any more.
CLEAR: Final = Statement(
    "llm_clear",
    f"""
    WITH call AS (
        UPDATE llm.calls
        SET context = NULL, result = NULL, state = CASE state WHEN 'INFLIGHT' THEN 'UNKNOWN' ELSE state END,
            error = CASE state WHEN 'INFLIGHT' THEN '{Failure.LOST}' ELSE error END,
            finished_at = coalesce(finished_at, lease_until)
        WHERE session_id = %(session_id)s AND turn_id = ANY(%(turn_ids)s) AND context IS NOT NULL
          AND (state <> 'INFLIGHT' OR lease_until <= clock_timestamp())
        RETURNING session_id, turn_id, purpose, finished_at
    )
    UPDATE llm.attempts AS attempt
    SET state = 'unknown', error = '{Failure.LOST}', finished_at = call.finished_at
    FROM call
    WHERE attempt.session_id = %(session_id)s AND attempt.turn_id = call.turn_id AND attempt.purpose = call.purpose
      AND attempt.state = 'dispatched'
    """,
)

# A tombstone, made where no call was: from its commit on nothing is written but what calls under way have cost.
BURY: Final = Statement(
    "llm_bury",
    """
    INSERT INTO llm.sessions AS held (session_id, erased) VALUES (%(session_id)s, true)
    ON CONFLICT (session_id) DO UPDATE SET erased = true WHERE NOT held.erased
    """,
)

# After BURY, which has waited for whoever was writing: this one, being younger, sees what they wrote. A prompt's hash
# goes too: who guesses what was said could tell by it that the guess is right.
ERASE: Final = Statement(
    "llm_erase",
    """
    UPDATE llm.calls SET context = NULL, result = NULL, prompt_hash = NULL
    WHERE session_id = %(session_id)s AND num_nonnulls(context, result, prompt_hash) > 0
    """,
)
