"""The circuit breakers' rows. The rules are `domain.breaker`'s; the claim asks them itself."""

from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy import text as sql

from vidmill.domain.breaker import Breaker, BreakerPolicy, BreakerState, may_claim
from vidmill.domain.job import JobState
from vidmill.store.models import breakers
from vidmill.store.unit import UnitOfWork

__all__ = [
    "Admission",
    "Breaker",
    "BreakerPolicy",
    "BreakerState",
    "admit",
    "all_breakers",
    "begin_probe",
    "due_pools",
    "record_failure",
    "record_success",
]

_OPEN_ROW = sql(
    "INSERT INTO breakers (pool, profile) VALUES (:pool, :profile) ON CONFLICT DO NOTHING"
)
_OF_POOL = (
    select(breakers)
    .where(breakers.c.pool == bindparam("in_pool"), breakers.c.profile == bindparam("of_profile"))
    .with_for_update()
)
_CLOSE = sql("""
    UPDATE breakers
       SET state = 'closed', failures = 0, failed_jobs = '[]', reason = '', opened_at = NULL,
           retry_at = NULL, rest_s = 0, probe_job_id = NULL
     WHERE pool = :pool AND profile = :profile AND (state <> 'closed' OR failures > 0)""")
_STANDING = sql("""
    SELECT b.state, b.retry_at, j.state AS probe_state
      FROM breakers b LEFT JOIN jobs j ON j.id = b.probe_job_id
     WHERE b.pool = :pool AND b.profile = :profile""")
_PROBE = sql("""
    UPDATE breakers SET state = 'half_open', probe_job_id = :job
     WHERE pool = :pool AND profile = :profile AND state <> 'closed'""")


def all_breakers(conn: Connection) -> list[Breaker]:
    """Return every breaker that ever counted a failure, by pool and profile."""
    query = select(breakers).order_by(breakers.c.pool, breakers.c.profile)
    return [_breaker(row) for row in conn.execute(query)]


def record_failure(
    uow: UnitOfWork, *, pool: str, profile: str, job_id: int, reason: str, policy: BreakerPolicy
) -> None:
    """Count that the engine failed *job_id*; in the transaction that settles the run."""
    key = {"pool": pool, "profile": profile}
    uow.conn.execute(_OPEN_ROW, key)
    row = uow.conn.execute(_OF_POOL, {"in_pool": pool, "of_profile": profile}).one()
    after = _breaker(row).after_failure(job_id, reason=reason, now=uow.now, policy=policy)
    values = {**vars(after), "failed_jobs": list(after.failed_jobs)}
    values["failures"] = len(after.failed_jobs)
    at = (breakers.c.pool == values.pop("pool"), breakers.c.profile == values.pop("profile"))
    uow.conn.execute(update(breakers).where(*at).values(values))


def record_success(uow: UnitOfWork, *, pool: str, profile: str) -> None:
    """Close the breaker; whatever it counted is forgotten."""
    uow.conn.execute(_CLOSE, {"pool": pool, "profile": profile})


class Admission(StrEnum):
    """What a claim may do."""

    ALL = "all"
    PROBE = "probe"  # one job; say so with `begin_probe`
    NONE = "none"


def admit(uow: UnitOfWork, *, pool: str, profile: str) -> Admission:
    """Say what may be claimed now, in the transaction that claims: claims of a pool are serial."""
    row = uow.conn.execute(_STANDING, {"pool": pool, "profile": profile}).first()
    if row is None or row.state == BreakerState.CLOSED:
        return Admission.ALL
    is_probing = row.probe_state == JobState.RUNNING
    may = may_claim(
        BreakerState(row.state), retry_at=row.retry_at, is_probing=is_probing, now=uow.now
    )
    return Admission.PROBE if may else Admission.NONE


def due_pools(conn: Connection, now: float) -> list[str]:
    """Return the pools whose rest is over and where nobody tries yet: they want a ticket."""
    query = select(breakers.c.pool).where(
        breakers.c.state == BreakerState.OPEN, breakers.c.retry_at <= now
    )
    return sorted(set(conn.execute(query).scalars()))


def begin_probe(uow: UnitOfWork, *, pool: str, profile: str, job_id: int) -> None:
    """Let *job_id* through a breaker whose rest is over; for the claim alone."""
    uow.conn.execute(_PROBE, {"pool": pool, "profile": profile, "job": job_id})


def _breaker(row: Any) -> Breaker:
    values = dict(row._mapping)  # noqa: SLF001  a row's names
    values.pop("failures")
    values["state"] = BreakerState(values["state"])
    values["failed_jobs"] = tuple(values["failed_jobs"])
    return Breaker(**values)
