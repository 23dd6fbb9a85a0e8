"""Webhook endpoints and their deliveries. Triggers on `jobs` and `tenants` add rows here.

A tenant has an endpoint `default` from its first moment, without a URL: what tasks and batches name
as their own `webhook_url` is signed with its key. A delivery is due at `due_at`; whoever takes it
moves that ahead, so that it comes again if he dies, and counts `attempts`, which is his fence.
"""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
    true,
)

from vidmill.store.models import BigId, Json, instant, metadata, where

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("public_id", Text, nullable=False),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("url", Text),
    Column("description", Text, nullable=False, server_default=text("''")),
    Column("events", Json, nullable=False),
    Column("secret", Text, nullable=False),  # 32 bytes in hex; `whsec_` is only how it is shown
    Column("old_secret", Text),
    instant("old_secret_until"),
    Column("is_enabled", Boolean, nullable=False, server_default=true()),
    Column("disabled_reason", Text),
    instant("failing_since"),
    instant("rest_until"),
    instant("created_at", nullable=False),
    instant("updated_at", nullable=False),
    UniqueConstraint("tenant_id", "public_id"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    # No foreign key: an endpoint deleted meanwhile must not fail the end of a job.
    Column("endpoint_id", Integer, nullable=False),
    Column("tenant_id", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),  # a public id: news outlive what they are about
    Column("url", Text),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("round_start", Integer, nullable=False, server_default="0"),
    instant("due_at", nullable=False),
    instant("created_at", nullable=False),
    instant("ended_at"),
    Column("log", Json, nullable=False, server_default=text("'[]'")),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="webhook_deliveries_states"),
    sqlite_autoincrement=True,
)

Index(
    "webhook_deliveries_due",
    webhook_deliveries.c.endpoint_id,
    webhook_deliveries.c.due_at,
    **where("state = 'pending'"),
)
Index("webhook_deliveries_next", webhook_deliveries.c.due_at, **where("state = 'pending'"))
Index("webhook_deliveries_list", webhook_deliveries.c.endpoint_id, webhook_deliveries.c.id)
Index("webhook_deliveries_age", webhook_deliveries.c.created_at)
Index("webhook_deliveries_about", webhook_deliveries.c.subject)
