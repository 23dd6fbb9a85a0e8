"""Taking work and keeping hold of it: the claim and the heartbeat.

A claim is one short transaction: the lane by weighted clocks, in it the tenant by start-time fair
queuing, of it the user by the same, of him the job he wants first. Of jobs that he wants alike, the
worker may prefer one of the next few that is drawn with a LoRA it holds, a few times in a row. The
claim reads a handful of index entries however long the queue is. Claims of a pool are serial:
SQLite's writers are, and on PostgreSQL an advisory lock makes them so. Rows are locked in the order
of `store.locks`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import TextClause, bindparam, text, update

from vidmill.domain.breaker import BreakerState, may_claim
from vidmill.domain.job import LANE_WEIGHT, Job, JobState, Lane, Phase
from vidmill.domain.scheduling import Turn, turns
from vidmill.store import breakers
from vidmill.store.counters import audit
from vidmill.store.models import jobs
from vidmill.store.rows import to_job
from vidmill.store.unit import UnitOfWork
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_SERIAL: Mapping[str, TextClause | None] = {
    "sqlite": None,
    "postgresql": text(
        "SELECT set_config('lock_timeout', '3s', true),"
        " pg_advisory_xact_lock(hashtextextended(:pool, 0))"
    ),
}
"""Claims of a pool queue here, which on a busy server takes longer than a lock in the way."""

# The breaker comes with the clocks, and of each lane since when the oldest waits that may run; a
# head whose age is unknown (a counter that drifted) counts as old, so that it is looked at.
_LANES = text("""
    SELECT c.lane, c.v, c.lane_v, coalesce(b.state, 'closed') AS breaker, b.retry_at,
           coalesce(p.state = 'running', false) AS is_probing,
           (SELECT coalesce(f.head_at, 0) FROM flows f JOIN tenants t ON t.id = f.tenant_id
             WHERE f.pool = c.pool AND f.lane = c.lane AND f.queued > 0
               AND t.running < t.cap_running
             ORDER BY f.head_at LIMIT 1) AS oldest_at
      FROM vclock c
      LEFT JOIN breakers b ON b.pool = c.pool AND b.profile = :profile
      LEFT JOIN jobs p ON p.id = b.probe_job_id
     WHERE c.pool = :pool""")
_OPEN_CLOCK = text(
    "INSERT INTO vclock (pool, lane, v, lane_v) VALUES (:pool, :lane, 0, 0) ON CONFLICT DO NOTHING"
)
_PICK = text("""
    SELECT f.tenant_id, f.vtime, f.user_v, f.weight, u.user_id, u.vtime AS user_vtime,
           coalesce(w.weight, 1.0) AS user_weight, coalesce(u.passed, 0) AS passed
      FROM (SELECT f.tenant_id, f.vtime, f.user_v, t.weight
              FROM flows f JOIN tenants t ON t.id = f.tenant_id
             WHERE f.pool = :pool AND f.lane = :lane AND f.queued > 0
               AND t.running < t.cap_running
             ORDER BY f.vtime, f.tenant_id LIMIT 1) f
      LEFT JOIN user_flows u
             ON u.pool = :pool AND u.lane = :lane AND u.tenant_id = f.tenant_id
            AND u.user_id = (SELECT n.user_id FROM user_flows n
                              WHERE n.pool = :pool AND n.lane = :lane AND n.queued > 0
                                AND n.tenant_id = f.tenant_id
                              ORDER BY n.vtime, n.user_id LIMIT 1)
      LEFT JOIN users w ON w.id = u.user_id""")
_HEAD = """
    SELECT id FROM jobs
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant_id AND user_id = :user_id
       AND state = 'queued'
     ORDER BY rank, id LIMIT 1"""
_HEADS: Mapping[str, TextClause] = {
    "sqlite": text(_HEAD),
    "postgresql": text(_HEAD + " FOR UPDATE"),
}
# The first job is passed over only if it needs a LoRA that the worker lacks (one without any needs
# nothing), and only for one of its rank: "run next" stays next.
_NEAR = """
      WITH near AS (SELECT id, rank, lora FROM jobs
                     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant_id
                       AND user_id = :user_id AND state = 'queued'
                     ORDER BY rank, id LIMIT :near),
           head AS (SELECT id, rank, lora FROM near ORDER BY rank, id LIMIT 1)
    SELECT id, (SELECT id FROM head) AS head_id FROM jobs
     WHERE state = 'queued'
       AND id = (SELECT n.id FROM near n
                  ORDER BY CASE WHEN (SELECT lora FROM head) IS NOT NULL
                                 AND n.rank = (SELECT rank FROM head)
                                 AND n.lora IN (:lora0, :lora1, :lora2, :lora3)
                                THEN 0 ELSE 1 END, n.rank, n.id LIMIT 1)"""
_NEARS: Mapping[str, TextClause] = {
    "sqlite": text(_NEAR),
    "postgresql": text(_NEAR + " FOR UPDATE OF jobs"),
}
# Claims of other pools may have used the tenant's last place, and runs that end correct the clocks:
# what is charged is read again, held. Rows are locked in the order of the names.
_HOLD: Mapping[str, TextClause | None] = {
    "sqlite": None,
    "postgresql": text("""
    SELECT f.tenant_id, f.vtime, f.user_v, t.weight, u.user_id, u.vtime AS user_vtime,
           CAST(:user_weight AS double precision) AS user_weight, u.passed
      FROM flows f
      JOIN user_flows u ON u.pool = f.pool AND u.lane = f.lane AND u.tenant_id = f.tenant_id
      JOIN tenants t ON t.id = f.tenant_id
     WHERE f.pool = :pool AND f.lane = :lane AND f.tenant_id = :tenant_id
       AND u.user_id = :user_id AND t.running < t.cap_running
       FOR NO KEY UPDATE OF t, f, u"""),
}
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
_CHARGE = text("""
    UPDATE flows SET vtime = :vtime, user_v = :user_v
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant""")
_CHARGE_USER = text("""
    UPDATE user_flows SET vtime = :vtime, passed = :passed
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant AND user_id = :user""")
_MOVE_CLOCKS = text("""
    UPDATE vclock SET
        v = CASE WHEN lane = :lane AND v < :start THEN :start ELSE v END,
        lane_v = CASE WHEN lane = :turn THEN :turn_start + :share
                      WHEN lane_v < :turn_start THEN :turn_start ELSE lane_v END
     WHERE pool = :pool""")
_BEGIN_ATTEMPT = text(
    "INSERT INTO attempts (job_id, attempt, worker, started_at)"
    " VALUES (:job, :attempt, :worker, :now)"
)
_RENEW = text("""
    UPDATE jobs SET lease_until = :until, phase = :phase,
           progress = CASE WHEN progress > :progress THEN progress ELSE :progress END
     WHERE id = :job AND attempt = :attempt AND worker = :worker AND state = 'running'
 RETURNING is_cancel_requested""")

NEAR = 8
"""How many of a user's next jobs are looked at for one that needs no other LoRA."""

PASSED_MAX = 4
"""How often in a row a user's first job is passed over for such a one. So whatever comes, the job
with n of the user's own before it is begun within (n + 1) * 5 of the user's turns."""

LORAS_HELD = 4
"""How many LoRAs a claim may name."""

LOOKS_MAX = 4
"""Looks for a lane's head: one may find that a cancel was quicker, one that a counter drifted."""


@dataclass(frozen=True, kw_only=True)
class ClaimRules:
    """See the setting of the same name."""

    batch_age_s: float = 1800.0


_RULES = ClaimRules()


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


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Who claims, and where."""

    pool: str
    worker: str
    profile: str
    lease_s: float
    is_probe: bool
    loras: tuple[str, ...]


def claim(
    uow: UnitOfWork,
    *,
    pool: str,
    worker: str,
    profile: str,
    lease_s: float,
    rules: ClaimRules = _RULES,
    loras: Sequence[str] = (),
) -> Job | None:
    """Give *worker* the job of *pool* whose turn it is, with a lease; None when nothing may run.

    *profile* is the model the worker has loaded; its circuit breaker may let the pool rest. *loras*
    are the keys of LoRAs that it holds, those it used last in front.
    """
    serial = _SERIAL[uow.conn.dialect.name]
    if serial is not None:
        uow.conn.execute(serial, {"pool": pool})
    lanes = _lanes(uow, pool, profile)
    breaker = lanes[Lane.STANDARD]
    state = BreakerState(breaker.breaker)
    probing = {"retry_at": breaker.retry_at, "is_probing": bool(breaker.is_probing)}
    if not may_claim(state, **probing, now=uow.now):
        return None
    is_probe = state is not BreakerState.CLOSED
    asked = _Asked(
        pool=pool,
        worker=worker,
        profile=profile,
        lease_s=lease_s,
        is_probe=is_probe,
        loras=tuple(loras[:LORAS_HELD]),
    )
    clock = {lane: row.lane_v for lane, row in lanes.items()}
    oldest_at = {lane: r.oldest_at for lane, r in lanes.items() if r.oldest_at is not None}
    order = turns(clock, oldest_at=oldest_at, now=uow.now, batch_age_s=rules.batch_age_s)
    found = (_take_turn(uow, asked, turn, lanes) for turn in order)
    return next((job for job in found if job is not None), None)


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
        row = uow.conn.execute(_RENEW, values).first()
        if row is not None:
            owned.append(Owned(job_id, attempt, bool(row.is_cancel_requested)))
    return owned


def _lanes(uow: UnitOfWork, pool: str, profile: str) -> dict[Lane, Any]:
    asked = {"pool": pool, "profile": profile}
    found = {Lane(row.lane): row for row in uow.conn.execute(_LANES, asked)}
    if len(found) == len(Lane):
        return found
    uow.conn.execute(_OPEN_CLOCK, [{"pool": pool, "lane": lane} for lane in Lane])
    return _lanes(uow, pool, profile)


def _take_turn(uow: UnitOfWork, asked: _Asked, turn: Turn, lanes: Mapping[Lane, Any]) -> Job | None:
    """Begin the next job of the lane that is served at *turn*; None when none may run."""
    picked = _pick(uow, asked, turn.served)
    if picked is None:
        return None
    job_id, flow, has_passed = picked
    taken = {"job": job_id, "by": asked.worker, "until": uow.now + asked.lease_s, "now": uow.now}
    job = to_job(uow.conn.execute(_TAKE, taken).one())
    begun = {"job": job.id, "attempt": job.attempt, "worker": asked.worker, "now": uow.now}
    uow.conn.execute(_BEGIN_ATTEMPT, begun)
    passed = flow.passed + 1 if has_passed else 0
    start = _charge(uow, job, flow=flow, v=lanes[turn.served].v, passed=passed)
    moved = {"lane": turn.served, "start": start, "turn": turn.of}
    moved |= {"turn_start": lanes[turn.of].lane_v, "share": 1.0 / LANE_WEIGHT[turn.of]}
    uow.conn.execute(_MOVE_CLOCKS, {"pool": asked.pool, **moved})
    return job


def _pick(uow: UnitOfWork, asked: _Asked, lane: Lane) -> tuple[int, Any, bool] | None:
    """Return the id of the lane's next job, and the row it is charged to, ours until the end.

    The third tells whether its user's first job was passed over for it.
    """
    of_lane: dict[str, object] = {"pool": asked.pool, "lane": lane}
    for look in range(LOOKS_MAX):
        flow = uow.conn.execute(_PICK, of_lane).first()
        if flow is None:
            return None
        job_id, has_passed = _head(uow, asked, of_lane, flow)
        if job_id is not None:
            held = _hold(uow, asked, of_lane, flow=flow, job_id=job_id)
            if held is not None:
                return job_id, held, has_passed
        elif look:  # once may be a cancel that was quicker
            log.error("flow_counter_drifted", pool=asked.pool, tenant_id=flow.tenant_id)
            audit(uow)
    return None


def _head(
    uow: UnitOfWork, asked: _Asked, of_lane: Mapping[str, object], flow: Any
) -> tuple[int | None, bool]:
    """Return the user's next job for this worker, and whether another one was first."""
    whose = {**of_lane, "tenant_id": flow.tenant_id, "user_id": flow.user_id}
    if not asked.loras or flow.passed >= PASSED_MAX:
        return uow.conn.execute(_HEADS[uow.conn.dialect.name], whose).scalar(), False
    padded = [*asked.loras, *[""] * LORAS_HELD][:LORAS_HELD]
    held = {f"lora{number}": key for number, key in enumerate(padded)}
    near = uow.conn.execute(_NEARS[uow.conn.dialect.name], {**whose, **held, "near": NEAR}).first()
    return (None, False) if near is None else (near.id, near.id != near.head_id)


def _hold(
    uow: UnitOfWork, asked: _Asked, of_lane: Mapping[str, object], *, flow: Any, job_id: int
) -> Any:
    """Hold what the claim changes, as it is now; None when the tenant's last place is gone."""
    if asked.is_probe:  # before the tenant: whoever settles a run locks in this order
        breakers.begin_probe(uow, pool=asked.pool, profile=asked.profile, job_id=job_id)
    query = _HOLD[uow.conn.dialect.name]
    if query is None:
        return flow
    whose = {"tenant_id": flow.tenant_id, "user_id": flow.user_id, "user_weight": flow.user_weight}
    return uow.conn.execute(query, {**of_lane, **whose}).first()


def _charge(uow: UnitOfWork, job: Job, *, flow: Any, v: float, passed: int) -> float:
    """Charge tenant and user; return the lane's virtual time.

    Who was away re-enters at the present, with neither credit nor debt.
    """
    key = {"pool": job.pool, "lane": job.lane, "tenant": job.tenant_id}
    start, user_start = max(flow.vtime, v), max(flow.user_vtime, flow.user_v)
    vtime = start + job.est_cost_s / flow.weight
    uow.conn.execute(_CHARGE, {**key, "vtime": vtime, "user_v": user_start})
    vtime = user_start + job.est_cost_s / flow.user_weight
    uow.conn.execute(_CHARGE_USER, {**key, "user": job.user_id, "vtime": vtime, "passed": passed})
    return float(start)
