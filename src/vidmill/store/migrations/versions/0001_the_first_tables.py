"""The first tables, and the triggers that keep their counters."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from vidmill.store.migrations import run_sql_file

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('cost_stats',
    sa.Column('profile', sa.Text(), nullable=False),
    sa.Column('width_px', sa.Integer(), nullable=False),
    sa.Column('height_px', sa.Integer(), nullable=False),
    sa.Column('num_frames', sa.Integer(), nullable=False),
    sa.Column('steps', sa.Integer(), nullable=False),
    sa.Column('mean_s', sa.Double(), nullable=False),
    sa.Column('samples', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('profile', 'width_px', 'height_px', 'num_frames', 'steps')
    )
    op.create_table('leases',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('holder', sa.Text(), nullable=False),
    sa.Column('lease_until', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('name')
    )
    op.create_table('tenants',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('weight', sa.Double(), nullable=False),
    sa.Column('cap_running', sa.Integer(), nullable=False),
    sa.Column('cap_queued', sa.Integer(), nullable=False),
    sa.Column('queued', sa.Integer(), server_default='0', nullable=False),
    sa.Column('running', sa.Integer(), server_default='0', nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.CheckConstraint('weight > 0', name='tenants_weight_positive'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('name')
    )
    op.create_table('vclock',
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('lane', sa.SmallInteger(), nullable=False),
    sa.Column('v', sa.Double(), server_default='0', nullable=False),
    sa.Column('lane_v', sa.Double(), server_default='0', nullable=False),
    sa.PrimaryKeyConstraint('pool', 'lane'),
    sqlite_with_rowid=False
    )
    op.create_table('workers',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('host', sa.Text(), nullable=False),
    sa.Column('pid', sa.Integer(), nullable=False),
    sa.Column('profile', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('detail', sa.Text(), server_default='', nullable=False),
    sa.Column('started_at', sa.Double(), nullable=False),
    sa.Column('lease_until', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_table('api_keys',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('key_hash', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('key_hash')
    )
    op.create_table('flows',
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('lane', sa.SmallInteger(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('queued', sa.Integer(), server_default='0', nullable=False),
    sa.Column('queued_cost_s', sa.Double(), server_default='0', nullable=False),
    sa.Column('vtime', sa.Double(), server_default='0', nullable=False),
    sa.Column('head_at', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('pool', 'lane', 'tenant_id'),
    sqlite_with_rowid=False
    )
    op.create_index('flows_pick', 'flows', ['pool', 'lane', 'vtime', 'tenant_id'], unique=False, sqlite_where=sa.text('queued > 0'), postgresql_where=sa.text('queued > 0'))
    op.create_table('jobs',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('public_id', sa.Text(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('lane', sa.SmallInteger(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('attempt', sa.Integer(), server_default='0', nullable=False),
    sa.Column('max_attempts', sa.Integer(), nullable=False),
    sa.Column('spec', sa.JSON().with_variant(JSONB, 'postgresql'), nullable=False),
    sa.Column('request', sa.JSON().with_variant(JSONB, 'postgresql'), nullable=False),
    sa.Column('est_cost_s', sa.Double(), nullable=False),
    sa.Column('submitted_at', sa.Double(), nullable=False),
    sa.Column('phase', sa.Text(), server_default='waiting', nullable=False),
    sa.Column('progress', sa.Double(), server_default='0', nullable=False),
    sa.Column('not_before', sa.Double(), nullable=True),
    sa.Column('worker', sa.Text(), nullable=True),
    sa.Column('lease_until', sa.Double(), nullable=True),
    sa.Column('started_at', sa.Double(), nullable=True),
    sa.Column('finished_at', sa.Double(), nullable=True),
    sa.Column('is_cancel_requested', sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column('result', sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), 'postgresql'), nullable=True),
    sa.Column('error_code', sa.Text(), nullable=True),
    sa.Column('error_message', sa.Text(), nullable=True),
    sa.Column('client_reference', sa.Text(), nullable=True),
    sa.Column('parent', sa.Text(), nullable=True),
    sa.Column('search_text', sa.Text(), nullable=False),
    sa.CheckConstraint('est_cost_s > 0', name='jobs_cost_positive'),
    sa.CheckConstraint("state <> 'delayed' OR not_before IS NOT NULL", name='jobs_delayed_has_instant'),
    sa.CheckConstraint("state <> 'running' OR (worker IS NOT NULL AND lease_until IS NOT NULL)", name='jobs_running_has_lease'),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('public_id'),
    sqlite_autoincrement=True
    )
    op.create_index('jobs_due', 'jobs', ['not_before'], unique=False, sqlite_where=sa.text("state = 'delayed'"), postgresql_where=sa.text("state = 'delayed'"))
    op.create_index('jobs_head', 'jobs', ['pool', 'lane', 'tenant_id', 'id'], unique=False, sqlite_where=sa.text("state = 'queued'"), postgresql_where=sa.text("state = 'queued'"))
    op.create_index('jobs_list', 'jobs', ['tenant_id', 'id'], unique=False)
    op.create_index('jobs_list_reference', 'jobs', ['tenant_id', 'client_reference', 'id'], unique=False, sqlite_where=sa.text('client_reference IS NOT NULL'), postgresql_where=sa.text('client_reference IS NOT NULL'))
    op.create_index('jobs_list_state', 'jobs', ['tenant_id', 'state', 'id'], unique=False)
    op.create_index('jobs_running', 'jobs', ['worker'], unique=False, sqlite_where=sa.text("state = 'running'"), postgresql_where=sa.text("state = 'running'"))
    op.create_table('idempotency_keys',
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('fingerprint', sa.Text(), nullable=False),
    sa.Column('public_id', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('tenant_id', 'key'),
    sqlite_with_rowid=False
    )
    op.create_index('idempotency_keys_age', 'idempotency_keys', ['created_at'], unique=False)
    op.create_table('attempts',
    sa.Column('job_id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('worker', sa.Text(), nullable=False),
    sa.Column('started_at', sa.Double(), nullable=False),
    sa.Column('ended_at', sa.Double(), nullable=True),
    sa.Column('outcome', sa.Text(), nullable=True),
    sa.Column('error_code', sa.Text(), nullable=True),
    sa.Column('error_message', sa.Text(), nullable=True),
    sa.Column('seconds', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], ),
    sa.PrimaryKeyConstraint('job_id', 'attempt'),
    sqlite_with_rowid=False
    )
    run_sql_file('0001_triggers.sql')
