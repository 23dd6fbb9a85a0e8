"""The tables of measured durations and of how predictions made of them erred; see `models`."""

from sqlalchemy import BigInteger, Column, Double, Integer, SmallInteger, Table, Text

from vidmill.store.models import instant, metadata

durations = Table(
    "durations",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("profile", Text, primary_key=True),
    Column("width_px", Integer, primary_key=True),
    Column("height_px", Integer, primary_key=True),
    Column("num_frames", Integer, primary_key=True),
    Column("steps", Integer, primary_key=True),
    Column("slot", Integer, primary_key=True),
    instant("at", nullable=False),
    Column("render_s", Double, nullable=False),
    Column("total_s", Double, nullable=False),
)

predictions = Table(
    "predictions",
    metadata,
    Column("job_id", BigInteger, primary_key=True),  # no foreign key: a job may be erased meanwhile
    Column("kind", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("band", SmallInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    instant("made_at", nullable=False),
    Column("centre_s", Double, nullable=False),
    Column("grain_s", Double, nullable=False),
    Column("late_s", Double, nullable=False),
    sqlite_with_rowid=False,
)

eta_errors = Table(
    "eta_errors",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("lane", SmallInteger, primary_key=True),
    Column("band", SmallInteger, primary_key=True),
    Column("slot", Integer, primary_key=True),
    instant("at", nullable=False),
    Column("error", Double, nullable=False),
)
