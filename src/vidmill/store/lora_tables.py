"""The table of registered LoRA pairs. Their files lie in the blob store, under their hashes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    true,
)

from vidmill.store.models import Json, instant, metadata, where

loras = Table(
    "loras",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tenant_id", Integer, ForeignKey("tenants.id")),  # none = every tenant's
    Column("high_sha256", Text, nullable=False),
    Column("high_bytes", BigInteger, nullable=False),
    Column("low_sha256", Text, nullable=False),
    Column("low_bytes", BigInteger, nullable=False),
    Column("licence", Text, nullable=False),
    Column("trigger_words", Json, nullable=False),
    Column("strength", Double, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("targets", Integer, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("is_enabled", Boolean, nullable=False, server_default=true()),
    instant("created_at", nullable=False),
)

Index("loras_own", loras.c.tenant_id, loras.c.name, unique=True, **where("tenant_id IS NOT NULL"))
Index("loras_shared", loras.c.name, unique=True, **where("tenant_id IS NULL"))
