"""Checking the triggers' counters against the rows, and setting right what disagrees."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from vidmill.store.unit import UnitOfWork


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How many counters did not agree with the rows."""

    flows: int
    tenants: int

    def __bool__(self) -> bool:
        return bool(self.flows or self.tenants)


_FlowKey = tuple[str, int, int]
_FlowCount = tuple[int, float, float | None]

_COUNT_FLOWS = text("""
    SELECT c.pool, c.lane, c.tenant_id, c.queued, c.cost_s, j.submitted_at AS head_at
      FROM (SELECT pool, lane, tenant_id, count(*) AS queued, sum(est_cost_s) AS cost_s,
                   min(id) AS head
              FROM jobs WHERE state = 'queued' GROUP BY pool, lane, tenant_id) c
      JOIN jobs j ON j.id = c.head""")
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
_SET_TENANT = text("UPDATE tenants SET queued = :queued, running = :running WHERE id = :tenant")

TOLERANCE_S = 1e-3
"""`queued_cost_s` is a sum of doubles, added to and taken from a million times."""


def find_drift(conn: Connection) -> Drift:
    """Compare all counters with the rows; on a read connection no writer waits for it."""
    flows, tenants = _wrong_flows(conn), _wrong_tenants(conn)
    return Drift(flows=len(flows), tenants=len(tenants))


def audit(uow: UnitOfWork) -> Drift:
    """Set right every counter that disagrees with the rows; return how many did."""
    flows, tenants = _wrong_flows(uow.conn), _wrong_tenants(uow.conn)
    for (pool, lane, tenant_id), (queued, cost_s, head_at) in flows.items():
        key = {"pool": pool, "lane": lane, "tenant": tenant_id}
        uow.conn.execute(_SET_FLOW, {**key, "queued": queued, "cost_s": cost_s, "head_at": head_at})
    for tenant_id, (queued, running) in tenants.items():
        found = {"tenant": tenant_id, "queued": queued, "running": running}
        uow.conn.execute(_SET_TENANT, found)
    return Drift(flows=len(flows), tenants=len(tenants))


def _wrong_flows(conn: Connection) -> dict[_FlowKey, _FlowCount]:
    """Return the true counts of the flows whose counters are wrong."""
    counted: dict[_FlowKey, _FlowCount] = {
        (r.pool, r.lane, r.tenant_id): (r.queued, r.cost_s, r.head_at)
        for r in conn.execute(_COUNT_FLOWS)
    }
    kept: dict[_FlowKey, _FlowCount] = {
        (r.pool, r.lane, r.tenant_id): (r.queued, r.queued_cost_s, r.head_at)
        for r in conn.execute(_KEPT_FLOWS)
    }
    empty: _FlowCount = (0, 0.0, None)
    return {
        key: counted.get(key, empty)
        for key in counted.keys() | kept.keys()
        if not _agree(kept.get(key, empty), counted.get(key, empty))
    }


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
