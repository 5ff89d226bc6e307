"""All the SQL of the ledger, for `store` to send. Each statement is one transaction.

A statement reads rows as they were when it began, and may then wait for a lock. It is right all the same, because every
write to a stream or to one of its turns begins by updating the stream's row, and demands there what cannot hold if
anything it has read has changed meanwhile: `claim`, `take_over`, `supersede`, `seal` and `erase` the `rev` that their
decision was made on, which grows with every write; `commit` and `release` the fence of a claim that is still held.
Where the demand is not met nothing changes, and the caller reads again. Each also demands that the stream is not
erased, so nothing written late brings back what an erase has cleared.

`statement_timestamp()` is the clock of every write: one value throughout the statement.
"""

# ruff: noqa: S608 - the fragments put together here are constants of this file

from typing import Final

from libs.runtime.db import Statement

# In the order of Head's fields, and of what `store` takes a turn from; no two names of a row may be the same.
_HEAD: Final = """s.session_id, s.owner_id, s.tenant_id, s.kind, s.facts, s.personal_facts,
    s.fingerprint AS stream_fingerprint, s.max_turns, s.min_interval_ms, s.lease_ms, s.last_seq,
    s.fence AS stream_fence, s.rev, s.acked_rev, s.active_turn, s.claim_id, s.lease_until, s.last_begin_at,
    s.sealed_at, s.created_at, s.changed_at, s.head_digest, s.erased"""
HEAD_COLUMNS: Final = 23
TURN_AT: Final = 1 + HEAD_COLUMNS  # in rows that begin with the time
_TURN: Final = """t.turn_id, t.request_id, t.fingerprint, t.state, t.reason, t.fence, t.base_seq, t.seq, t.user_text,
    t.reply_text, t.item_answered, t.item_asked, t.record, t.digest, t.begun_at, t.committed_at,
    (SELECT p.digest FROM history.turns p WHERE p.session_id = t.session_id AND p.seq = t.seq - 1) AS previous_digest"""
TURN_COLUMNS: Final = 17
# Part of every write to a stream or to one of its turns.
_CHANGE: Final = "rev = rev + 1, changed_at = statement_timestamp()"
_THEIRS: Final = """(%(any_owner)s OR s.owner_id = %(owner_id)s)
        AND (%(kind)s::text IS NULL OR s.kind = %(kind)s)"""
_VISIBLE: Final = f"NOT s.erased AND {_THEIRS}"

OPEN: Final = Statement(
    "history_open",
    f"""
    WITH s AS (
        INSERT INTO history.streams (
            session_id, owner_id, tenant_id, kind, request_id, fingerprint, facts, personal_facts, max_turns,
            min_interval_ms, lease_ms, salt, head_digest, created_at, changed_at, fence, active_turn,
            claim_id, lease_until)
        VALUES (
            %(session_id)s, %(owner_id)s, %(tenant_id)s, %(kind)s, %(request_id)s, %(fingerprint)s, %(facts)s,
            %(personal_facts)s, %(max_turns)s, %(min_interval_ms)s, %(lease_ms)s, %(salt)s, %(head_digest)s,
            statement_timestamp(), statement_timestamp(), %(fence)s, %(turn_id)s, %(claim_id)s,
            statement_timestamp() + %(lease_left_ms)s * interval '1 millisecond')
        ON CONFLICT (session_id) DO NOTHING
        RETURNING *
    ), opening AS (
        INSERT INTO history.turns (session_id, turn_id, request_id, fingerprint, state, fence, base_seq, begun_at)
        SELECT s.session_id, s.active_turn, s.request_id, s.fingerprint, 'RUNNING', s.fence, s.last_seq, s.created_at
        FROM s WHERE s.active_turn IS NOT NULL
    )
    SELECT {_HEAD} FROM s
    """,
)

# One row for each of: the turn of the same request, the active turn, the last turn; or one row without a turn. The
# newest messages come in each of them: there are two rows only where somebody is replayed or waits.
STANDING: Final = Statement(
    "history_standing",
    f"""
    SELECT clock_timestamp(), {_HEAD}, {_TURN}, w.*
    FROM history.streams s
    CROSS JOIN LATERAL (
        SELECT array_agg(r.user_text ORDER BY r.seq DESC) AS user_texts,
            array_agg(r.user_tokens ORDER BY r.seq DESC) AS user_token_counts,
            array_agg(r.reply_text ORDER BY r.seq DESC) AS reply_texts,
            array_agg(r.reply_tokens ORDER BY r.seq DESC) AS reply_token_counts
        FROM history.turns r
        WHERE r.session_id = %(session_id)s AND r.seq > s.last_seq - %(window_turns)s
    ) w
    LEFT JOIN LATERAL (
        SELECT * FROM history.turns x WHERE x.session_id = %(session_id)s AND x.request_id = %(request_id)s
        UNION ALL
        SELECT * FROM history.turns x
        WHERE x.session_id = %(session_id)s AND x.turn_id = s.active_turn AND x.request_id <> %(request_id)s
        UNION ALL
        SELECT * FROM history.turns x
        WHERE x.session_id = %(session_id)s AND x.seq = s.last_seq AND x.request_id <> %(request_id)s
    ) t ON true
    WHERE s.session_id = %(session_id)s AND {_VISIBLE}
    """,
)

CLAIM: Final = Statement(
    "history_claim",
    f"""
    WITH s AS (
        UPDATE history.streams
        SET {_CHANGE}, fence = fence + 1, active_turn = %(turn_id)s, claim_id = %(claim_id)s,
            lease_until = statement_timestamp() + lease_ms * interval '1 millisecond',
            last_begin_at = statement_timestamp()
        WHERE session_id = %(session_id)s AND rev = %(rev)s AND NOT erased
        RETURNING fence, last_seq
    )
    INSERT INTO history.turns (session_id, turn_id, request_id, fingerprint, state, fence, base_seq, user_text,
        user_tokens, item_answered, begun_at)
    SELECT %(session_id)s, %(turn_id)s, %(request_id)s, %(fingerprint)s, 'RUNNING', s.fence, s.last_seq, %(user_text)s,
        %(user_tokens)s, %(item_answered)s, statement_timestamp()
    FROM s
    RETURNING fence, begun_at
    """,
)

TAKE_OVER: Final = Statement(
    "history_take_over",
    f"""
    WITH s AS (
        UPDATE history.streams
        SET {_CHANGE}, fence = fence + 1, active_turn = %(turn_id)s, claim_id = %(claim_id)s,
            lease_until = statement_timestamp() + lease_ms * interval '1 millisecond'
        WHERE session_id = %(session_id)s AND rev = %(rev)s AND NOT erased
        RETURNING fence
    )
    UPDATE history.turns t SET state = 'RUNNING', reason = NULL, fence = s.fence
    FROM s WHERE t.session_id = %(session_id)s AND t.turn_id = %(turn_id)s
    RETURNING s.fence, statement_timestamp()
    """,
)

SUPERSEDE: Final = Statement(
    "history_supersede",
    f"""
    WITH s AS (
        UPDATE history.streams SET {_CHANGE}, active_turn = NULL, claim_id = NULL, lease_until = NULL
        WHERE session_id = %(session_id)s AND rev = %(rev)s AND NOT erased
        RETURNING session_id
    )
    UPDATE history.turns t SET state = 'FAILED', reason = 'CONFLICT'
    FROM s WHERE t.session_id = %(session_id)s AND t.turn_id = %(turn_id)s
    """,
)

# `before` may be older than the lock, but what it holds cannot have changed where the demands of `s` are met. A turn's
# base and message never change; the claim was there, with this fence, when the statement began (its holder was told),
# and the head's digest changes only by a commit, which ends the claim. Nor does any turn but the active one change, or
# come, before a claim has ended: so the last commit finds all that were given back. It fails them as SEAL does, for
# none can be answered any more; where it is not the last they are not even looked for. The division fails the whole
# statement unless exactly one turn has been committed.
COMMIT: Final = Statement(
    "history_commit",
    f"""
    WITH before AS (
        SELECT t.request_id, t.fingerprint, t.base_seq, t.user_text, t.item_answered, t.begun_at, s.head_digest,
            sha256(s.salt
                || CASE WHEN t.user_text IS NULL THEN decode('000000000000000000', 'hex') ELSE decode('01', 'hex')
                    || int8send(octet_length(t.user_text)) || convert_to(t.user_text, 'UTF8') END
                || decode('01', 'hex') || int8send(octet_length(%(reply_text)s)) || convert_to(%(reply_text)s, 'UTF8')
                || decode('01', 'hex') || int8send(octet_length(%(record)s)) || %(record)s) AS content
        FROM history.turns t JOIN history.streams s ON s.session_id = t.session_id
        WHERE t.session_id = %(session_id)s AND t.turn_id = %(turn_id)s
    ), s AS (
        UPDATE history.streams s
        SET {_CHANGE}, last_seq = s.last_seq + 1, active_turn = NULL, claim_id = NULL, lease_until = NULL,
            sealed = %(final)s, sealed_at = CASE WHEN %(final)s THEN statement_timestamp() END,
            head_digest = sha256(convert_to('colloquy/turn/1', 'UTF8') || s.head_digest || uuid_send(s.session_id)
                || uuid_send(s.active_turn) || int8send(s.last_seq + 1) || before.content)
        FROM before
        WHERE s.session_id = %(session_id)s AND s.active_turn = %(turn_id)s AND s.fence = %(fence)s
            AND s.last_seq = before.base_seq AND NOT s.sealed AND NOT s.erased
        RETURNING s.last_seq, s.rev, s.head_digest AS digest
    ), t AS (
        UPDATE history.turns t
        SET state = 'COMMITTED', seq = s.last_seq, reply_text = %(reply_text)s, reply_tokens = %(reply_tokens)s,
            item_asked = %(item_asked)s, record = %(record)s, content = before.content, digest = s.digest,
            committed_at = statement_timestamp()
        FROM s, before
        WHERE t.session_id = %(session_id)s AND t.turn_id = %(turn_id)s AND t.state = 'RUNNING'
        RETURNING t.committed_at
    ), given_back AS (
        UPDATE history.turns t SET state = 'FAILED', reason = 'SESSION_CLOSED'
        FROM s WHERE %(final)s AND t.session_id = %(session_id)s AND t.state = 'ABANDONED'
    )
    SELECT before.*, s.last_seq, s.rev, s.digest, (SELECT t.committed_at FROM t), 1 / (SELECT count(*) FROM t) AS proof
    FROM s, before
    """,
)

RELEASE: Final = Statement(
    "history_release",
    f"""
    WITH s AS (
        UPDATE history.streams SET {_CHANGE}, active_turn = NULL, claim_id = NULL, lease_until = NULL
        WHERE session_id = %(session_id)s AND active_turn = %(turn_id)s AND fence = %(fence)s AND NOT erased
        RETURNING session_id
    )
    UPDATE history.turns t SET state = %(state)s, reason = %(reason)s
    FROM s WHERE t.session_id = %(session_id)s AND t.turn_id = %(turn_id)s AND t.state = 'RUNNING'
    """,
)

TURN_AND_HEAD: Final = Statement(
    "history_turn",
    f"""
    SELECT {_HEAD}, {_TURN}
    FROM history.streams s LEFT JOIN history.turns t ON t.session_id = s.session_id AND t.turn_id = %(turn_id)s
    WHERE s.session_id = %(session_id)s AND NOT s.erased
    """,
)

HEAD: Final = Statement(
    "history_head", f"SELECT {_HEAD} FROM history.streams s WHERE s.session_id = %(session_id)s AND {_THEIRS}"
)

# What is pending is the active turn, else that of the last claim given back on this base. One stream and many have a
# statement each: for `= ANY` the planner makes a plan of its own each time, which costs three times the reading.
_SIGHT: Final = f"""
    SELECT clock_timestamp(), {_HEAD}, {_TURN}
    FROM history.streams s
    LEFT JOIN LATERAL (
        SELECT * FROM history.turns x WHERE x.session_id = s.session_id AND x.turn_id = s.active_turn
        UNION ALL
        (SELECT * FROM history.turns x
         WHERE x.session_id = s.session_id AND x.base_seq = s.last_seq AND x.state = 'ABANDONED'
             AND s.active_turn IS NULL
         ORDER BY x.fence DESC LIMIT 1)
    ) t ON true
    WHERE {_VISIBLE}
    """
STREAM: Final = Statement("history_stream", _SIGHT + "AND s.session_id = %(session_id)s")
STREAMS: Final = Statement("history_streams", _SIGHT + "AND s.session_id = ANY(%(session_ids)s)")

# None of an erased stream: what it said is cleared, its turns are there.
TURNS: Final = Statement(
    "history_turns",
    f"""
    SELECT {_TURN} FROM history.turns t
    WHERE t.session_id = %(session_id)s AND t.seq BETWEEN %(first)s AND %(last)s
        AND EXISTS (SELECT FROM history.streams s WHERE s.session_id = %(session_id)s AND NOT s.erased)
    ORDER BY t.seq
    """,
)

# The sweep's cursor, on the partial index of the streams that are not settled; a page begins where the last one ended,
# so a stream that stays unsettled cannot keep the others waiting. Head and turn are of one snapshot. The planner takes
# a third of all streams for unsettled: the inner limit keeps it from joining whole tables for the few that are.
UNSETTLED: Final = Statement(
    "history_unsettled",
    f"""
    SELECT clock_timestamp(), {_HEAD}, {_TURN}
    FROM history.streams s
    LEFT JOIN LATERAL (
        SELECT * FROM history.turns x WHERE x.session_id = s.session_id AND x.turn_id = s.active_turn LIMIT 1
    ) t ON true
    WHERE s.acked_rev < s.rev AND s.session_id > %(after_session_id)s
        AND s.changed_at <= statement_timestamp() - %(min_age_ms)s * interval '1 millisecond'
    ORDER BY s.session_id
    LIMIT %(limit)s
    """,
)

# As many rows as were asked for are looked up one by one: here too a limit speaks for the planner's estimate. A turn
# that was given back on a base that has been built upon can never run again. Its row says so only once its own request
# has come again (SUPERSEDE), which may be never; told is what that request would be.
TURN_STATES: Final = Statement(
    "history_turn_states",
    """
    SELECT t.session_id, t.turn_id, t.committed_at,
        CASE WHEN t.state = 'ABANDONED'
            AND t.base_seq < (SELECT s.last_seq FROM history.streams s WHERE s.session_id = t.session_id)
            THEN 'FAILED' ELSE t.state END AS state
    FROM unnest(%(session_ids)s::uuid[], %(turn_ids)s::uuid[]) AS asked (session_id, turn_id)
    CROSS JOIN LATERAL (
        SELECT * FROM history.turns x WHERE x.session_id = asked.session_id AND x.turn_id = asked.turn_id LIMIT 1
    ) t
    """,
)

# Rows are locked in one order, so that two gateways which settle the same sessions cannot deadlock; a row that was
# waited for is looked at again as it then is.
ACKNOWLEDGE: Final = Statement(
    "history_acknowledge",
    """
    WITH settled AS (
        SELECT s.session_id
        FROM history.streams s
        JOIN unnest(%(session_ids)s::uuid[], %(revs)s::bigint[]) AS seen (session_id, rev)
            ON s.session_id = seen.session_id AND s.rev = seen.rev
        WHERE s.active_turn IS NULL
        ORDER BY s.session_id
        FOR NO KEY UPDATE OF s
    )
    UPDATE history.streams s SET acked_rev = s.rev FROM settled WHERE s.session_id = settled.session_id
    """,
)

SEAL: Final = Statement(
    "history_seal",
    f"""
    WITH s AS (
        UPDATE history.streams
        SET {_CHANGE}, sealed = true, sealed_at = statement_timestamp(), fence = fence + 1, active_turn = NULL,
            claim_id = NULL, lease_until = NULL
        WHERE session_id = %(session_id)s AND rev = %(rev)s AND NOT erased
        RETURNING *
    ), t AS (
        UPDATE history.turns t SET state = 'FAILED', reason = 'SESSION_CLOSED'
        FROM s
        WHERE t.session_id = %(session_id)s AND (t.turn_id = %(active_turn)s OR t.state = 'ABANDONED')
    )
    SELECT {_HEAD} FROM s
    """,
)

# Every turn of the session loses what it says. The chain still verifies, for it is made of `content`: a hash against
# which nobody can test a guess once the salt is gone. Ids, counts and times are not personal.
ERASE: Final = Statement(
    "history_erase",
    f"""
    WITH s AS (
        UPDATE history.streams
        SET {_CHANGE}, erased = true, personal_facts = NULL, fingerprint = NULL, salt = NULL, sealed = true,
            sealed_at = coalesce(sealed_at, statement_timestamp()), fence = fence + 1, active_turn = NULL,
            claim_id = NULL, lease_until = NULL
        WHERE session_id = %(session_id)s AND rev = %(rev)s AND NOT erased
        RETURNING *
    ), t AS (
        UPDATE history.turns t
        SET user_text = NULL, reply_text = NULL, record = NULL, fingerprint = NULL,
            state = CASE WHEN t.state IN ('RUNNING', 'ABANDONED') THEN 'FAILED' ELSE t.state END,
            reason = CASE WHEN t.state IN ('RUNNING', 'ABANDONED') THEN 'SESSION_CLOSED' ELSE t.reason END
        FROM s
        WHERE t.session_id = %(session_id)s
    )
    SELECT {_HEAD} FROM s
    """,
)

_INTERVENTION: Final = "i.intervention_id, i.turn_id, i.action, i.actor, i.reason, i.before, i.after, i.at"


def _intervention(action: str, change: str, fail: str) -> Statement:
    """A repair by hand and the record of it: both or neither.

    Args:
        action: as it is recorded.
        change: what is set in the head, beside the end of the claim.
        fail: which turns end, and how.
    """
    return Statement(
        f"history_{action.lower()}",
        f"""
    WITH s AS (
        UPDATE history.streams
        SET {_CHANGE}, fence = fence + 1, active_turn = NULL, claim_id = NULL, lease_until = NULL{change}
        WHERE session_id = %(session_id)s AND rev = %(rev)s AND NOT erased
        RETURNING *
    ), t AS (
        UPDATE history.turns t SET {fail}
    ), i AS (
        INSERT INTO history.interventions AS i (
            session_id, intervention_id, turn_id, action, actor, reason, before, after, at)
        SELECT s.session_id, %(intervention_id)s, %(active_turn)s, '{action}', %(actor)s, %(reason)s, %(before)s,
            jsonb_build_object('fence', s.fence, 'rev', s.rev, 'last_seq', s.last_seq, 'sealed', s.sealed),
            statement_timestamp()
        FROM s
        RETURNING {_INTERVENTION}
    )
    SELECT {_HEAD}, i.* FROM s, i
    """,
    )


RESET: Final = _intervention(
    "RESET",
    "",
    """state = 'ABANDONED', reason = 'UNAVAILABLE'
        FROM s WHERE t.session_id = %(session_id)s AND t.turn_id = %(active_turn)s""",
)
COMPLETE: Final = _intervention(
    "COMPLETE",
    ", sealed = true, sealed_at = coalesce(sealed_at, statement_timestamp())",
    """state = 'FAILED', reason = 'SESSION_CLOSED'
        FROM s WHERE t.session_id = %(session_id)s AND (t.turn_id = %(active_turn)s OR t.state = 'ABANDONED')""",
)

INTERVENTION: Final = Statement(
    "history_intervention",
    f"""
    SELECT {_INTERVENTION} FROM history.interventions i
    WHERE i.session_id = %(session_id)s AND i.intervention_id = %(intervention_id)s
    """,
)
INTERVENTIONS: Final = Statement(
    "history_interventions",
    f"""
    SELECT {_INTERVENTION} FROM history.interventions i WHERE i.session_id = %(session_id)s
    ORDER BY i.at DESC, i.intervention_id
    LIMIT %(limit)s
    """,
)

# A turn by its own id or by its request's.
INSPECTION: Final = Statement(
    "history_inspection",
    f"""
    SELECT clock_timestamp(), {_HEAD}, {_TURN}, t.user_tokens, t.reply_tokens
    FROM history.streams s
    CROSS JOIN LATERAL (
        SELECT * FROM history.turns x WHERE x.session_id = %(session_id)s AND x.turn_id = %(id)s
        UNION ALL
        SELECT * FROM history.turns x WHERE x.session_id = %(session_id)s AND x.request_id = %(id)s
        LIMIT 1
    ) t
    WHERE s.session_id = %(session_id)s
    """,
)
