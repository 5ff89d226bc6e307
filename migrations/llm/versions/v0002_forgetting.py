"""What lets the ledger forget: the calls that still hold a result or a context, by age; and no hash after an erase."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # By the dispatch and not by the end, so that recording an end changes no column of any index (HOT).
    op.execute("CREATE INDEX calls_holding ON llm.calls (dispatched_at) WHERE context IS NOT NULL")
    op.execute("ALTER TABLE llm.calls ALTER COLUMN prompt_hash DROP NOT NULL")


def downgrade() -> None:
    op.execute("UPDATE llm.calls SET prompt_hash = sha256('') WHERE prompt_hash IS NULL")
    op.execute("ALTER TABLE llm.calls ALTER COLUMN prompt_hash SET NOT NULL")
    op.execute("DROP INDEX llm.calls_holding")
