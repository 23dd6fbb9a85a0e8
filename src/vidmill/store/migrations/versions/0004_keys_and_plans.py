"""What keys may do and until when, and how much a plan allows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from vidmill.store.migrations import run_sql_file

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB, 'postgresql')
LIMITS = (
    'key_submits_per_min', 'key_reads_per_min', 'tenant_submits_per_min', 'tenant_reads_per_min',
    'clips_per_day',
)
COUNTED = "files_of IS NULL AND state <> 'failed' AND (state <> 'cancelled' OR attempt > 0)"


def upgrade() -> None:
    scopes = sa.text("""'["read", "submit", "admin"]'""")
    op.add_column('api_keys', sa.Column('scopes', JSON, server_default=scopes, nullable=False))
    op.add_column('api_keys', sa.Column('expires_at', sa.Double()))
    op.add_column('api_keys', sa.Column('last_used_at', sa.Double()))
    op.add_column('api_keys', sa.Column('hint', sa.Text(), server_default='', nullable=False))
    for name in LIMITS:
        op.add_column('plans', sa.Column(name, sa.Integer()))
    op.add_column('tenants', sa.Column('clips_per_day', sa.Integer()))
    op.create_index(
        'jobs_day', 'jobs', ['tenant_id', 'submitted_at'],
        sqlite_where=sa.text(COUNTED), postgresql_where=sa.text(COUNTED),
    )
    op.create_table('erased_clips',
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('day', sa.Integer(), nullable=False),
    sa.Column('clips', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('tenant_id', 'day'),
    sqlite_with_rowid=False
    )
    run_sql_file('0004_triggers.sql')
