"""All the SQL of the verifier, for `reader` to send: it reads the tables of every context, and writes nothing.

It goes past the services, since what they would say of themselves is what is being checked. What nobody may see is not
read where telling that it is there will do. Each row begins with its session; the rest is in the order of its type's
fields in `rows`, as far as `reader` does not say otherwise.
"""

# ruff: noqa: S608 - the fragments put together here are constants of this file

from typing import Final

from libs.runtime.db import Statement

# The first thing said in a transaction: then all its statements see one state, and none can write.
SNAPSHOT: Final = Statement("verifier_snapshot", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

_NEXT: Final = "session_id > %(after)s ORDER BY session_id LIMIT %(limit)s"
PAGES: Final = {
    "history": Statement("verifier_page_history", f"SELECT session_id FROM history.streams WHERE {_NEXT}"),
    "session": Statement("verifier_page_session", f"SELECT session_id FROM session.sessions WHERE {_NEXT}"),
    "assessment": Statement("verifier_page_assessment", f"SELECT session_id FROM assessment.interviews WHERE {_NEXT}"),
    "llm": Statement("verifier_page_llm", f"SELECT session_id FROM llm.sessions WHERE {_NEXT}"),
}
UNSETTLED: Final = Statement(
    "verifier_unsettled", f"SELECT session_id FROM history.streams WHERE acked_rev < rev AND {_NEXT}"
)

_THESE: Final = "session_id = ANY(%(session_ids)s)"
REVS: Final = Statement("verifier_revs", f"SELECT session_id, rev, acked_rev FROM history.streams WHERE {_THESE}")
STREAMS: Final = Statement(
    "verifier_streams",
    f"""
    SELECT session_id, owner_id, tenant_id, kind, request_id, fingerprint IS NOT NULL AS has_fingerprint,
        personal_facts IS NOT NULL AS has_personal_facts, max_turns, last_seq, fence, rev, acked_rev, active_turn,
        lease_until, changed_at, sealed, sealed_at, erased, salt, head_digest, created_at,
        clock_timestamp() AS read_at, facts, personal_facts
    FROM history.streams WHERE {_THESE}
    """,
)
TURNS: Final = Statement(
    "verifier_turns",
    f"""
    SELECT session_id, turn_id, request_id, fingerprint IS NOT NULL AS has_fingerprint, state, reason, fence, base_seq,
        seq, user_text, reply_text, item_answered, item_asked, record, content, digest, begun_at, committed_at
    FROM history.turns WHERE {_THESE}
    """,
)
ENTRIES: Final = Statement(
    "verifier_entries",
    f"""
    SELECT session_id, owner_id, tenant_id, kind, status, applied_seq, head_digest, plan, versions, candidate_name,
        metadata, max_turns, created_at, completed_at, erased, prompt_tokens, completion_tokens, cost_nano_usd
    FROM session.sessions WHERE {_THESE}
    """,
)
INTERVIEWS: Final = Statement(
    "verifier_interviews",
    f"""
    SELECT session_id, plan, bank_version, applied_seq, head_digest, asked, completed, erased
    FROM assessment.interviews WHERE {_THESE}
    """,
)
ANSWERS: Final = Statement(
    "verifier_answers",
    f"""
    SELECT session_id, turn_id, seq, item_id, state, quotes IS NOT NULL OR rationale IS NOT NULL AS has_words
    FROM assessment.answers WHERE {_THESE}
    """,
)
ACCOUNTS: Final = Statement(
    "verifier_accounts", f"SELECT session_id, erased, spent_nano_usd FROM llm.sessions WHERE {_THESE}"
)
CALLS: Final = Statement(
    "verifier_calls",
    f"""
    SELECT session_id, turn_id, purpose, state, fence, attempt, repeats, context IS NOT NULL AS has_context,
        result IS NOT NULL AS has_result, prompt_hash IS NOT NULL AS has_prompt_hash, prompt_tokens,
        completion_tokens, cost_nano_usd
    FROM llm.calls WHERE {_THESE}
    """,
)
ATTEMPTS: Final = Statement(
    "verifier_attempts",
    f"""
    SELECT session_id, turn_id, purpose, fence, attempt, state, error IS NOT NULL AS failed, dispatched_at, finished_at,
        prompt_tokens, completion_tokens, cost_nano_usd
    FROM llm.attempts WHERE {_THESE}
    """,
)
