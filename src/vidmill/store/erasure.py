"""Erasing jobs: hidden at once, gone with their files as soon as no run writes to them."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, or_, select, update

from vidmill.domain.job import TERMINAL, Phase
from vidmill.store.models import attempts, jobs
from vidmill.store.unit import UnitOfWork

_BY_ID = select(jobs.c.files_of, jobs.c.public_id).where(jobs.c.id == bindparam("job"))
_HIDDEN = (
    select(jobs.c.id)
    .where(jobs.c.is_erasing, jobs.c.state.in_(sorted(TERMINAL)), jobs.c.id > bindparam("after"))
    .order_by(jobs.c.id)
    .limit(bindparam("limit"))
)


def hide(uow: UnitOfWork, job_id: int) -> None:
    """Let no reader find the job any more; `hidden` tells when it can be erased."""
    uow.conn.execute(update(jobs).where(jobs.c.id == job_id).values(is_erasing=True))


def hidden(conn: Connection, *, after: int, limit: int) -> Sequence[int]:
    """Return ids above *after* of jobs that are hidden and over, the oldest first."""
    return [row.id for row in conn.execute(_HIDDEN, {"after": after, "limit": limit})]


def withdraw(uow: UnitOfWork, job_id: int) -> tuple[str, ...]:
    """Mark a finished job as being erased; return the prefixes of files that are to go with it.

    From here on nobody is answered with its files; they stay if other jobs show them. Delete what
    is returned, then `erase`. Done again, as after a failure half-way, it says the same.
    """
    job = uow.conn.execute(_BY_ID, {"job": job_id}).first()
    if job is None:
        return ()
    owner = job.files_of or job.public_id
    shows = or_(jobs.c.public_id == owner, jobs.c.files_of == owner)
    # In one order, so that of two that go at once the second sees the first.
    held = select(jobs.c.id).where(shows).order_by(jobs.c.id).with_for_update()
    uow.conn.execute(held).all()
    uow.conn.execute(update(jobs).where(jobs.c.id == job_id).values(phase=Phase.ERASING))
    others = select(jobs.c.id).where(shows, jobs.c.id != job_id, jobs.c.phase != Phase.ERASING)
    is_shown = uow.conn.execute(others.limit(1)).first() is not None
    return () if is_shown else (owner,)


def erase(uow: UnitOfWork, job_id: int) -> None:
    """Delete a finished job and all that is known of its runs; a trigger keeps live ones."""
    uow.conn.execute(delete(attempts).where(attempts.c.job_id == job_id))
    uow.conn.execute(delete(jobs).where(jobs.c.id == job_id))
