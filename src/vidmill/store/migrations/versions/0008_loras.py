"""LoRA pairs, and which one each task is drawn with."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB, 'postgresql')
LIVE = "lora IS NOT NULL AND state IN ('queued', 'delayed', 'following', 'running', 'review')"


def partial(name: str, table: str, columns: list[str], where: str, *, unique: bool) -> None:
    op.create_index(
        name, table, columns, unique=unique,
        sqlite_where=sa.text(where), postgresql_where=sa.text(where),
    )


def upgrade() -> None:
    op.create_table('loras',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('tenant_id', sa.Integer(), nullable=True),
    sa.Column('high_sha256', sa.Text(), nullable=False),
    sa.Column('high_bytes', sa.BigInteger(), nullable=False),
    sa.Column('low_sha256', sa.Text(), nullable=False),
    sa.Column('low_bytes', sa.BigInteger(), nullable=False),
    sa.Column('licence', sa.Text(), nullable=False),
    sa.Column('trigger_words', JSON, nullable=False),
    sa.Column('strength', sa.Double(), nullable=False),
    sa.Column('rank', sa.Integer(), nullable=False),
    sa.Column('targets', sa.Integer(), nullable=False),
    sa.Column('architecture', sa.Text(), nullable=False),
    sa.Column('is_enabled', sa.Boolean(), server_default=sa.true(), nullable=False),
    sa.Column('created_at', sa.Double(), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenants.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    partial('loras_own', 'loras', ['tenant_id', 'name'], 'tenant_id IS NOT NULL', unique=True)
    partial('loras_shared', 'loras', ['name'], 'tenant_id IS NULL', unique=True)
    op.add_column('jobs', sa.Column('lora', sa.Text()))
    partial('jobs_lora', 'jobs', ['lora'], LIVE, unique=False)
    op.add_column(
        'user_flows', sa.Column('passed', sa.Integer(), server_default='0', nullable=False)
    )
