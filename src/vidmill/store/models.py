"""The tables, as SQLAlchemy Core sees them. `migrations` makes them; a test holds the two equal.

Instants are Unix seconds. `queued`, `queued_cost_s` and `head_at` of `flows` and `user_flows`,
`tenants.queued`, `tenants.running` and every line of `ledger` are written by triggers on `jobs` and
by nothing else: counters kept by application code drifted within minutes when measured.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

BigId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers only an INTEGER PRIMARY KEY by itself."""


Json = JSON().with_variant(JSONB, "postgresql")


_NULLABLE_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def where(condition: str) -> dict[str, Any]:
    """Return what makes an index partial on both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def instant(name: str, *, nullable: bool = True) -> Column[float]:
    """Return a column of Unix seconds."""
    return Column(name, Double, nullable=nullable)


jobs = Table(
    "jobs",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("pool", Text, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column("spec", Json, nullable=False),
    Column("request", Json, nullable=False),
    Column("est_cost_s", Double, nullable=False),
    instant("submitted_at", nullable=False),
    Column("phase", Text, nullable=False, server_default="waiting"),
    Column("progress", Double, nullable=False, server_default="0"),
    instant("not_before"),
    Column("worker", Text),
    instant("lease_until"),
    instant("started_at"),
    instant("finished_at"),
    Column("is_cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("result", _NULLABLE_JSON),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("client_reference", Text),
    Column("parent", Text),  # a public id, no foreign key: lineage outlives the parent
    Column("search_text", Text, nullable=False),
    Column("user_id", Integer, nullable=False, server_default="0"),
    Column("rank", BigInteger, nullable=False, server_default="0"),
    Column("price_credits", Integer, nullable=False, server_default="0"),
    Column("cache_key", Text),
    Column("leader_id", BigInteger),
    Column("files_of", Text),  # a public id
    Column("is_erasing", Boolean, nullable=False, server_default=false()),
    Column("lora", Text),  # `LoraUse.key` of its spec, where it has one
    CheckConstraint(
        "state <> 'running' OR (worker IS NOT NULL AND lease_until IS NOT NULL)",
        name="jobs_running_has_lease",
    ),
    CheckConstraint("est_cost_s > 0", name="jobs_cost_positive"),
    CheckConstraint(
        "state <> 'delayed' OR not_before IS NOT NULL", name="jobs_delayed_has_instant"
    ),
    sqlite_autoincrement=True,
)

Index(
    "jobs_head",
    jobs.c.pool,
    jobs.c.lane,
    jobs.c.tenant_id,
    jobs.c.user_id,
    jobs.c.rank,
    jobs.c.id,
    **where("state = 'queued'"),
)
Index(
    "jobs_leader",
    jobs.c.tenant_id,
    jobs.c.cache_key,
    unique=True,
    **where(
        "cache_key IS NOT NULL AND state IN ('queued', 'delayed', 'running', 'review')",
    ),
)
Index(
    "jobs_cached",
    jobs.c.tenant_id,
    jobs.c.cache_key,
    jobs.c.id,
    **where("cache_key IS NOT NULL AND state = 'succeeded' AND files_of IS NULL"),
)
Index("jobs_followers", jobs.c.leader_id, **where("state = 'following'"))
Index("jobs_files_of", jobs.c.files_of, **where("files_of IS NOT NULL"))
Index(
    "jobs_due",
    jobs.c.not_before,
    **where("state = 'delayed'"),
)  # Not on lease_until: renewing 300 leases would move 300 entries; sweeping 300 rows is nothing.
Index(
    "jobs_running",
    jobs.c.worker,
    **where("state = 'running'"),
)
Index("jobs_list", jobs.c.tenant_id, jobs.c.id)
Index("jobs_list_state", jobs.c.tenant_id, jobs.c.state, jobs.c.id)
Index(
    "jobs_list_reference",
    jobs.c.tenant_id,
    jobs.c.client_reference,
    jobs.c.id,
    **where("client_reference IS NOT NULL"),
)
Index(
    "jobs_ended",
    jobs.c.tenant_id,
    jobs.c.state,
    jobs.c.finished_at,
    **where("finished_at IS NOT NULL"),
)

COUNTS_FOR_THE_DAY = (
    "files_of IS NULL AND state <> 'failed' AND (state <> 'cancelled' OR attempt > 0)"
)
"""Which jobs use up a daily quota: none that failed, never ran, or was answered by files there."""

Index("jobs_day", jobs.c.tenant_id, jobs.c.submitted_at, **where(COUNTS_FOR_THE_DAY))

erased_clips = Table(
    "erased_clips",
    metadata,
    Column("tenant_id", Integer, ForeignKey("tenants.id"), primary_key=True),
    Column("day", Integer, primary_key=True),  # of submission, since 1970-01-01 UTC
    Column("clips", Integer, nullable=False),
    sqlite_with_rowid=False,
)  # written by a trigger: a deleted job goes on counting for its day

Index(
    "jobs_lora",
    jobs.c.lora,
    **where(
        "lora IS NOT NULL AND state IN ('queued', 'delayed', 'following', 'running', 'review')"
    ),
)
Index("jobs_erasing", jobs.c.id, **where("is_erasing"))

SEARCH_TEXT = jobs.c.search_text
"""Case-folded prompt and client reference."""

IS_SHOWN = jobs.c.is_erasing.is_(False)
"""What its owner has deleted is found by nobody, though its run may still be stopping."""

NO_PART_OF_A_JOB = ("search_text", "is_erasing", "lora")

JOB_COLUMNS = tuple(column for column in jobs.columns if column.name not in NO_PART_OF_A_JOB)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", Integer, ForeignKey("tenants.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("public_id", Text, nullable=False),
    instant("created_at", nullable=False),
    sqlite_with_rowid=False,
)

Index("idempotency_keys_age", idempotency_keys.c.created_at)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", BigId, ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker", Text, nullable=False),
    instant("started_at", nullable=False),
    instant("ended_at"),
    Column("outcome", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("seconds", Double),
    sqlite_with_rowid=False,
)

flows = Table(
    "flows",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("lane", SmallInteger, primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), primary_key=True),
    Column("queued", Integer, nullable=False, server_default="0"),
    Column("queued_cost_s", Double, nullable=False, server_default="0"),
    Column("vtime", Double, nullable=False, server_default="0"),
    instant("head_at"),
    Column("user_v", Double, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

Index(
    "flows_pick",
    flows.c.pool,
    flows.c.lane,
    flows.c.vtime,
    flows.c.tenant_id,
    **where("queued > 0"),
)

Index(
    "flows_oldest",
    flows.c.pool,
    flows.c.lane,
    flows.c.head_at,
    **where("queued > 0"),
)

user_flows = Table(
    "user_flows",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("lane", SmallInteger, primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), primary_key=True),
    Column("user_id", Integer, primary_key=True),
    Column("queued", Integer, nullable=False, server_default="0"),
    Column("queued_cost_s", Double, nullable=False, server_default="0"),
    Column("vtime", Double, nullable=False, server_default="0"),
    instant("head_at"),
    Column("passed", Integer, nullable=False, server_default="0"),  # see `store.claim`
    sqlite_with_rowid=False,
)

Index(
    "user_flows_pick",
    user_flows.c.pool,
    user_flows.c.lane,
    user_flows.c.tenant_id,
    user_flows.c.vtime,
    user_flows.c.user_id,
    **where("queued > 0"),
)

Index(
    "user_flows_oldest",
    user_flows.c.pool,
    user_flows.c.lane,
    user_flows.c.tenant_id,
    user_flows.c.head_at,
    **where("queued > 0"),
)  # a tenant of a thousand users: which of their next jobs is the oldest

vclock = Table(
    "vclock",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("lane", SmallInteger, primary_key=True),
    Column("v", Double, nullable=False, server_default="0"),
    Column("lane_v", Double, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

cost_stats = Table(
    "cost_stats",
    metadata,
    Column("profile", Text, primary_key=True),
    Column("width_px", Integer, primary_key=True),
    Column("height_px", Integer, primary_key=True),
    Column("num_frames", Integer, primary_key=True),
    Column("steps", Integer, primary_key=True),
    Column("mean_s", Double, nullable=False),
    Column("samples", Integer, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("profile", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    instant("started_at", nullable=False),
    instant("lease_until", nullable=False),
    Column("worker_class", Text, nullable=False, server_default=""),
    Column("pools", Json, nullable=False, server_default="[]"),
)

pool_routes = Table(
    "pool_routes",
    metadata,
    Column("worker_class", Text, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("min_wait_s", Double, nullable=False, server_default="0"),
)

breakers = Table(
    "breakers",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("profile", Text, primary_key=True),
    Column("state", Text, nullable=False, server_default="closed"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("failed_jobs", Json, nullable=False, server_default="[]"),
    Column("reason", Text, nullable=False, server_default=""),
    instant("opened_at"),
    instant("retry_at"),
    Column("rest_s", Double, nullable=False, server_default="0"),
    Column("probe_job_id", BigInteger),
)

ledger = Table(
    "ledger",
    metadata,
    Column("job_id", BigInteger, primary_key=True),  # no foreign key: billing outlives erasure
    Column("entry", Text, primary_key=True),
    Column("public_id", Text, nullable=False),
    Column("tenant_id", Integer, nullable=False),
    Column("user_id", Integer, nullable=False),
    Column("credits", Integer, nullable=False),
    instant("at", nullable=False),
    CheckConstraint("entry IN ('hold', 'capture', 'release')", name="ledger_entries"),
    sqlite_with_rowid=False,
)

Index(
    "ledger_closing",
    ledger.c.job_id,
    unique=True,
    **where("entry IN ('capture', 'release')"),
)
Index("ledger_tenant", ledger.c.tenant_id, ledger.c.at)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    instant("lease_until", nullable=False),
)
