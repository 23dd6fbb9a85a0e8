"""Tasks that are erased as soon as their run has ended."""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        'jobs', sa.Column('is_erasing', sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    where = sa.text('is_erasing')
    op.create_index(
        'jobs_erasing', 'jobs', ['id'], sqlite_where=where, postgresql_where=where
    )
