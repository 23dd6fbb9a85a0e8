"""Pages of the job list by number, for clients that count them: a total, and an offset.

The cost grows with the page number; `jobs.page`, by cursor, is the one for long lists.
"""

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from vidmill.domain.job import Job
from vidmill.store.jobs import JobFilter, filtered
from vidmill.store.models import jobs
from vidmill.store.rows import to_job


class NumberedPage(NamedTuple):
    """Part of a list that has *total* jobs in all."""

    jobs: list[Job]
    total: int


def numbered_page(
    conn: Connection, tenant_id: int, *, filters: JobFilter, offset: int, limit: int
) -> NumberedPage:
    """Return up to *limit* of the tenant's jobs, newest first, after the first *offset*."""
    query = filtered(filters, tenant_id)
    ids = query.with_only_columns(jobs.c.id).subquery()
    total = conn.execute(select(func.count()).select_from(ids)).scalar_one()
    rows = conn.execute(query.order_by(jobs.c.id.desc()).offset(offset).limit(limit))
    return NumberedPage([to_job(row) for row in rows], total)
