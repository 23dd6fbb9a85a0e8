"""Taking work and keeping hold of it: the claim and the heartbeat.

A claim is one short transaction: the lane by weighted clocks, in it the tenant by start-time fair
queuing, of it the oldest job. It reads a handful of index entries however long the queue is. Claims
are serial because SQLite's writers are; with row locks an advisory lock per pool does the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, text, update

from vidmill.domain.job import LANE_WEIGHT, Job, JobState, Lane, Phase
from vidmill.domain.scheduling import lane_order
from vidmill.store.counters import audit
from vidmill.store.models import jobs
from vidmill.store.rows import to_job
from vidmill.store.unit import UnitOfWork
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_CLOCKS = text("SELECT lane, v, lane_v FROM vclock WHERE pool = :pool")
_OPEN_CLOCK = text(
    "INSERT INTO vclock (pool, lane, v, lane_v) VALUES (:pool, :lane, 0, 0) ON CONFLICT DO NOTHING"
)
_PICK_FLOW = text("""
    SELECT f.tenant_id, f.vtime, t.weight
      FROM flows f JOIN tenants t ON t.id = f.tenant_id
     WHERE f.pool = :pool AND f.lane = :lane AND f.queued > 0 AND t.running < t.cap_running
     ORDER BY f.vtime, f.tenant_id LIMIT 1""")
_HEAD = text("""
    SELECT id FROM jobs
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant AND state = 'queued'
     ORDER BY id LIMIT 1""")
_TAKE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.state == JobState.QUEUED)
    .values(
        state=JobState.RUNNING,
        attempt=jobs.c.attempt + 1,
        worker=bindparam("by"),
        lease_until=bindparam("until"),
        started_at=bindparam("now"),
        phase=Phase.STARTING,
        progress=0.0,
        not_before=None,
    )
    .returning(jobs)
)
_CHARGE = text(
    "UPDATE flows SET vtime = :vtime WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant"
)
_MOVE_CLOCK = text("""
    UPDATE vclock SET
        v = CASE WHEN lane = :lane AND v < :start THEN :start ELSE v END,
        lane_v = CASE WHEN lane = :lane THEN :lane_start + :share
                      WHEN lane_v < :lane_start THEN :lane_start ELSE lane_v END
     WHERE pool = :pool""")
_BEGIN_ATTEMPT = text(
    "INSERT INTO attempts (job_id, attempt, worker, started_at)"
    " VALUES (:job, :attempt, :worker, :now)"
)
_HOLD = text("""
    UPDATE jobs SET lease_until = :until, phase = :phase,
           progress = CASE WHEN progress > :progress THEN progress ELSE :progress END
     WHERE id = :job AND attempt = :attempt AND worker = :worker AND state = 'running'
 RETURNING is_cancel_requested""")


class Progress(NamedTuple):
    """Where a worker stands with one run; `progress` is 0..1 of the whole job."""

    job_id: int
    attempt: int
    phase: Phase
    progress: float


class Owned(NamedTuple):
    """A run its worker still owns."""

    job_id: int
    attempt: int
    is_cancel_requested: bool


def claim(uow: UnitOfWork, *, pool: str, worker: str, lease_s: float) -> Job | None:
    """Give *worker* the job of *pool* whose turn it is, with a lease; None when nothing may run."""
    clocks = _clocks(uow, pool)
    for lane in lane_order({lane: clock.lane_v for lane, clock in clocks.items()}):
        picked = _head(uow, pool, lane)
        if picked is None:
            continue
        job_id, flow = picked
        taken = {"job": job_id, "by": worker, "until": uow.now + lease_s, "now": uow.now}
        job = to_job(uow.conn.execute(_TAKE, taken).one())
        _charge(uow, job, flow=flow, clock=clocks[lane])
        begun = {"job": job.id, "attempt": job.attempt, "worker": worker, "now": uow.now}
        uow.conn.execute(_BEGIN_ATTEMPT, begun)
        return job
    return None


def heartbeat(
    uow: UnitOfWork, *, worker: str, lease_s: float, progress: Sequence[Progress]
) -> list[Owned]:
    """Renew the leases of the runs named in *progress*; return those *worker* still owns.

    A run that is not named is not renewed, so that a job nobody works at falls to the sweep. Stored
    progress never falls within an attempt.
    """
    owned = []
    for job_id, attempt, phase, share in progress:
        values = {"job": job_id, "attempt": attempt, "worker": worker, "phase": phase}
        values |= {"until": uow.now + lease_s, "progress": share}
        row = uow.conn.execute(_HOLD, values).first()
        if row is not None:
            owned.append(Owned(job_id, attempt, bool(row.is_cancel_requested)))
    return owned


def _clocks(uow: UnitOfWork, pool: str) -> dict[Lane, Any]:
    found = {Lane(row.lane): row for row in uow.conn.execute(_CLOCKS, {"pool": pool})}
    if len(found) == len(Lane):
        return found
    uow.conn.execute(_OPEN_CLOCK, [{"pool": pool, "lane": lane} for lane in Lane])
    return _clocks(uow, pool)


def _head(uow: UnitOfWork, pool: str, lane: Lane) -> tuple[int, Any] | None:
    """Return the id of the lane's next job and its flow."""
    key: dict[str, object] = {"pool": pool, "lane": lane}
    while (flow := uow.conn.execute(_PICK_FLOW, key).first()) is not None:
        of_flow = {**key, "tenant": flow.tenant_id}
        job_id = uow.conn.execute(_HEAD, of_flow).scalar()
        if job_id is not None:
            return job_id, flow
        log.error("flow_counter_drifted", pool=pool, lane=int(lane), tenant_id=flow.tenant_id)
        audit(uow)
    return None


def _charge(uow: UnitOfWork, job: Job, *, flow: Any, clock: Any) -> None:
    """Move the clocks; who was away re-enters at the present, with neither credit nor debt."""
    start = max(flow.vtime, clock.v)
    key = {"pool": job.pool, "lane": job.lane}
    vtime = start + job.est_cost_s / flow.weight
    uow.conn.execute(_CHARGE, {**key, "tenant": job.tenant_id, "vtime": vtime})
    share = 1.0 / LANE_WEIGHT[job.lane]
    moved = {**key, "start": start, "lane_start": clock.lane_v, "share": share}
    uow.conn.execute(_MOVE_CLOCK, moved)
