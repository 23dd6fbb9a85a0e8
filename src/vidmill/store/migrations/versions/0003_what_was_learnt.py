"""Measured durations by shape and pool, and how predictions made of them erred."""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('durations',
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('profile', sa.Text(), nullable=False),
    sa.Column('width_px', sa.Integer(), nullable=False),
    sa.Column('height_px', sa.Integer(), nullable=False),
    sa.Column('num_frames', sa.Integer(), nullable=False),
    sa.Column('steps', sa.Integer(), nullable=False),
    sa.Column('slot', sa.Integer(), nullable=False),
    sa.Column('at', sa.Double(), nullable=False),
    sa.Column('render_s', sa.Double(), nullable=False),
    sa.Column('total_s', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('pool', 'profile', 'width_px', 'height_px', 'num_frames', 'steps', 'slot'),
    )
    op.create_table('predictions',
    sa.Column('job_id', sa.BigInteger(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('lane', sa.SmallInteger(), nullable=False),
    sa.Column('band', sa.SmallInteger(), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('made_at', sa.Double(), nullable=False),
    sa.Column('centre_s', sa.Double(), nullable=False),
    sa.Column('grain_s', sa.Double(), nullable=False),
    sa.Column('late_s', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('job_id', 'kind'),
    sqlite_with_rowid=False,
    )
    op.create_table('eta_errors',
    sa.Column('pool', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('lane', sa.SmallInteger(), nullable=False),
    sa.Column('band', sa.SmallInteger(), nullable=False),
    sa.Column('slot', sa.Integer(), nullable=False),
    sa.Column('at', sa.Double(), nullable=False),
    sa.Column('error', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('pool', 'kind', 'lane', 'band', 'slot'),
    )
    # What the release before had learnt, of every pool that ever had work.
    op.execute(
        'INSERT INTO durations (pool, profile, width_px, height_px, num_frames, steps, slot, at,'
        ' render_s, total_s)'
        ' SELECT p.pool, c.profile, c.width_px, c.height_px, c.num_frames, c.steps, 0, 0,'
        ' c.mean_s, c.mean_s'
        ' FROM cost_stats c CROSS JOIN (SELECT DISTINCT pool FROM flows) p'
    )
