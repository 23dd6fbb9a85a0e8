"""Many transactions at once: one outcome each, no counter adrift, the ledger exact."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from tests.builders import make_new_job, make_result
from vidmill.domain.job import TERMINAL, Job, JobState, Lane, RetryPolicy
from vidmill.store import jobs, ledger
from vidmill.store.session import Connection, Database

T = TypeVar("T")
THREADS = 8
TTL_S = 3600.0
DONE = jobs.Succeeded(result=make_result())


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what *calls* return, made by up to `THREADS` threads that start together."""
    count = min(THREADS, len(calls))
    start = threading.Barrier(count, timeout=30.0)
    with ThreadPoolExecutor(count, initializer=start.wait) as threads:
        futures = [threads.submit(call) for call in calls]
    return [future.result() for future in futures]


def around(call: Callable[[], object], middle: Callable[[], object]) -> list[Callable[[], object]]:
    return [call, call, call, middle, call, call, call]


def order(db: Database, **changes: object) -> Job:
    new = make_new_job(**{"cache_key": "k", "price_credits": 30, **changes})
    return db.write(lambda uow: jobs.insert(uow, new, cache_ttl_s=TTL_S))


def claim(db: Database, worker: str = "w1") -> Job | None:
    return db.write(
        lambda uow: jobs.claim(uow, pool="main", worker=worker, lease_s=30.0, profile="tiny")
    )


def claimed(db: Database) -> Job:
    job = claim(db)
    assert job is not None
    return job


def settle(db: Database, job: Job, outcome: jobs.Outcome) -> jobs.Settled | None:
    return db.write(
        lambda uow: jobs.settle(
            uow, job_id=job.id, attempt=job.attempt, worker=job.worker or "", outcome=outcome
        )
    )


def cancel(db: Database, job: Job) -> jobs.Settled | None:
    return db.write(lambda uow: jobs.request_cancel(uow, job.public_id, job.tenant_id))


def withdraw(db: Database, job: Job) -> tuple[str, ...]:
    return db.write(lambda uow: jobs.withdraw(uow, job.id))


def all_jobs(db: Database) -> list[Job]:
    def read(conn: Connection) -> list[Job]:
        return [job for tenant in (1, 2, 3) for job in jobs.page(conn, tenant, limit=5000)]

    return db.read(read)


def assert_books_agree(db: Database) -> None:
    assert not db.read(jobs.find_drift)
    assert db.read(ledger.audit) == []


def drain(db: Database) -> None:
    while (job := claim(db)) is not None:
        settle(db, job, DONE)


def test_200_identical_requests_at_once_have_one_leader_and_all_end_with_its_clip(
    db: Database,
) -> None:
    found = at_once([lambda: order(db)] * 200)
    assert Counter(job.state for job in found) == {JobState.QUEUED: 1, JobState.FOLLOWING: 199}
    run = claimed(db)
    settled = settle(db, run, DONE)
    assert settled is not None
    assert len(settled.followers) == 199
    assert {job.state for job in all_jobs(db)} == {JobState.SUCCEEDED}
    assert all(job.result == DONE.result for job in all_jobs(db))
    assert_books_agree(db)


def test_requests_racing_the_end_of_their_leader_all_end(db: Database) -> None:
    for number in range(20):
        key = f"k{number}"
        order(db, cache_key=key)
        run = claimed(db)
        calls: list[Callable[[], object]] = [
            *[partial(order, db, cache_key=key)] * 4,
            partial(settle, db, run, DONE),
            *[partial(order, db, cache_key=key)] * 4,
        ]
        at_once(calls)
    assert {job.state for job in all_jobs(db)} == {JobState.SUCCEEDED}
    assert_books_agree(db)


def test_requests_racing_the_cancel_of_their_leader_find_a_successor(db: Database) -> None:
    for number in range(20):
        key = f"k{number}"
        leader = order(db, cache_key=key)
        at_once(around(partial(order, db, cache_key=key), partial(cancel, db, leader)))
    states = Counter(job.state for job in all_jobs(db))
    assert states == {JobState.CANCELLED: 20, JobState.QUEUED: 20, JobState.FOLLOWING: 100}
    assert_books_agree(db)
    drain(db)
    assert {job.state for job in all_jobs(db)} == {JobState.CANCELLED, JobState.SUCCEEDED}
    assert_books_agree(db)


def test_300_cancels_racing_completions_give_one_outcome_each(db: Database) -> None:
    for number in range(300):
        order(db, cache_key=None, tenant_id=1 + number % 3, lane=Lane(number % 3))
    runs = [claimed(db) for _ in range(300)]

    def end(job: Job) -> jobs.Settled | None:
        outcomes: list[jobs.Outcome] = [DONE, jobs.Requeued(), jobs.Cancelled()]
        return settle(db, job, random.choice(outcomes))

    calls = [partial(end, job) for job in runs]
    calls += [partial(cancel, db, job) for job in runs]
    random.Random(1).shuffle(calls)
    at_once(calls)
    assert len(all_jobs(db)) == 300
    assert_books_agree(db)
    drain(db)
    assert {job.state for job in all_jobs(db)} <= TERMINAL
    assert_books_agree(db)


def test_late_writes_of_zombies_change_nothing(db: Database) -> None:
    for _ in range(50):
        order(db, cache_key=None)
    zombies = [claimed(db) for _ in range(50)]
    db.write(jobs.release_dead)
    owners = [claim(db, "w2") for _ in range(50)]
    outcomes: list[jobs.Outcome] = [DONE, jobs.Requeued(), jobs.Cancelled()]
    outcomes.append(jobs.Failed(code="x", message=""))
    late = [partial(settle, db, job, outcomes[n % 4]) for n, job in enumerate(zombies)]
    own = [partial(settle, db, job, DONE) for job in owners if job]
    ended = at_once([call for pair in zip(late, own, strict=True) for call in pair])
    assert ended[::2] == [None] * 50
    assert all(settled and settled.state is JobState.SUCCEEDED for settled in ended[1::2])
    assert_books_agree(db)


def test_erasing_racing_answers_takes_no_files_away_from_one(db: Database) -> None:
    for number in range(20):
        key = f"k{number}"
        order(db, cache_key=key)
        settled = settle(db, claimed(db), DONE)
        assert settled is not None
        original = settled.job
        gone = at_once(around(partial(order, db, cache_key=key), partial(withdraw, db, original)))
        answered = [job for job in gone if isinstance(job, Job) and job.files_of]
        assert bool(answered) != bool(gone[3])
        drain(db)


def test_two_erased_at_once_leave_no_files_behind(db: Database) -> None:
    for number in range(20):
        key = f"k{number}"
        order(db, cache_key=key)
        settled = settle(db, claimed(db), DONE)
        assert settled is not None
        shown = [settled.job, *(order(db, cache_key=key) for _ in range(3))]
        gone = at_once([partial(withdraw, db, job) for job in shown])
        assert sorted(gone) == [(), (), (), (settled.job.public_id,)]


def test_all_that_happens_to_jobs_at_once_leaves_the_books_in_order(db: Database) -> None:
    chance = random.Random(7)

    def accept() -> object:
        pool, lane = chance.choice(["main", "other"]), chance.choice(list(Lane))
        tenant, key = chance.randint(1, 3), chance.choice([None, "a", "b", "c"])
        return order(db, pool=pool, lane=lane, tenant_id=tenant, cache_key=key)

    def work() -> object:
        job = claim(db)
        outcomes: list[jobs.Outcome] = [DONE, jobs.Cancelled(), jobs.Requeued()]
        outcomes.append(jobs.Failed(code="x", message=""))
        outcomes.append(jobs.Delayed(not_before=0.0, code="x", message=""))
        return job and settle(db, job, chance.choice(outcomes))

    def interfere() -> object:
        waiting = [job for job in all_jobs(db) if job.state not in TERMINAL]
        if not waiting:
            return None
        job = chance.choice(waiting)
        db.write(lambda uow: jobs.run_next(uow, job.public_id, job.tenant_id, job.user_id))
        return cancel(db, job)

    def accept_many() -> object:
        news = [make_new_job(cache_key=chance.choice(["a", "b", None])) for _ in range(20)]
        return db.write(lambda uow: jobs.insert_many(uow, news, TTL_S))

    def tend() -> object:
        db.write(lambda uow: jobs.release_dead(uow, dead=[]))
        db.write(jobs.promote)
        return db.write(
            lambda uow: jobs.sweep(
                uow, policy=RetryPolicy(), jitter=lambda: 0.5, time_limit_s=-100.0
            )
        )

    weights = {accept: 60, work: 40, interfere: 15, accept_many: 5, tend: 5}
    at_once(chance.choices(list(weights), list(weights.values()), k=600))
    assert_books_agree(db)
