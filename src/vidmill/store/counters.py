"""Checking the triggers' counters against the rows, and setting right what disagrees."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from vidmill.store.unit import UnitOfWork


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How many counters did not agree with the rows; `flows` are those of users and tenants."""

    flows: int
    tenants: int

    def __bool__(self) -> bool:
        return bool(self.flows or self.tenants)


_FlowKey = tuple[str, int, int, int]  # pool, lane, tenant, user
_FlowCount = tuple[int, float, float | None]

_WHOLE = -1
"""Stands for the user where a flow of a tenant is meant."""

_ALONE: Mapping[str, str] = {
    "sqlite": "",
    "postgresql": "LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE",
}
"""Nobody may move a job between the counting and the writing; SQLite has one writer anyway."""

_COUNT_USER_FLOWS = text("""
    SELECT pool, lane, tenant_id, user_id, count(*) AS queued, sum(est_cost_s) AS cost_s,
           (SELECT h.submitted_at FROM jobs h
             WHERE h.pool = j.pool AND h.lane = j.lane AND h.tenant_id = j.tenant_id
               AND h.user_id = j.user_id AND h.state = 'queued'
             ORDER BY h.rank, h.id LIMIT 1) AS head_at
      FROM jobs j WHERE state = 'queued' GROUP BY pool, lane, tenant_id, user_id""")
_KEPT_USER_FLOWS = text(
    "SELECT pool, lane, tenant_id, user_id, queued, queued_cost_s, head_at FROM user_flows"
)
_KEPT_FLOWS = text("SELECT pool, lane, tenant_id, queued, queued_cost_s, head_at FROM flows")
_COUNT_QUEUED = text(
    "SELECT tenant_id, count(*) AS n FROM jobs WHERE state = 'queued' GROUP BY tenant_id"
)
_COUNT_RUNNING = text(
    "SELECT tenant_id, count(*) AS n FROM jobs WHERE state = 'running' GROUP BY tenant_id"
)
_KEPT_TENANTS = text("SELECT id, queued, running FROM tenants")
_SET_FLOW = text("""
    INSERT INTO flows (pool, lane, tenant_id, queued, queued_cost_s, head_at)
         VALUES (:pool, :lane, :tenant, :queued, :cost_s, :head_at)
    ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET
         queued = excluded.queued, queued_cost_s = excluded.queued_cost_s,
         head_at = excluded.head_at""")
_SET_USER_FLOW = text("""
    INSERT INTO user_flows (pool, lane, tenant_id, user_id, queued, queued_cost_s, head_at)
         VALUES (:pool, :lane, :tenant, :user, :queued, :cost_s, :head_at)
    ON CONFLICT (pool, lane, tenant_id, user_id) DO UPDATE SET
         queued = excluded.queued, queued_cost_s = excluded.queued_cost_s,
         head_at = excluded.head_at""")
_SET_TENANT = text("UPDATE tenants SET queued = :queued, running = :running WHERE id = :tenant")

TOLERANCE_S = 1e-3
"""`queued_cost_s` is a sum of doubles, added to and taken from a million times."""


def find_drift(conn: Connection) -> Drift:
    """Compare all counters with the rows; on a read connection no writer waits for it."""
    flows, tenants = _wrong_flows(conn), _wrong_tenants(conn)
    return Drift(flows=len(flows), tenants=len(tenants))


def audit(uow: UnitOfWork) -> Drift:
    """Set right every counter that disagrees with the rows; return how many did."""
    if alone := _ALONE[uow.conn.dialect.name]:
        uow.conn.execute(text(alone))
    flows, tenants = _wrong_flows(uow.conn), _wrong_tenants(uow.conn)
    for (pool, lane, tenant_id, user_id), (queued, cost_s, head_at) in flows.items():
        statement = _SET_FLOW if user_id == _WHOLE else _SET_USER_FLOW
        key = {"pool": pool, "lane": lane, "tenant": tenant_id, "user": user_id}
        uow.conn.execute(statement, {**key, "queued": queued, "cost_s": cost_s, "head_at": head_at})
    for tenant_id, (queued, running) in tenants.items():
        found = {"tenant": tenant_id, "queued": queued, "running": running}
        uow.conn.execute(_SET_TENANT, found)
    return Drift(flows=len(flows), tenants=len(tenants))


def _wrong_flows(conn: Connection) -> dict[_FlowKey, _FlowCount]:
    """Return the true counts of the flows, tenants' and users', whose counters are wrong."""
    counted: dict[_FlowKey, _FlowCount] = {
        (r.pool, r.lane, r.tenant_id, r.user_id): (r.queued, r.cost_s, r.head_at)
        for r in conn.execute(_COUNT_USER_FLOWS)
    }
    counted |= _summed(counted)
    kept: dict[_FlowKey, _FlowCount] = {
        (r.pool, r.lane, r.tenant_id, r.user_id): (r.queued, r.queued_cost_s, r.head_at)
        for r in conn.execute(_KEPT_USER_FLOWS)
    }
    kept |= {
        (r.pool, r.lane, r.tenant_id, _WHOLE): (r.queued, r.queued_cost_s, r.head_at)
        for r in conn.execute(_KEPT_FLOWS)
    }
    empty: _FlowCount = (0, 0.0, None)
    return {
        key: counted.get(key, empty)
        for key in counted.keys() | kept.keys()
        if not _agree(kept.get(key, empty), counted.get(key, empty))
    }


def _summed(users: Mapping[_FlowKey, _FlowCount]) -> dict[_FlowKey, _FlowCount]:
    """Return the tenants' flows of which *users* are the parts."""
    whole: dict[_FlowKey, _FlowCount] = {}
    for (pool, lane, tenant_id, _), (queued, cost_s, head_at) in users.items():
        key = (pool, lane, tenant_id, _WHOLE)
        before = whole.get(key, (0, 0.0, None))
        heads = [head for head in (before[2], head_at) if head is not None]
        whole[key] = (before[0] + queued, before[1] + cost_s, min(heads, default=None))
    return whole


def _agree(kept: _FlowCount, counted: _FlowCount) -> bool:
    is_close = abs(kept[1] - counted[1]) <= TOLERANCE_S
    return is_close and (kept[0], kept[2]) == (counted[0], counted[2])


def _wrong_tenants(conn: Connection) -> dict[int, tuple[int, int]]:
    """Return the true counts, queued and running, of the tenants whose counters are wrong."""
    queued = {r.tenant_id: r.n for r in conn.execute(_COUNT_QUEUED)}
    running = {r.tenant_id: r.n for r in conn.execute(_COUNT_RUNNING)}
    kept = {r.id: (r.queued, r.running) for r in conn.execute(_KEPT_TENANTS)}
    counted = {tenant: (queued.get(tenant, 0), running.get(tenant, 0)) for tenant in kept}
    return {tenant: counts for tenant, counts in counted.items() if counts != kept[tenant]}
