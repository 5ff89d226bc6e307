"""What an interview has asked, what was answered, and what each answer showed."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # An erasure may come before the row that it erases: then the tombstone has nothing but its key.
    # A row is written once for each turn, and no index has a column that is: with room on its page for the next version
    # a fold touches the page and nothing else (HOT).
    op.execute("""
        CREATE TABLE assessment.interviews (
            session_id   uuid        NOT NULL,
            plan         text,
            bank_version text,
            applied_seq  bigint      NOT NULL DEFAULT 0,
            head_digest  bytea,
            asked        text[]      NOT NULL DEFAULT '{}',
            completed    boolean     NOT NULL DEFAULT false,
            erased       boolean     NOT NULL DEFAULT false,
            created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT interviews_pkey PRIMARY KEY (session_id),
            CONSTRAINT interviews_whole_unless_erased CHECK (
                erased OR (plan IS NOT NULL AND bank_version IS NOT NULL AND head_digest IS NOT NULL)
            ),
            CONSTRAINT interviews_applied_seq_counts CHECK (applied_seq >= 0),
            CONSTRAINT interviews_head_digest_length CHECK (octet_length(head_digest) = 32)
        ) WITH (fillfactor = 70)
    """)
    # A row is made by whichever comes first, the score or the fold of its turn; the fold gives it its seq, and only
    # then does its score count.
    op.execute("""
        CREATE TABLE assessment.answers (
            session_id     uuid        NOT NULL,
            turn_id        uuid        NOT NULL,
            seq            bigint,
            folded_at      timestamptz,
            item_id        text        NOT NULL,
            state          text        NOT NULL DEFAULT 'PENDING',
            level          smallint,
            standard_error double precision,
            confidence     double precision,
            misquotes      smallint,
            quotes         text[],
            rationale      text,
            judge_version  text,
            judge_model    text,
            scored_at      timestamptz,
            failed_calls   integer     NOT NULL DEFAULT 0,
            CONSTRAINT answers_pkey PRIMARY KEY (session_id, turn_id),
            CONSTRAINT answers_interview_fkey FOREIGN KEY (session_id) REFERENCES assessment.interviews (session_id),
            CONSTRAINT answers_state_known CHECK (state IN ('PENDING', 'SCORED', 'UNSCORABLE')),
            CONSTRAINT answers_scored_is_whole CHECK (
                num_nonnulls(level, standard_error, scored_at) = CASE state WHEN 'SCORED' THEN 3 ELSE 0 END
            ),
            CONSTRAINT answers_level_counts CHECK (level >= 0),
            CONSTRAINT answers_standard_error_positive CHECK (standard_error > 0),
            CONSTRAINT answers_confidence_is_share CHECK (confidence BETWEEN 0 AND 1),
            CONSTRAINT answers_seq_counts CHECK (seq > 0),
            CONSTRAINT answers_folded_has_seq CHECK ((seq IS NULL) = (folded_at IS NULL)),
            CONSTRAINT answers_failed_calls_count CHECK (failed_calls >= 0)
        )
    """)
    # ListUnscored: an answer waits for its score once its turn is committed, that is, once it has a seq.
    op.execute("""
        CREATE INDEX answers_unscored ON assessment.answers (folded_at, session_id, turn_id)
        WHERE state = 'PENDING' AND folded_at IS NOT NULL
    """)


def downgrade() -> None:
    op.execute("DROP TABLE assessment.answers")
    op.execute("DROP TABLE assessment.interviews")
