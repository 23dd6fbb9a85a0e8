"""The ends of jobs by time, for replays of webhooks."""

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text('finished_at IS NOT NULL')
    op.create_index(
        'jobs_ended', 'jobs', ['tenant_id', 'state', 'finished_at'],
        sqlite_where=where, postgresql_where=where,
    )
