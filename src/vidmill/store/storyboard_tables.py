"""The tables of storyboards; see `models`. A trigger on `jobs` writes how a shot's task ended."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from vidmill.store.models import BigId, instant, metadata, where

_NULLABLE_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

storyboards = Table(
    "storyboards",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("user_id", Integer, nullable=False),
    Column("name", Text),
    Column("state", Text, nullable=False),
    Column("resolution", Text, nullable=False),
    Column("aspect_ratio", Text, nullable=False),
    Column("fps", Integer, nullable=False),
    Column("priority", Text, nullable=False),
    Column("webhook_url", Text),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("progress", Double, nullable=False, server_default="0"),
    instant("lease_until"),
    Column("result", _NULLABLE_JSON),
    Column("error_code", Text),
    Column("error_message", Text),
    instant("created_at", nullable=False),
    instant("finished_at"),
    sqlite_autoincrement=True,
)

Index("storyboards_list", storyboards.c.tenant_id, storyboards.c.id)
_OPEN = "state IN ('rendering', 'joining', 'cancelling')"
Index("storyboards_open", storyboards.c.id, **where(_OPEN))
IS_OPEN = text(f"storyboards.{_OPEN}")
"""As the index says it, word for word: SQLite uses a partial index for nothing else."""

storyboard_shots = Table(
    "storyboard_shots",
    metadata,
    Column("storyboard_id", BigId, ForeignKey("storyboards.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("crossfade_s", Double, nullable=False),
    Column("price_credits", Integer, nullable=False),
    Column("job_id", BigInteger, nullable=False),  # no foreign key: its task may be erased first
    Column("task_id", Text, nullable=False),
    sqlite_with_rowid=False,
)

Index("storyboard_shots_job", storyboard_shots.c.job_id, unique=True)
