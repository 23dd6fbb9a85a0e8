"""The runs of a job, for whoever asks why it took three."""

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select

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


def of_job(conn: Connection, job_id: int) -> list[Attempt]:
    """Return the runs of a job, oldest first."""
    rows = conn.execute(_OF_JOB, {"job": job_id})
    return [Attempt(**dict(row._mapping)) for row in rows]  # noqa: SLF001  the documented way
