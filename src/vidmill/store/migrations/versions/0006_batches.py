"""Batches and their rows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from vidmill.store.migrations import run_sql_file

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB, 'postgresql')
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def partial(name: str, table: str, column: str, where: str, *, unique: bool = False) -> None:
    op.create_index(
        name, table, [column], unique=unique,
        sqlite_where=sa.text(where), postgresql_where=sa.text(where),
    )


def upgrade() -> None:
    op.create_table('batches',
    sa.Column('id', BIG_ID, nullable=False),
    sa.Column('public_id', sa.Text(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('user_id', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=True),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('is_moving', sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column('source', JSON, nullable=False),
    sa.Column('webhook_url', sa.Text(), nullable=True),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.Column('expires_at', sa.Double(), nullable=True),
    sa.Column('confirmed_at', sa.Double(), nullable=True),
    sa.Column('finished_at', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('public_id'),
    sqlite_autoincrement=True
    )
    op.create_index('batches_list', 'batches', ['tenant_id', 'id'])
    partial('batches_open', 'batches', 'id', "state IN ('processing', 'paused', 'cancelling')")
    partial('batches_unconfirmed', 'batches', 'expires_at', 'expires_at IS NOT NULL')
    op.create_table('batch_rows',
    sa.Column('batch_id', BIG_ID, nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('line', sa.Integer(), nullable=False),
    sa.Column('custom_id', sa.Text(), nullable=True),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('wanted', JSON, nullable=True),
    sa.Column('problems', JSON, nullable=True),
    sa.Column('price_credits', sa.Integer(), server_default='0', nullable=False),
    sa.Column('job_id', sa.BigInteger(), nullable=True),
    sa.Column('task_id', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['batch_id'], ['batches.id'], ),
    sa.PrimaryKeyConstraint('batch_id', 'number'),
    sqlite_with_rowid=False
    )
    op.create_index('batch_rows_tally', 'batch_rows', ['batch_id', 'state', 'price_credits'])
    partial('batch_rows_job', 'batch_rows', 'job_id', 'job_id IS NOT NULL', unique=True)
    on_table = {'sqlite': '', 'postgresql': ' ON jobs'}[op.get_context().dialect.name]
    op.execute('DROP TRIGGER jobs_moves' + on_table)  # made anew, with one move more
    run_sql_file('0006_triggers.sql')
