"""What a sample of jobs was predicted, and how far off it was: what intervals are made of."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from vidmill.domain.eta import Group, Guess, Kind
from vidmill.domain.job import Job, JobState, Lane
from vidmill.store.learning_tables import predictions
from vidmill.store.unit import UnitOfWork

KEPT = 128
"""Errors kept of a group: four lie in either tail, and a day's curve is still followed."""

GIVEN_UP_S = 86_400.0
"""A prediction this old is dropped: it would say nothing about today."""

_TELL = text("""
    INSERT INTO predictions (job_id, kind, pool, lane, band, attempt, made_at, centre_s, grain_s,
                             late_s)
         VALUES (:job, :kind, :pool, :lane, :band, :attempt, :now, :centre_s, :grain_s, :late_s)
    ON CONFLICT (job_id, kind) DO NOTHING""")
_OPEN = text("""
    SELECT p.*, j.state, j.finished_at, a.started_at
      FROM predictions p LEFT JOIN jobs j ON j.id = p.job_id
      LEFT JOIN attempts a ON a.job_id = p.job_id AND a.attempt = p.attempt + 1""")
# As in `learning`: the oldest makes room, and a lost race harms nobody.
_NOTE = text("""
    INSERT INTO eta_errors (pool, kind, lane, band, slot, at, error)
    SELECT :pool, :kind, :lane, :band,
           CASE WHEN count(*) < :kept THEN count(*)
                ELSE (SELECT o.slot FROM eta_errors o
                       WHERE o.pool = :pool AND o.kind = :kind AND o.lane = :lane
                         AND o.band = :band
                       ORDER BY o.at, o.slot LIMIT 1) END,
           :now, :error
      FROM eta_errors
     WHERE pool = :pool AND kind = :kind AND lane = :lane AND band = :band
    ON CONFLICT (pool, kind, lane, band, slot) DO UPDATE SET
           at = excluded.at, error = excluded.error""")
_COUNT_OPEN = text("""
    SELECT lane, kind, count(*) AS n FROM predictions WHERE pool = :pool GROUP BY lane, kind""")
_ERRORS = text("SELECT kind, lane, band, error FROM eta_errors WHERE pool = :pool")
_OVERDUE = text("""
    SELECT kind, lane, band, made_at, centre_s, grain_s FROM predictions
     WHERE pool = :pool AND :now - made_at > late_s""")

_ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.REVIEW})


def tell(uow: UnitOfWork, job: Job, guess: Guess, *, late_s: float) -> None:
    """Remember what *job* is predicted; *late_s* is the end of the interval it was given.

    While an earlier prediction of the same kind is open, that one stays.
    """
    values = {**_of_group(guess.group), "job": job.id, "pool": job.pool, "attempt": job.attempt}
    values |= {"now": uow.now, "centre_s": guess.centre_s, "grain_s": guess.grain_s}
    uow.conn.execute(_TELL, {**values, "late_s": late_s})


def open_counts(conn: Connection, pool: str) -> dict[tuple[Lane, Kind], int]:
    """Return how many predictions in *pool* wait for the truth."""
    rows = conn.execute(_COUNT_OPEN, {"pool": pool})
    return {(Lane(row.lane), Kind(row.kind)): row.n for row in rows}


def judge(uow: UnitOfWork) -> int:
    """Compare predictions with what happened since; return how many errors are new.

    Of a job that was cancelled, failed or erased nothing is learnt: it had no finish to foretell.
    """
    noted = 0
    for row in uow.conn.execute(_OPEN).all():
        happened_at = _happened_at(row)
        if happened_at is not None:
            guess = _guess(row)
            error = guess.error(happened_at - row.made_at)
            key = {**_of_group(guess.group), "pool": row.pool}
            uow.conn.execute(_NOTE, {**key, "now": uow.now, "error": error, "kept": KEPT})
            noted += 1
        is_over = row.state is None or row.state in _ENDED
        if happened_at is not None or is_over or uow.now - row.made_at > GIVEN_UP_S:
            _forget(uow, row)
    return noted


def errors(conn: Connection, pool: str, *, now: float) -> Mapping[Group, Sequence[float]]:
    """Return the latest errors in *pool*, and the least that overdue predictions will have.

    The overdue ones count at once: when a queue begins to grow, the jobs that show it are those
    still waiting.
    """
    found: dict[Group, list[float]] = defaultdict(list)
    for row in conn.execute(_ERRORS, {"pool": pool}):
        found[_group(row)].append(row.error)
    for row in conn.execute(_OVERDUE, {"pool": pool, "now": now}):
        found[_group(row)].append(_guess(row).error(now - row.made_at))
    return found


def _happened_at(row: Any) -> float | None:
    if row.kind == Kind.START:
        return None if row.started_at is None else float(row.started_at)
    return float(row.finished_at) if row.state == JobState.SUCCEEDED else None


def _forget(uow: UnitOfWork, row: Any) -> None:
    gone = (predictions.c.job_id == row.job_id) & (predictions.c.kind == row.kind)
    uow.conn.execute(predictions.delete().where(gone))


def _guess(row: Any) -> Guess:
    return Guess(group=_group(row), centre_s=row.centre_s, grain_s=row.grain_s)


def _group(row: Any) -> Group:
    return Group(Kind(row.kind), Lane(row.lane), row.band)


def _of_group(group: Group) -> dict[str, Any]:
    return {"kind": group.kind.value, "lane": int(group.lane), "band": group.band}
