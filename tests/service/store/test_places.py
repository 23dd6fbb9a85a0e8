"""What a waiting job is told about its place agrees with what the claims then do."""

import random

import pytest

from tests.builders import FakeClock, make_job
from vidmill.domain.job import Job, JobState, Lane
from vidmill.domain.scheduling import Place
from vidmill.store import accounts, jobs
from vidmill.store.session import Database


def claim(db: Database) -> Job | None:
    return db.write(
        lambda uow: jobs.claim(uow, pool="main", worker="w1", profile="tiny", lease_s=30.0)
    )


def place(db: Database, job: Job) -> Place | None:
    return db.read(lambda conn: jobs.position(conn, job))


def test_only_job_is_next(db: Database) -> None:
    assert place(db, make_job(db)) == Place(ahead=0, ahead_cost_s=0.0)


def test_job_that_does_not_wait_has_no_place(db: Database, clock: FakeClock) -> None:
    make_job(db)
    running = claim(db)
    assert running is not None
    make_job(db)
    assert place(db, running) is None
    assert place(db, make_job(db, not_before=clock.now + 9.0)) is None


def test_job_read_before_it_was_claimed_has_no_place(db: Database) -> None:
    stale = make_job(db)
    claim(db)
    assert place(db, stale) is None


@pytest.mark.parametrize("seed", range(8))
def test_places_are_the_order_in_which_jobs_are_claimed(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    db.write(lambda uow: accounts.ensure_tenant(uow, "tenant-2", weight=2.0))
    for tenant_id in (1, 2, 3):
        ann = db.write(lambda uow, t=tenant_id: accounts.ensure_user(uow, t, "ann", weight=2.0))  # type: ignore[misc]
        assert ann.id == tenant_id + 3
    waiting = {}
    for number in range(60):
        tenant_id = rng.randint(1, 3)
        whose = {"tenant_id": tenant_id, "user_id": tenant_id + 3 * rng.randint(0, 1)}
        job = make_job(db, **whose, lane=rng.choice(list(Lane)))
        waiting[job.id] = job
        if number % 5 == 4:
            chosen = waiting[rng.choice(list(waiting))]
            again = db.write(
                lambda uow, j=chosen: jobs.run_next(uow, j.public_id, j.tenant_id, j.user_id)  # type: ignore[misc]
            )
            assert again is not None
            waiting[again.id] = again
        if number % 4 == 3:
            taken = claim(db)
            assert taken is not None
            del waiting[taken.id]
    places = {job_id: place(db, job) for job_id, job in waiting.items()}
    order = []
    while (claimed := claim(db)) is not None:
        order.append(claimed.id)
    foreseen = {job_id: found.ahead for job_id, found in places.items() if found}
    assert foreseen == {job_id: number for number, job_id in enumerate(order)}


def test_time_ahead_adds_up_the_costs(db: Database) -> None:
    for cost_s in (10.0, 10.0, 40.0):
        make_job(db, est_cost_s=cost_s)
    last = make_job(db, est_cost_s=20.0)
    found = place(db, last)
    assert found is not None
    assert (found.ahead, found.ahead_cost_s) == (3, 60.0)


def test_snapshot_tells_the_same_places(db: Database) -> None:
    waiting = [make_job(db, tenant_id=1 + number % 3, lane=Lane(number % 2)) for number in range(9)]
    snapshot = db.read(lambda conn: jobs.queue_snapshot(conn, "main"))
    assert [snapshot.place(job) for job in waiting] == [place(db, job) for job in waiting]


def test_snapshot_knows_whom_it_saw_waiting(db: Database) -> None:
    first, second = make_job(db), make_job(db)
    snapshot = db.read(lambda conn: jobs.queue_snapshot(conn, "main", limit=1))
    later = make_job(db, tenant_id=2, user_id=2)
    assert [snapshot.has(job) for job in (first, second, later)] == [True, False, False]


def test_snapshot_places_what_came_later_as_if_it_had_been_there(db: Database) -> None:
    for _ in range(4):
        make_job(db)
    snapshot = db.read(lambda conn: jobs.queue_snapshot(conn, "main"))
    newer = [make_job(db, tenant_id=1), make_job(db, tenant_id=1), make_job(db, tenant_id=2)]
    told = [snapshot.place(newer[0]), snapshot.place(newer[1], newer=1), snapshot.place(newer[2])]
    assert [found.ahead for found in told] == [4, 5, 1]


def test_depths_count_what_waits_by_lane(db: Database, clock: FakeClock) -> None:
    started = clock.now
    for lane in (Lane.VIP, Lane.BATCH, Lane.BATCH):
        make_job(db, lane=lane, tenant_id=2 if lane is Lane.VIP else 1, est_cost_s=2.5)
        clock.advance(1.0)
    make_job(db, pool="other")
    assert db.read(lambda conn: jobs.queue_depths(conn, "main")) == {
        Lane.VIP: jobs.LaneDepth(queued=1, queued_cost_s=2.5, oldest_at=started),
        Lane.BATCH: jobs.LaneDepth(queued=2, queued_cost_s=5.0, oldest_at=started + 1.0),
    }


def test_cancelled_job_leaves_the_queue(db: Database) -> None:
    first, second = make_job(db), make_job(db)
    after = db.write(lambda uow: jobs.request_cancel(uow, first.public_id, 1))
    assert after is not None
    assert after.state is JobState.CANCELLED
    assert place(db, second) == Place(ahead=0, ahead_cost_s=0.0)
