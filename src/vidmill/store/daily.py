"""How many clips a tenant has ordered today. A day is UTC's.

Rows are counted, from an index of just those that count: a counter of its own would be one more
row for every order of every tenant to wait for, and only tenants with a quota ask.
"""

from sqlalchemy import Connection, bindparam, text

from vidmill.store.direct import Direct
from vidmill.store.models import COUNTS_FOR_THE_DAY

DAY_S = 86_400

_CLIPS = Direct(
    text(
        "SELECT (SELECT count(*) FROM jobs WHERE tenant_id = :tenant AND submitted_at >= :since"  # noqa: S608  our own words
        f" AND {COUNTS_FOR_THE_DAY})"
        " + coalesce((SELECT clips FROM erased_clips WHERE tenant_id = :tenant AND day = :day), 0)"
    ).bindparams(bindparam("tenant"), bindparam("since"), bindparam("day"))
)


def clips_of(conn: Connection, tenant_id: int, *, now: float) -> int:
    """Return the tenant's clips of the day of *now*, Unix seconds, that count against a quota."""
    day = int(now // DAY_S)
    values = {"tenant": tenant_id, "since": float(day * DAY_S), "day": day}
    row = _CLIPS.first(conn, values)
    assert row is not None, "a sum has a row"
    return int(row[0])


def ends_at(now: float) -> float:
    """Return when the day of *now* is over."""
    return (now // DAY_S + 1) * DAY_S
