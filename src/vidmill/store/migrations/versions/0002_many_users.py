"""Plans, users, routes, ledger, breakers, twins: what many tenants on many machines need."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from vidmill.store.migrations import run_sql_file

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB, 'postgresql')
OLD_TRIGGERS = (
    'jobs_identity', 'jobs_terminal', 'jobs_born', 'jobs_queued_insert', 'jobs_enter_queue',
    'jobs_leave_queue', 'jobs_count_tenant', 'jobs_kept',
)
QUEUED = "state = 'queued'"
LIVE = "cache_key IS NOT NULL AND state IN ('queued', 'delayed', 'running', 'review')"
CACHED = "cache_key IS NOT NULL AND state = 'succeeded' AND files_of IS NULL"


def partial(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(
        name, table, columns, unique=unique,
        sqlite_where=sa.text(where), postgresql_where=sa.text(where),
    )


def upgrade() -> None:
    if op.get_context().dialect.name == 'sqlite':  # PostgreSQL gets its first triggers below
        for name in OLD_TRIGGERS:
            op.execute(f'DROP TRIGGER {name}')
    accounts()
    job_columns()
    queue_tables()
    money()
    carry_over()
    run_sql_file('0002_triggers.sql')


def accounts() -> None:
    op.create_table('plans',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('lane', sa.SmallInteger(), nullable=False),
    sa.Column('pools', JSON, nullable=False),
    sa.Column('weight', sa.Double(), nullable=False),
    sa.Column('cap_running', sa.Integer(), nullable=False),
    sa.Column('cap_queued', sa.Integer(), nullable=False),
    sa.Column('cached_price_percent', sa.Integer(), server_default='0', nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.CheckConstraint('weight > 0', name='plans_weight_positive'),
    sa.CheckConstraint('cached_price_percent BETWEEN 0 AND 100', name='plans_cached_price_share'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('name')
    )
    op.create_table('users',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('weight', sa.Double(), server_default='1', nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.CheckConstraint('weight > 0', name='users_weight_positive'),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('tenant_id', 'name')
    )
    op.add_column('tenants', sa.Column('plan_id', sa.Integer()))
    op.add_column('api_keys', sa.Column('user_id', sa.Integer()))


def job_columns() -> None:
    op.add_column('jobs', sa.Column('user_id', sa.Integer(), server_default='0', nullable=False))
    op.add_column('jobs', sa.Column('rank', sa.BigInteger(), server_default='0', nullable=False))
    op.add_column(
        'jobs', sa.Column('price_credits', sa.Integer(), server_default='0', nullable=False)
    )
    op.add_column('jobs', sa.Column('cache_key', sa.Text()))
    op.add_column('jobs', sa.Column('leader_id', sa.BigInteger()))
    op.add_column('jobs', sa.Column('files_of', sa.Text()))
    op.drop_index('jobs_head', table_name='jobs')
    partial('jobs_head', 'jobs', ['pool', 'lane', 'tenant_id', 'user_id', 'rank', 'id'], QUEUED)
    partial('jobs_leader', 'jobs', ['tenant_id', 'cache_key'], LIVE, unique=True)
    partial('jobs_cached', 'jobs', ['tenant_id', 'cache_key', 'id'], CACHED)
    partial('jobs_followers', 'jobs', ['leader_id'], "state = 'following'")
    partial('jobs_files_of', 'jobs', ['files_of'], 'files_of IS NOT NULL')


def queue_tables() -> None:
    op.add_column('flows', sa.Column('user_v', sa.Double(), server_default='0', nullable=False))
    partial('flows_oldest', 'flows', ['pool', 'lane', 'head_at'], 'queued > 0')
    op.create_table('user_flows',
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('lane', sa.SmallInteger(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('user_id', sa.Integer(), nullable=False),
    sa.Column('queued', sa.Integer(), server_default='0', nullable=False),
    sa.Column('queued_cost_s', sa.Double(), server_default='0', nullable=False),
    sa.Column('vtime', sa.Double(), server_default='0', nullable=False),
    sa.Column('head_at', sa.Double()),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('pool', 'lane', 'tenant_id', 'user_id'),
    sqlite_with_rowid=False
    )
    partial(
        'user_flows_pick', 'user_flows', ['pool', 'lane', 'tenant_id', 'vtime', 'user_id'],
        'queued > 0',
    )
    partial(
        'user_flows_oldest', 'user_flows', ['pool', 'lane', 'tenant_id', 'head_at'], 'queued > 0',
    )
    op.add_column('workers', sa.Column('worker_class', sa.Text(), server_default='', nullable=False))
    op.add_column('workers', sa.Column('pools', JSON, server_default='[]', nullable=False))
    op.create_table('pool_routes',
    sa.Column('worker_class', sa.Text(), nullable=False),
    sa.Column('rank', sa.Integer(), nullable=False),
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('min_wait_s', sa.Double(), server_default='0', nullable=False),
    sa.PrimaryKeyConstraint('worker_class', 'rank')
    )
    op.create_table('breakers',
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('profile', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), server_default='closed', nullable=False),
    sa.Column('failures', sa.Integer(), server_default='0', nullable=False),
    sa.Column('failed_jobs', JSON, server_default='[]', nullable=False),
    sa.Column('reason', sa.Text(), server_default='', nullable=False),
    sa.Column('opened_at', sa.Double()),
    sa.Column('retry_at', sa.Double()),
    sa.Column('rest_s', sa.Double(), server_default='0', nullable=False),
    sa.Column('probe_job_id', sa.BigInteger()),
    sa.PrimaryKeyConstraint('pool', 'profile')
    )


def money() -> None:
    op.create_table('ledger',
    sa.Column('job_id', sa.BigInteger(), nullable=False),
    sa.Column('entry', sa.Text(), nullable=False),
    sa.Column('public_id', sa.Text(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('user_id', sa.Integer(), nullable=False),
    sa.Column('credits', sa.Integer(), nullable=False),
    sa.Column('at', sa.Double(), nullable=False),
    sa.CheckConstraint("entry IN ('hold', 'capture', 'release')", name='ledger_entries'),
    sa.PrimaryKeyConstraint('job_id', 'entry'),
    sqlite_with_rowid=False
    )
    partial('ledger_closing', 'ledger', ['job_id'], "entry IN ('capture', 'release')", unique=True)
    op.create_index('ledger_tenant', 'ledger', ['tenant_id', 'at'])


def carry_over() -> None:
    """Give what was there a plan, a user, and ledger lines of nothing."""
    for statement in (
        "INSERT INTO plans (name, lane, pools, weight, cap_running, cap_queued, created_at)"
        " SELECT 'default', 0, '[]', 1, 10000, 10000, coalesce(min(created_at), 0) FROM tenants",
        "UPDATE tenants SET plan_id = (SELECT id FROM plans WHERE name = 'default')",
        "INSERT INTO users (tenant_id, name, created_at)"
        " SELECT id, 'default', created_at FROM tenants",
        "UPDATE api_keys SET user_id ="
        " (SELECT id FROM users WHERE users.tenant_id = api_keys.tenant_id)",
        "UPDATE jobs SET user_id ="
        " (SELECT id FROM users WHERE users.tenant_id = jobs.tenant_id)",
        "INSERT INTO user_flows (pool, lane, tenant_id, user_id, queued, queued_cost_s, head_at)"
        " SELECT f.pool, f.lane, f.tenant_id, u.id, f.queued, f.queued_cost_s, f.head_at"
        " FROM flows f JOIN users u ON u.tenant_id = f.tenant_id",
        "INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)"
        " SELECT id, 'hold', public_id, tenant_id, user_id, 0, submitted_at FROM jobs",
        "INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)"
        " SELECT id, CASE WHEN state = 'succeeded' THEN 'capture' ELSE 'release' END,"
        "        public_id, tenant_id, user_id, 0, coalesce(finished_at, submitted_at)"
        " FROM jobs WHERE state IN ('succeeded', 'failed', 'cancelled')",
    ):
        op.execute(statement)
