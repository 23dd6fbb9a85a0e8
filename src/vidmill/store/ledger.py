"""The ledger, read. Its lines are written by triggers on `jobs` and by nothing else.

Every job has one `hold`; a job that is over has one `capture` (it succeeded) or one `release`.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, text

from vidmill.store.models import ledger


@dataclass(frozen=True, kw_only=True)
class Line:
    """One entry: `hold`, `capture` or `release`; `at` in Unix seconds."""

    job_id: int
    entry: str
    public_id: str
    tenant_id: int
    user_id: int
    credits: int
    at: float


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Credits of a tenant: `held` for what is under way, `captured` for what was delivered."""

    held: int
    captured: int


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A job and the entries it has, which are not those its state asks for."""

    job_id: int
    state: str
    entries: tuple[str, ...]


_OF_JOB = select(ledger).where(ledger.c.job_id == bindparam("job"))
_BALANCE = text("""
    SELECT entry, sum(credits) AS credits FROM ledger WHERE tenant_id = :tenant GROUP BY entry""")
_MISMATCHES = text("""
    SELECT job_id, state, holds, captures, releases, wrong FROM (
        SELECT j.id AS job_id, j.state,
               count(CASE WHEN l.entry = 'hold' THEN 1 END) AS holds,
               count(CASE WHEN l.entry = 'capture' THEN 1 END) AS captures,
               count(CASE WHEN l.entry = 'release' THEN 1 END) AS releases,
               count(CASE WHEN l.credits <> j.price_credits THEN 1 END) AS wrong
          FROM jobs j LEFT JOIN ledger l ON l.job_id = j.id
         GROUP BY j.id, j.state) AS counted
     WHERE holds <> 1 OR wrong > 0
        OR captures <> CASE WHEN state = 'succeeded' THEN 1 ELSE 0 END
        OR releases <> CASE WHEN state IN ('failed', 'cancelled') THEN 1 ELSE 0 END
     ORDER BY job_id LIMIT :most""")

_ORDER = ("hold", "capture", "release")

TOLD = 100
"""Mismatches reported at once; one would be an alarm already."""


def of_job(conn: Connection, job_id: int) -> list[Line]:
    """Return the lines of a job, the hold first."""
    lines = [Line(**row._mapping) for row in conn.execute(_OF_JOB, {"job": job_id})]  # noqa: SLF001  the documented way
    return sorted(lines, key=lambda line: _ORDER.index(line.entry))


def balance(conn: Connection, tenant_id: int) -> Balance:
    """Return what *tenant_id* has held and captured, erased jobs included."""
    sums = {row.entry: int(row.credits) for row in conn.execute(_BALANCE, {"tenant": tenant_id})}
    hold, captured, released = (sums.get(entry, 0) for entry in _ORDER)
    return Balance(held=hold - captured - released, captured=captured)


def audit(conn: Connection) -> list[Mismatch]:
    """Return the jobs whose lines do not say what their state says, up to `TOLD`."""
    return [
        Mismatch(
            job_id=row.job_id,
            state=row.state,
            entries=("hold",) * row.holds
            + ("capture",) * row.captures
            + ("release",) * row.releases,
        )
        for row in conn.execute(_MISMATCHES, {"most": TOLD})
    ]
