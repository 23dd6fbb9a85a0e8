"""The pools there are: those that plans or routes name, or that ever had a job."""

from collections.abc import Mapping

from sqlalchemy import Connection, text

from vidmill.store.account_tables import plans

_QUEUED = text("SELECT pool, sum(queued) AS queued FROM flows WHERE queued > 0 GROUP BY pool")
_NAMED = text("SELECT pool FROM flows UNION SELECT pool FROM pool_routes")


def queued(conn: Connection) -> Mapping[str, int]:
    """Return how many jobs wait in each pool that has any."""
    return {row.pool: int(row.queued) for row in conn.execute(_QUEUED)}


def known(conn: Connection) -> list[str]:
    """Return the names of all pools."""
    planned = conn.execute(plans.select().with_only_columns(plans.c.pools)).scalars()
    named = conn.execute(_NAMED).scalars()
    return sorted({*named, *(pool for names in planned for pool in names)})
