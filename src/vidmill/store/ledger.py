"""The ledger, audited. Its lines are written by triggers on `jobs` and by nothing else.

Every job has one `hold`; a job that is over has one `capture` (it succeeded) or one `release`.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A job and the entries it has, which are not those its state asks for."""

    job_id: int
    state: str
    entries: tuple[str, ...]


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

TOLD = 100
"""Mismatches reported at once; one would be an alarm already."""


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
