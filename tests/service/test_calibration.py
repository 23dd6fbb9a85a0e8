"""What was told, against what came: runs of random length by many workers, on the real store."""

import random
from dataclasses import dataclass, field

from tests.builders import FakeClock, make_job, make_result
from vidmill.domain.eta import Interval
from vidmill.domain.job import Job, Lane
from vidmill.profiles import load_profile
from vidmill.services.calibration import Calibrator
from vidmill.services.forecast import Forecast
from vidmill.store import jobs, workers
from vidmill.store.session import Database
from vidmill.store.workers import WorkerState

NUM_WORKERS = 5
CLIP_S = 40.0
STEP_S = 10.0


@dataclass
class Replay:
    """A few workers on the real store, in time that only the clock handed in knows."""

    db: Database
    clock: FakeClock
    rng: random.Random
    busy: dict[str, tuple[float, Job]] = field(default_factory=dict)
    started: dict[int, float] = field(default_factory=dict)
    finished: dict[int, float] = field(default_factory=dict)

    def register(self) -> None:
        for number in range(NUM_WORKERS):
            known = {"worker": f"w{number}", "pool": "main", "host": "h", "pid": number}
            self.db.write(
                lambda uow, known=known: workers.register(  # type: ignore[misc]
                    uow, **known, profile="tiny", lease_s=1e6
                )
            )
            self.db.write(
                lambda uow, number=number: workers.renew(  # type: ignore[misc]
                    uow, worker=f"w{number}", lease_s=1e6, state=WorkerState.READY
                )
            )

    def go_on(self, seconds: float) -> None:
        """Let the workers claim and settle until so much time has passed."""
        until = self.clock.now + seconds
        while True:
            self._claim_all()
            ends_at = min((end for end, _ in self.busy.values()), default=until)
            if ends_at >= until:
                break
            self.clock.now = ends_at
            self._settle_due()
        self.clock.now = until

    def _claim_all(self) -> None:
        for worker in (f"w{number}" for number in range(NUM_WORKERS)):
            if worker in self.busy:
                continue
            job = self.db.write(
                lambda uow, worker=worker: jobs.claim(  # type: ignore[misc]
                    uow, pool="main", worker=worker, profile="tiny", lease_s=1e6
                )
            )
            if job is None:
                return
            self.started[job.id] = self.clock.now
            took_s = CLIP_S * self.rng.lognormvariate(0, 0.15)
            self.busy[worker] = self.clock.now + took_s, job

    def _settle_due(self) -> None:
        for worker, (ends_at, job) in list(self.busy.items()):
            if ends_at > self.clock.now:
                continue
            del self.busy[worker]
            self.db.write(
                lambda uow, job=job: jobs.settle(  # type: ignore[misc]
                    uow,
                    job_id=job.id,
                    attempt=job.attempt,
                    worker=str(job.worker),
                    outcome=jobs.Succeeded(result=make_result()),
                )
            )
            self.finished[job.id] = self.clock.now


@dataclass(frozen=True, kw_only=True)
class Told:
    job_id: int
    made_at: float
    start: Interval | None
    finish: Interval


def test_truth_lies_inside_what_was_told(db: Database, clock: FakeClock) -> None:
    rng = random.Random(20261121)
    forecast = Forecast(db, profile=load_profile("tiny"), pool="main", clock=clock)
    calibrator = Calibrator(db=db, forecast=forecast, rng=rng)
    replay = Replay(db=db, clock=clock, rng=rng)
    replay.register()
    told: list[Told] = []
    accepted: list[int] = []
    for turn in range(220):
        orders = rng.choices((0, 1, 2, 12), weights=(40, 30, 26, 4))[0]
        for _ in range(orders):
            lane, tenant_id = rng.choice((Lane.STANDARD, Lane.BATCH)), rng.randint(1, 3)
            made = make_job(db, lane=lane, tenant_id=tenant_id, est_cost_s=CLIP_S)
            accepted.append(made.id)
        replay.go_on(STEP_S)
        calibrator.step(["main"])
        for job_id in rng.sample(accepted, min(8, len(accepted))) if turn > 20 else ():
            job = db.read(lambda conn, job_id=job_id: jobs.get_by_id(conn, job_id))  # type: ignore[misc]
            assert job is not None
            outlook = forecast.outlook(job, job.progress)
            if outlook.finish is not None:
                told.append(
                    Told(
                        job_id=job.id,
                        made_at=clock.now,
                        start=outlook.start,
                        finish=outlook.finish,
                    )
                )
    while replay.busy:
        replay.go_on(STEP_S)

    starts = [
        one.start.p10 <= replay.started[one.job_id] - one.made_at <= one.start.p90
        for one in told
        if one.start is not None
    ]
    finishes = [
        one.finish.p10 <= replay.finished[one.job_id] - one.made_at <= one.finish.p90
        for one in told
    ]
    assert len(starts) > 100
    assert len(finishes) > 200
    assert sum(starts) / len(starts) >= 0.85
    assert sum(finishes) / len(finishes) >= 0.85


def test_no_prediction_is_made_where_nothing_was_measured(db: Database, clock: FakeClock) -> None:
    forecast = Forecast(db, profile=load_profile("tiny"), pool="main", clock=clock)
    make_job(db)

    noted = Calibrator(db=db, forecast=forecast, rng=random.Random(1)).step(["main"])

    assert noted == 0
