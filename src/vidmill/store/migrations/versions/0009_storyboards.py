"""Storyboards and their shots."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from vidmill.store.migrations import run_sql_file

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB, 'postgresql')
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def upgrade() -> None:
    op.create_table('storyboards',
    sa.Column('id', BIG_ID, nullable=False),
    sa.Column('public_id', sa.Text(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('user_id', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=True),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('resolution', sa.Text(), nullable=False),
    sa.Column('aspect_ratio', sa.Text(), nullable=False),
    sa.Column('fps', sa.Integer(), nullable=False),
    sa.Column('priority', sa.Text(), nullable=False),
    sa.Column('webhook_url', sa.Text(), nullable=True),
    sa.Column('revision', sa.Integer(), server_default='1', nullable=False),
    sa.Column('attempt', sa.Integer(), server_default='0', nullable=False),
    sa.Column('failures', sa.Integer(), server_default='0', nullable=False),
    sa.Column('progress', sa.Double(), server_default='0', nullable=False),
    sa.Column('lease_until', sa.Double(), nullable=True),
    sa.Column('result', JSON, nullable=True),
    sa.Column('error_code', sa.Text(), nullable=True),
    sa.Column('error_message', sa.Text(), nullable=True),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.Column('finished_at', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('public_id'),
    sqlite_autoincrement=True
    )
    op.create_index('storyboards_list', 'storyboards', ['tenant_id', 'id'])
    is_open = sa.text("state IN ('rendering', 'joining', 'cancelling')")
    op.create_index(
        'storyboards_open', 'storyboards', ['id'], sqlite_where=is_open, postgresql_where=is_open
    )
    op.create_table('storyboard_shots',
    sa.Column('storyboard_id', BIG_ID, nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('duration_s', sa.Double(), nullable=False),
    sa.Column('crossfade_s', sa.Double(), nullable=False),
    sa.Column('price_credits', sa.Integer(), nullable=False),
    sa.Column('job_id', sa.BigInteger(), nullable=False),
    sa.Column('task_id', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['storyboard_id'], ['storyboards.id'], ),
    sa.PrimaryKeyConstraint('storyboard_id', 'number'),
    sqlite_with_rowid=False
    )
    op.create_index('storyboard_shots_job', 'storyboard_shots', ['job_id'], unique=True)
    run_sql_file('0009_triggers.sql')
