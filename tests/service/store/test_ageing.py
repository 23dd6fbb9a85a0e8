"""Batch jobs that waited long take turns of the standard lane, and of that lane alone."""

from collections import Counter

import pytest

from tests.builders import FakeClock, make_job
from tests.claims import PATIENT, claim_some, succeed
from vidmill.domain.job import Lane
from vidmill.store import accounts, jobs
from vidmill.store.claim import ClaimRules
from vidmill.store.session import Database

AGE_S = 1800.0
RULES = ClaimRules(batch_age_s=AGE_S)


def served(db: Database, count: int) -> list[Lane]:
    return [claim_some(db, rules=RULES).lane for _ in range(count)]


def test_aged_batch_jobs_take_the_turns_of_younger_standard_ones(
    db: Database, clock: FakeClock
) -> None:
    for _ in range(5):
        make_job(db, lane=Lane.BATCH)
    clock.advance(AGE_S + 1.0)
    for _ in range(5):
        make_job(db, lane=Lane.STANDARD)
    assert served(db, 10) == [Lane.BATCH] * 5 + [Lane.STANDARD] * 5


def test_batch_jobs_have_no_more_than_their_share_before_that(
    db: Database, clock: FakeClock
) -> None:
    for lane in (Lane.BATCH, Lane.STANDARD):
        for _ in range(22):
            make_job(db, lane=lane)
        clock.advance(AGE_S / 2.0)
    assert Counter(served(db, 22)) == {Lane.STANDARD: 20, Lane.BATCH: 2}


def test_vip_pays_nothing_for_it(db: Database, clock: FakeClock) -> None:
    for _ in range(100):
        make_job(db, lane=Lane.BATCH)
    clock.advance(AGE_S + 1.0)
    for _ in range(222):
        make_job(db, lane=Lane.VIP)
        make_job(db, lane=Lane.STANDARD)
    assert Counter(served(db, 222)) == {Lane.VIP: 200, Lane.BATCH: 22}


@pytest.mark.parametrize("lane", [Lane.STANDARD, Lane.VIP])
def test_old_batch_job_of_a_tenant_at_his_cap_holds_nobody_up(
    db: Database, clock: FakeClock, lane: Lane
) -> None:
    make_job(db, tenant_id=2, lane=Lane.BATCH)
    make_job(db, tenant_id=2, lane=Lane.BATCH)
    clock.advance(AGE_S + 1.0)
    db.write(lambda uow: accounts.ensure_tenant(uow, "tenant-2", cap_running=1))
    assert claim_some(db, rules=RULES).tenant_id == 2
    for _ in range(10):
        make_job(db, tenant_id=1, lane=lane)
        make_job(db, tenant_id=3, lane=Lane.BATCH)  # young: the capped one's age is not theirs
    assert served(db, 10).count(lane) >= 9


CLIP_S = 100.0
PERIODS = ((Lane.VIP, 1), (Lane.STANDARD, 20), (Lane.BATCH, 33))
"""A job of the lane comes with every so many clips: VIP alone fills the pool for ever."""


def batch_waits(db: Database, clock: FakeClock, *, rules: ClaimRules) -> list[float]:
    """Return how long batch jobs waited, those still waiting among them, one GPU, 600 clips."""
    waits = []
    for step in range(600):
        for lane in (lane for lane, period in PERIODS if step % period == 0):
            make_job(db, lane=lane, tenant_id=1 + int(lane))
        job = claim_some(db, rules=rules)
        clock.advance(CLIP_S)
        succeed(db, job)
        if job.lane is Lane.BATCH and job.started_at is not None:
            waits.append(job.started_at - job.submitted_at)
    depths = db.read(lambda conn: jobs.queue_depths(conn, "main"))
    return [*waits, clock.now - depths[Lane.BATCH].oldest_at] if Lane.BATCH in depths else waits


@pytest.mark.sqlite
def test_wait_is_bounded_though_vip_work_never_ends(db: Database, clock: FakeClock) -> None:
    turn_s = 111 / 10 * CLIP_S  # of the standard lane
    waits = batch_waits(db, clock, rules=RULES)
    assert max(waits) <= AGE_S + 3 * turn_s


@pytest.mark.sqlite
def test_without_ageing_it_is_not(db: Database, clock: FakeClock) -> None:
    assert max(batch_waits(db, clock, rules=PATIENT)) > 4 * AGE_S
