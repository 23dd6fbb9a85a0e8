"""The tables of plans, tenants, users and keys. Limits that are NULL are no limits."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from vidmill.store.models import Json, instant, metadata

plans = Table(
    "plans",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("lane", SmallInteger, nullable=False),
    Column("pools", Json, nullable=False),
    Column("weight", Double, nullable=False),
    Column("cap_running", Integer, nullable=False),
    Column("cap_queued", Integer, nullable=False),
    Column("cached_price_percent", Integer, nullable=False, server_default="0"),
    instant("created_at", nullable=False),
    Column("key_submits_per_min", Integer),
    Column("key_reads_per_min", Integer),
    Column("tenant_submits_per_min", Integer),
    Column("tenant_reads_per_min", Integer),
    Column("clips_per_day", Integer),
    CheckConstraint("weight > 0", name="plans_weight_positive"),
    CheckConstraint("cached_price_percent BETWEEN 0 AND 100", name="plans_cached_price_share"),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("plan_id", Integer),  # SQLite adds no foreign key to a table that is there
    Column("weight", Double, nullable=False),
    Column("cap_running", Integer, nullable=False),
    Column("cap_queued", Integer, nullable=False),
    Column("queued", Integer, nullable=False, server_default="0"),
    Column("running", Integer, nullable=False, server_default="0"),
    instant("created_at", nullable=False),
    Column("clips_per_day", Integer),  # its plan's, as the caps are
    CheckConstraint("weight > 0", name="tenants_weight_positive"),
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("weight", Double, nullable=False, server_default="1"),
    instant("created_at", nullable=False),
    UniqueConstraint("tenant_id", "name"),
    CheckConstraint("weight > 0", name="users_weight_positive"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("key_hash", Text, nullable=False, unique=True),
    instant("created_at", nullable=False),
    Column("user_id", Integer),
    Column("scopes", Json, nullable=False, server_default='["read", "submit", "admin"]'),
    instant("expires_at"),
    instant("last_used_at"),
    Column("hint", Text, nullable=False, server_default=""),
)
