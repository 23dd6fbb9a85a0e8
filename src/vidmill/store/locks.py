"""The order in which rows are locked: jobs, then tenants, flows, user flows, each sorted.

Triggers on `jobs` touch these rows in just that order for one job; the tenant's row comes before
all his flows, so that two jobs of his in two lanes need no more care than one. Whoever moves jobs
of several tenants in a transaction takes the rows of all of them first, or he and another may wait
for each other. SQLite has one writer at a time, and the same statements do no harm there.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import select, text

from vidmill.store.account_tables import tenants
from vidmill.store.unit import UnitOfWork

_FLOW = text("""
    INSERT INTO flows (pool, lane, tenant_id) VALUES (:pool, :lane, :tenant)
    ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET queued = flows.queued""")
_USER_FLOW = text("""
    INSERT INTO user_flows (pool, lane, tenant_id, user_id) VALUES (:pool, :lane, :tenant, :user)
    ON CONFLICT (pool, lane, tenant_id, user_id) DO UPDATE SET queued = user_flows.queued""")


def lock_flows(uow: UnitOfWork, rows: Iterable[Any]) -> None:
    """Hold what the triggers touch when the jobs in *rows*, locked before, move."""
    keys = sorted({(row.tenant_id, row.pool, row.lane, row.user_id) for row in rows})
    if not keys:
        return
    ids = sorted({tenant for tenant, *_ in keys})
    held = select(tenants.c.id).where(tenants.c.id.in_(ids)).order_by(tenants.c.id)
    # As the triggers lock it: a plain FOR UPDATE would also wait for the foreign keys of new jobs.
    uow.conn.execute(held.with_for_update(key_share=True))
    flows = sorted({key[:3] for key in keys})
    uow.conn.execute(_FLOW, [{"tenant": t, "pool": p, "lane": lane} for t, p, lane in flows])
    users = [{"tenant": t, "pool": p, "lane": lane, "user": u} for t, p, lane, u in keys]
    uow.conn.execute(_USER_FLOW, users)
