"""When an answer whose judge failed may be judged again, and the order in which answers wait for their scores."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE assessment.answers ADD COLUMN retry_at timestamptz")
    # An answer waits from the fold of its turn on, or from the end of the pause after a failed call. The expression is
    # that of ListUnscored, to the letter.
    op.execute("DROP INDEX assessment.answers_unscored")
    op.execute("""
        CREATE INDEX answers_unscored ON assessment.answers (greatest(folded_at, retry_at), session_id, turn_id)
        WHERE state = 'PENDING' AND folded_at IS NOT NULL
    """)


def downgrade() -> None:
    op.execute("DROP INDEX assessment.answers_unscored")
    op.execute("""
        CREATE INDEX answers_unscored ON assessment.answers (folded_at, session_id, turn_id)
        WHERE state = 'PENDING' AND folded_at IS NOT NULL
    """)
    op.execute("ALTER TABLE assessment.answers DROP COLUMN retry_at")
