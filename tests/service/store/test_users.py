"""Users of a tenant share its turn, and nobody but them notices."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.builders import FakeClock, make_database, make_job, make_new_job
from tests.claims import claim_some, jain, succeed
from vidmill.domain.job import Job
from vidmill.store import accounts, jobs
from vidmill.store.session import Database, UnitOfWork

ANN, BOB, COLLEAGUE = 1, 2, 4
"""Of tenant 1, of tenant 2, of tenant 1."""


@pytest.fixture(autouse=True)
def colleague(db: Database) -> None:
    user = db.write(lambda uow: accounts.ensure_user(uow, 1, "colleague"))
    assert user.id == COLLEAGUE


def queue(db: Database, user_ids: Sequence[int]) -> list[Job]:
    tenant_of = {ANN: 1, COLLEAGUE: 1, BOB: 2}
    return [make_job(db, tenant_id=tenant_of[user], user_id=user) for user in user_ids]


def users_served(db: Database, count: int) -> list[int]:
    return [claim_some(db).user_id for _ in range(count)]


def run_next(db: Database, job: Job, user_id: int | None = None) -> Job | None:
    whose = user_id or job.user_id
    return db.write(lambda uow: jobs.run_next(uow, job.public_id, job.tenant_id, whose))


def test_users_take_turns_whatever_one_of_them_dumps(db: Database) -> None:
    queue(db, [ANN] * 5 + [COLLEAGUE] * 2)
    assert users_served(db, 7) == [ANN, COLLEAGUE, ANN, COLLEAGUE, ANN, ANN, ANN]


def test_twice_the_weight_is_twice_the_turns(db: Database) -> None:
    db.write(lambda uow: accounts.ensure_user(uow, 1, "colleague", weight=2.0))
    queue(db, [ANN] * 20 + [COLLEAGUE] * 20)
    assert Counter(users_served(db, 18)) == {ANN: 6, COLLEAGUE: 12}


def test_user_with_costly_clips_is_served_less_often(db: Database) -> None:
    for _ in range(20):
        make_job(db, tenant_id=1, user_id=ANN, est_cost_s=30.0)
        make_job(db, tenant_id=1, user_id=COLLEAGUE, est_cost_s=10.0)
    assert Counter(users_served(db, 20)) == {ANN: 5, COLLEAGUE: 15}


def test_user_who_was_away_comes_back_without_credit(db: Database) -> None:
    queue(db, [ANN] * 30)
    users_served(db, 10)
    queue(db, [COLLEAGUE] * 10)
    assert Counter(users_served(db, 10)) == {ANN: 5, COLLEAGUE: 5}


def test_more_users_are_no_more_turns_for_their_tenant(db: Database) -> None:
    queue(db, [ANN, COLLEAGUE] * 10 + [BOB] * 20)
    assert Counter(users_served(db, 20)) == {ANN: 5, COLLEAGUE: 5, BOB: 10}


def test_job_run_next_is_the_next_of_its_user(db: Database) -> None:
    jobs_of_ann = queue(db, [ANN] * 4)
    assert run_next(db, jobs_of_ann[2]) is not None
    assert run_next(db, jobs_of_ann[3]) is not None
    served = [claim_some(db).id for _ in range(4)]
    assert served == [jobs_of_ann[n].id for n in (3, 2, 0, 1)]


def test_run_next_changes_nobody_elses_turn(db: Database) -> None:
    mine = queue(db, [ANN, COLLEAGUE, BOB, BOB] * 3)
    wanted = mine[-4]
    assert run_next(db, wanted) is not None
    served = [claim_some(db) for _ in range(12)]
    assert [job.user_id for job in served] == [ANN, BOB, COLLEAGUE, BOB] * 3
    assert served[0].id == wanted.id


def test_nobody_moves_the_job_of_a_colleague(db: Database) -> None:
    (job,) = queue(db, [ANN])
    assert run_next(db, job, COLLEAGUE) is None


def test_job_given_back_keeps_the_place_its_user_wants(db: Database) -> None:
    first, second = queue(db, [ANN] * 2)
    run_next(db, second)
    taken = claim_some(db)
    db.write(
        lambda uow: jobs.settle(
            uow, job_id=taken.id, attempt=1, worker="w1", outcome=jobs.Requeued()
        )
    )
    assert [claim_some(db).id, claim_some(db).id] == [second.id, first.id]


@pytest.mark.sqlite
def test_fifty_tenants_are_served_alike_though_one_owns_half_of_two_thousand_jobs(
    tmp_path: Path,
) -> None:
    db = make_database(tmp_path, FakeClock(), tenant_count=50)

    def submit(uow: UnitOfWork) -> None:
        small = [tenant for tenant in range(2, 51) for _ in range(20)]
        for tenant_id in [1] * 1000 + small:
            jobs.insert(uow, make_new_job(tenant_id=tenant_id))

    db.write(submit)
    served: Counter[int] = Counter()
    for _ in range(50 * 20):
        job = claim_some(db)
        served[job.tenant_id] += 1
        succeed(db, job)
    db.close()
    shares = [served[tenant] for tenant in range(1, 51)]
    assert jain(shares) >= 0.98
