"""Webhook endpoints, and what is to be delivered to them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from vidmill.store.migrations import run_sql_file

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB, 'postgresql')
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
ELEMENTS = {'sqlite': 'json_each', 'postgresql': 'jsonb_array_elements_text'}
NEW_SECRET = {'sqlite': 'lower(hex(randomblob(32)))', 'postgresql': 'new_webhook_secret()'}
PENDING = "state = 'pending'"


def upgrade() -> None:
    op.create_table('webhook_endpoints',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('public_id', sa.Text(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('url', sa.Text()),
    sa.Column('description', sa.Text(), server_default=sa.text("''"), nullable=False),
    sa.Column('events', JSON, nullable=False),
    sa.Column('secret', sa.Text(), nullable=False),
    sa.Column('old_secret', sa.Text()),
    sa.Column('old_secret_until', sa.Double()),
    sa.Column('is_enabled', sa.Boolean(), server_default=sa.true(), nullable=False),
    sa.Column('disabled_reason', sa.Text()),
    sa.Column('failing_since', sa.Double()),
    sa.Column('rest_until', sa.Double()),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.Column('updated_at', sa.Double(), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('tenant_id', 'public_id')
    )
    op.create_table('webhook_deliveries',
    sa.Column('id', BIG_ID, nullable=False),
    sa.Column('public_id', sa.Text(), nullable=False),
    sa.Column('endpoint_id', sa.Integer(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('url', sa.Text()),
    sa.Column('state', sa.Text(), server_default='pending', nullable=False),
    sa.Column('attempts', sa.Integer(), server_default='0', nullable=False),
    sa.Column('round_start', sa.Integer(), server_default='0', nullable=False),
    sa.Column('due_at', sa.Double(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.Column('ended_at', sa.Double()),
    sa.Column('log', JSON, server_default=sa.text("'[]'"), nullable=False),
    sa.CheckConstraint("state IN ('pending', 'delivered', 'dead')", name='webhook_deliveries_states'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('public_id'),
    sqlite_autoincrement=True
    )
    index('webhook_deliveries_due', ['endpoint_id', 'due_at'], PENDING)
    index('webhook_deliveries_next', ['due_at'], PENDING)
    index('webhook_deliveries_list', ['endpoint_id', 'id'])
    index('webhook_deliveries_age', ['created_at'])
    index('webhook_deliveries_about', ['subject'])
    op.execute(
        'CREATE VIEW webhook_wants AS SELECT e.id AS endpoint_id, e.tenant_id, w.value AS type'
        f' FROM webhook_endpoints e, {ELEMENTS[dialect()]}(e.events) w'
        ' WHERE e.is_enabled AND e.url IS NOT NULL'
    )
    run_sql_file('0005_triggers.sql')
    op.execute(
        'INSERT INTO webhook_endpoints (public_id, tenant_id, events, secret, created_at, updated_at)'
        f" SELECT 'default', id, '[]', {NEW_SECRET[dialect()]}, created_at, created_at FROM tenants"
    )


def dialect() -> str:
    return op.get_context().dialect.name


def index(name: str, columns: list[str], where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        name, 'webhook_deliveries', columns, sqlite_where=condition, postgresql_where=condition
    )
