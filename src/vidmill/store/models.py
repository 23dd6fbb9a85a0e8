"""The tables, as SQLAlchemy Core sees them. `migrations` makes them; a test holds the two equal.

Instants are Unix seconds. `flows.queued`, `flows.queued_cost_s`, `flows.head_at`, `tenants.queued`
and `tenants.running` are written by triggers on `jobs` and by nothing else: counters kept by
application code drifted within minutes when measured.
"""

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

metadata = MetaData()

BigId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers only an INTEGER PRIMARY KEY by itself."""


def _instant(name: str, *, nullable: bool = True) -> Column[float]:
    return Column(name, Double, nullable=nullable)


tenants = Table(
    "tenants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("weight", Double, nullable=False),
    Column("cap_running", Integer, nullable=False),
    Column("cap_queued", Integer, nullable=False),
    Column("queued", Integer, nullable=False, server_default="0"),
    Column("running", Integer, nullable=False, server_default="0"),
    _instant("created_at", nullable=False),
    CheckConstraint("weight > 0", name="tenants_weight_positive"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("key_hash", Text, nullable=False, unique=True),
    _instant("created_at", nullable=False),
)

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
    Column("spec", JSON, nullable=False),
    Column("request", JSON, nullable=False),
    Column("est_cost_s", Double, nullable=False),
    _instant("submitted_at", nullable=False),
    Column("phase", Text, nullable=False, server_default="waiting"),
    Column("progress", Double, nullable=False, server_default="0"),
    _instant("not_before"),
    Column("worker", Text),
    _instant("lease_until"),
    _instant("started_at"),
    _instant("finished_at"),
    Column("is_cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("result", JSON(none_as_null=True)),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("client_reference", Text),
    Column("parent", Text),  # a public id, no foreign key: lineage outlives the parent
    Column("search_text", Text, nullable=False),
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
    jobs.c.id,
    sqlite_where=text("state = 'queued'"),
    postgresql_where=text("state = 'queued'"),
)
Index(
    "jobs_due",
    jobs.c.not_before,
    sqlite_where=text("state = 'delayed'"),
    postgresql_where=text("state = 'delayed'"),
)  # Not on lease_until: renewing 300 leases would move 300 entries; sweeping 300 rows is nothing.
Index(
    "jobs_running",
    jobs.c.worker,
    sqlite_where=text("state = 'running'"),
    postgresql_where=text("state = 'running'"),
)
Index("jobs_list", jobs.c.tenant_id, jobs.c.id)
Index("jobs_list_state", jobs.c.tenant_id, jobs.c.state, jobs.c.id)
Index(
    "jobs_list_reference",
    jobs.c.tenant_id,
    jobs.c.client_reference,
    jobs.c.id,
    sqlite_where=text("client_reference IS NOT NULL"),
    postgresql_where=text("client_reference IS NOT NULL"),
)

SEARCH_TEXT = jobs.c.search_text
"""Case-folded prompt and client reference; no part of a `Job`."""

JOB_COLUMNS = tuple(column for column in jobs.columns if column is not SEARCH_TEXT)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", Integer, ForeignKey("tenants.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("public_id", Text, nullable=False),
    _instant("created_at", nullable=False),
    sqlite_with_rowid=False,
)

Index("idempotency_keys_age", idempotency_keys.c.created_at)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", BigId, ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker", Text, nullable=False),
    _instant("started_at", nullable=False),
    _instant("ended_at"),
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
    _instant("head_at"),
    sqlite_with_rowid=False,
)

Index(
    "flows_pick",
    flows.c.pool,
    flows.c.lane,
    flows.c.vtime,
    flows.c.tenant_id,
    sqlite_where=text("queued > 0"),
    postgresql_where=text("queued > 0"),
)

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
    _instant("started_at", nullable=False),
    _instant("lease_until", nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    _instant("lease_until", nullable=False),
)
