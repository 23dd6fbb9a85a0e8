"""Pages of the job list by number, for clients that count them: a total, and an offset.

The cost grows with the page number and with what is counted, hence both end at a number;
`jobs.page`, by cursor, is the one for long lists.
"""

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from vidmill.domain.job import Job
from vidmill.store.jobs import JobFilter, filtered
from vidmill.store.models import jobs
from vidmill.store.rows import to_job


class NumberedPage(NamedTuple):
    """Part of a list that has *total* jobs in all, as far as they were counted."""

    jobs: list[Job]
    total: int


def numbered_page(
    conn: Connection, tenant_id: int, *, filters: JobFilter, offset: int, limit: int, most: int
) -> NumberedPage:
    """Return up to *limit* of the tenant's jobs, newest first, after the first *offset*.

    The list ends after its newest *most*, and counts no more than them.
    """
    query = filtered(filters, tenant_id)
    # A window is looked for by the index that ends with it; the one by id is read from today back.
    has_window = filters.submitted_from is not None or filters.submitted_before is not None
    newest = (jobs.c.public_id if has_window else jobs.c.id).desc()
    ids = query.with_only_columns(jobs.c.id).order_by(newest).limit(most).subquery()
    total = conn.execute(select(func.count()).select_from(ids)).scalar_one()
    if has_window:
        query = query.where(jobs.c.id.in_(select(ids.c.id)))
    part = query.order_by(jobs.c.id.desc()).offset(offset).limit(min(limit, most - offset))
    return NumberedPage([to_job(row) for row in conn.execute(part)], total)
