"""The runs of a job, for whoever asks why it took three."""

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select

from vidmill.store.models import attempts


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One run. `outcome` is None while it goes on; instants are Unix seconds."""

    attempt: int
    started_at: float
    ended_at: float | None
    outcome: str | None
    error_code: str | None
    error_message: str | None


_OF_JOB = (
    select(
        attempts.c.attempt,
        attempts.c.started_at,
        attempts.c.ended_at,
        attempts.c.outcome,
        attempts.c.error_code,
        attempts.c.error_message,
    )
    .where(attempts.c.job_id == bindparam("job"))
    .order_by(attempts.c.attempt)
)


_COUNT = (
    select(func.count())
    .select_from(attempts)
    .where(attempts.c.job_id == bindparam("job"), attempts.c.error_code == bindparam("code"))
)


def count(conn: Connection, job_id: int, *, error_code: str) -> int:
    """Return how many runs of a job ended with *error_code*."""
    found: int = conn.execute(_COUNT, {"job": job_id, "code": error_code}).scalar_one()
    return found


def of_job(conn: Connection, job_id: int) -> list[Attempt]:
    """Return the runs of a job, oldest first."""
    rows = conn.execute(_OF_JOB, {"job": job_id})
    return [Attempt(**dict(row._mapping)) for row in rows]  # noqa: SLF001  the documented way
