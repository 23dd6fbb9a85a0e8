"""The tables of batches; see `models`. A trigger on `jobs` writes how a row's task ended."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    false,
)
from sqlalchemy.dialects.postgresql import JSONB

from vidmill.store.models import BigId, Json, instant, metadata, where

_NULLABLE_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

batches = Table(
    "batches",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("user_id", Integer, nullable=False),
    Column("name", Text),
    Column("state", Text, nullable=False),
    Column("is_moving", Boolean, nullable=False, server_default=false()),
    Column("source", Json, nullable=False),
    Column("webhook_url", Text),
    instant("created_at", nullable=False),
    instant("expires_at"),
    instant("confirmed_at"),
    instant("finished_at"),
    sqlite_autoincrement=True,
)

Index("batches_list", batches.c.tenant_id, batches.c.id)
Index("batches_open", batches.c.id, **where("state IN ('processing', 'paused', 'cancelling')"))
Index("batches_unconfirmed", batches.c.expires_at, **where("expires_at IS NOT NULL"))

batch_rows = Table(
    "batch_rows",
    metadata,
    Column("batch_id", BigId, ForeignKey("batches.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("line", Integer, nullable=False),
    Column("custom_id", Text),
    Column("state", Text, nullable=False),
    Column("wanted", _NULLABLE_JSON),  # until it is queued; then the job has it, until it is erased
    Column("problems", _NULLABLE_JSON),
    Column("price_credits", Integer, nullable=False, server_default="0"),
    Column("job_id", BigInteger),  # no foreign key: a task may be erased before its batch
    Column("task_id", Text),
    sqlite_with_rowid=False,
)

Index("batch_rows_tally", batch_rows.c.batch_id, batch_rows.c.state, batch_rows.c.price_credits)
Index("batch_rows_job", batch_rows.c.job_id, unique=True, **where("job_id IS NOT NULL"))
