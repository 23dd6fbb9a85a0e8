"""Identical requests: who is rendered, who follows, who is answered, and whose files stay."""

import pytest

from tests import ledgers
from tests.builders import FakeClock, make_job, make_new_job, make_result
from tests.claims import settle, take
from vidmill.domain.errors import QueueFull, QuotaExceeded
from vidmill.domain.job import Job, JobState, Lane, Phase
from vidmill.store import accounts, jobs, ledger
from vidmill.store.session import Database

TTL_S = 3600.0


def order(db: Database, **changes: object) -> Job:
    """Accept one of many identical requests."""
    new = make_new_job(
        **{"cache_key": "k", "price_credits": 30, "cached_price_credits": 3, **changes}
    )
    return db.write(lambda uow: jobs.insert(uow, new, cache_ttl_s=TTL_S))


def make_clip(db: Database, **changes: object) -> Job:
    order(db, **changes)
    return settle(db, take(db), jobs.Succeeded(result=make_result())).job


def cancel(db: Database, job: Job) -> jobs.Settled:
    settled = db.write(lambda uow: jobs.request_cancel(uow, job.public_id, job.tenant_id))
    assert settled is not None
    return settled


def read(db: Database, job: Job) -> Job:
    found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert found is not None
    return found


def entries(db: Database, job: Job) -> list[tuple[str, int]]:
    return db.read(lambda conn: ledgers.entries(conn, job.id))


class TestFollowing:
    def test_identical_request_follows_the_one_under_way(self, db: Database) -> None:
        leader, follower = order(db), order(db)
        assert (follower.state, follower.leader_id) == (JobState.FOLLOWING, leader.id)
        assert follower == read(db, follower)

    @pytest.mark.parametrize(
        "changes", [{"cache_key": "other"}, {"cache_key": None}, {"tenant_id": 2}], ids=str
    )
    def test_other_requests_do_not(self, db: Database, changes: dict[str, object]) -> None:
        order(db)
        assert order(db, **changes).state is JobState.QUEUED

    def test_followers_are_never_claimed(self, db: Database) -> None:
        leader, _ = order(db), order(db)
        assert take(db).id == leader.id
        again = db.write(
            lambda uow: jobs.claim(uow, pool="main", worker="w2", lease_s=30.0, profile="tiny")
        )
        assert again is None

    def test_faster_lane_does_not_wait_in_a_slower_one(self, db: Database) -> None:
        order(db, lane=Lane.BATCH)
        assert order(db, lane=Lane.VIP).state is JobState.QUEUED

    def test_faster_lane_follows_what_runs_already(self, db: Database) -> None:
        order(db, lane=Lane.BATCH)
        take(db)
        assert order(db, lane=Lane.VIP).state is JobState.FOLLOWING

    def test_followers_succeed_with_the_leaders_files(self, db: Database, clock: FakeClock) -> None:
        leader, *followers = order(db), order(db), order(db)
        run = take(db)
        clock.advance(9.0)
        settled = settle(db, run, jobs.Succeeded(result=make_result()))
        assert [job.id for job in settled.followers] == [job.id for job in followers]
        for job in followers:
            after = read(db, job)
            assert (after.state, after.phase) == (JobState.SUCCEEDED, Phase.DONE)
            assert (after.result, after.files_of) == (make_result(), leader.public_id)
            assert after.finished_at == clock.now

    def test_followers_fail_with_the_leaders_error(self, db: Database) -> None:
        order(db)
        follower = order(db)
        settle(db, take(db), jobs.Failed(code="bad_output", message="Black."))
        after = read(db, follower)
        assert (after.state, after.error_code) == (JobState.FAILED, "bad_output")
        assert (after.error_message, after.files_of) == ("Black.", None)

    @pytest.mark.parametrize(
        "outcome",
        [jobs.Requeued(), jobs.Delayed(not_before=9e9, code="worker_lost", message="Lost.")],
        ids=["requeued", "delayed"],
    )
    def test_followers_wait_for_the_next_run(self, db: Database, outcome: jobs.Outcome) -> None:
        order(db)
        follower = order(db)
        assert settle(db, take(db), outcome).followers == ()
        assert read(db, follower).state is JobState.FOLLOWING

    def test_cancelled_follower_touches_nobody_else(self, db: Database) -> None:
        leader, follower, other = order(db), order(db), order(db)
        assert cancel(db, follower).followers == ()
        assert read(db, follower).state is JobState.CANCELLED
        states = (read(db, leader).state, read(db, other).state)
        assert states == (JobState.QUEUED, JobState.FOLLOWING)

    def test_oldest_follower_succeeds_a_waiting_leader_that_is_cancelled(
        self, db: Database
    ) -> None:
        leader, heir, other = order(db), order(db, lane=Lane.VIP), order(db)
        heir = order(db) if heir.state is JobState.QUEUED else heir
        settled = cancel(db, leader)
        (first,) = settled.followers
        assert (first.id, first.state, first.leader_id) == (other.id, JobState.QUEUED, None)
        assert read(db, heir).leader_id == first.id

    def test_oldest_follower_succeeds_a_running_leader_that_is_cancelled(
        self, db: Database
    ) -> None:
        leader, heir, other = order(db), order(db, user_id=9), order(db)
        run = take(db)
        assert cancel(db, leader).followers == ()
        settled = settle(db, run, jobs.Cancelled())
        assert [job.id for job in settled.followers] == [heir.id]
        assert take(db).id == heir.id
        settle(db, read(db, heir), jobs.Succeeded(result=make_result()))
        assert read(db, other).files_of == heir.public_id

    def test_lost_leader_whose_cancel_was_requested_has_a_successor(
        self, db: Database, clock: FakeClock
    ) -> None:
        leader, heir = order(db), order(db)
        take(db)
        cancel(db, leader)
        clock.advance(31.0)
        (swept,) = db.write(lambda uow: jobs.release_dead(uow, live=()))
        assert (swept.state, swept.followers) == (JobState.CANCELLED, (read(db, heir),))
        assert not db.read(jobs.find_drift)

    def test_follower_pays_as_if_rendered_since_it_may_be(self, db: Database) -> None:
        leader, heir = order(db), order(db)
        cancel(db, leader)
        settle(db, take(db), jobs.Succeeded(result=make_result()))
        assert entries(db, leader) == [("hold", 30), ("release", 30)]
        assert entries(db, heir) == [("hold", 30), ("capture", 30)]

    def test_followers_take_no_room_in_the_queue(self, db: Database) -> None:
        db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=1))
        order(db)
        assert order(db).state is JobState.FOLLOWING
        with pytest.raises(QueueFull):
            order(db, cache_key="other")


class TestAnswered:
    def test_finished_clip_answers_at_once(self, db: Database, clock: FakeClock) -> None:
        original = make_clip(db)
        clock.advance(5.0)
        job = order(db)
        assert (job.state, job.files_of) == (JobState.SUCCEEDED, original.public_id)
        assert (job.result, job.finished_at) == (original.result, clock.now)
        assert job == read(db, job)
        assert entries(db, job) == [("hold", 3), ("capture", 3)]

    def test_old_clip_answers_no_more(self, db: Database, clock: FakeClock) -> None:
        make_clip(db)
        clock.advance(TTL_S + 1.0)
        assert order(db).state is JobState.QUEUED

    def test_no_lifetime_no_answer(self, db: Database) -> None:
        make_clip(db)
        assert make_job(db, cache_key="k").state is JobState.QUEUED

    def test_answers_lengthen_no_life(self, db: Database, clock: FakeClock) -> None:
        make_clip(db)
        clock.advance(TTL_S - 1.0)
        assert order(db).state is JobState.SUCCEEDED
        clock.advance(2.0)
        assert order(db).state is JobState.QUEUED

    def test_failed_clip_answers_nobody(self, db: Database) -> None:
        order(db)
        settle(db, take(db), jobs.Failed(code="bad_output", message="Black."))
        assert order(db).state is JobState.QUEUED


class TestErasing:
    def withdraw(self, db: Database, job: Job) -> tuple[str, ...]:
        return db.write(lambda uow: jobs.withdraw(uow, job.id))

    def erase(self, db: Database, job: Job) -> tuple[str, ...]:
        prefixes = self.withdraw(db, job)
        db.write(lambda uow: jobs.erase(uow, job.id))
        return prefixes

    def test_files_go_with_the_only_job_that_shows_them(self, db: Database) -> None:
        job = make_clip(db)
        assert self.erase(db, job) == (job.public_id,)
        assert order(db).state is JobState.QUEUED

    def test_files_stay_until_the_last_job_that_shows_them_goes(self, db: Database) -> None:
        original = make_clip(db)
        answers = [order(db), order(db)]
        assert self.erase(db, original) == ()
        assert self.erase(db, answers[0]) == ()
        assert self.erase(db, answers[1]) == (original.public_id,)

    def test_answer_goes_and_leaves_the_originals_files(self, db: Database) -> None:
        make_clip(db)
        assert self.erase(db, order(db)) == ()
        assert order(db).state is JobState.SUCCEEDED

    def test_clip_that_is_being_erased_answers_nobody(self, db: Database) -> None:
        self.withdraw(db, make_clip(db))
        assert order(db).state is JobState.QUEUED

    def test_failure_half_way_can_be_tried_again(self, db: Database) -> None:
        job = make_clip(db)
        assert self.withdraw(db, job) == self.withdraw(db, job) == (job.public_id,)

    def test_erased_job_has_nothing_left_to_withdraw(self, db: Database) -> None:
        job = make_clip(db)
        self.erase(db, job)
        assert self.withdraw(db, job) == ()

    def test_bill_outlives_the_job(self, db: Database) -> None:
        job = make_clip(db)
        self.erase(db, job)
        assert db.read(lambda conn: ledgers.balance(conn, 1)) == ledgers.Balance(
            held=0, captured=30
        )
        assert entries(db, job) == [("hold", 30), ("capture", 30)]


class TestMany:
    def accept(self, db: Database, *news: jobs.NewJob) -> list[Job]:
        return db.write(lambda uow: jobs.insert_many(uow, news, cache_ttl_s=TTL_S))

    def test_batch_is_accepted_row_by_row_in_its_order(self, db: Database) -> None:
        make_clip(db, cache_key="made")
        leader = order(db, cache_key="led")
        keys = [None, "made", "led", "new", "new", None]
        found = self.accept(db, *(make_new_job(cache_key=key) for key in keys))
        assert [job.state for job in found] == [
            JobState.QUEUED,
            JobState.SUCCEEDED,
            JobState.FOLLOWING,
            JobState.QUEUED,
            JobState.FOLLOWING,
            JobState.QUEUED,
        ]
        assert (found[2].leader_id, found[4].leader_id) == (leader.id, found[3].id)
        assert found == [read(db, job) for job in found]
        assert not db.read(jobs.find_drift)
        assert db.read(ledger.audit) == []

    def test_faster_row_does_not_wait_behind_a_slower_one(self, db: Database) -> None:
        order(db, cache_key="led", lane=Lane.BATCH)
        lanes = [("led", Lane.VIP), ("new", Lane.BATCH), ("new", Lane.VIP), ("new", Lane.BATCH)]
        found = self.accept(db, *(make_new_job(cache_key=key, lane=lane) for key, lane in lanes))
        assert [job.state for job in found] == [JobState.QUEUED] * 3 + [JobState.FOLLOWING]

    def test_batch_that_does_not_fit_is_refused_whole(self, db: Database) -> None:
        db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=3))
        waiting = make_job(db)
        with pytest.raises(QueueFull):
            self.accept(db, *(make_new_job() for _ in range(3)))
        assert db.read(lambda conn: jobs.page(conn, 1, limit=9)) == [waiting]

    def test_batch_that_fits_no_queue_is_a_matter_of_the_plan(self, db: Database) -> None:
        db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=2))
        with pytest.raises(QuotaExceeded, match="ask for fewer at once"):
            self.accept(db, *(make_new_job() for _ in range(3)))
        assert db.read(lambda conn: jobs.page(conn, 1, limit=9)) == []

    def test_empty_batch_is_nothing(self, db: Database) -> None:
        assert self.accept(db) == []

    def test_delayed_rows_wait_for_their_instant(self, db: Database, clock: FakeClock) -> None:
        later = make_new_job(not_before=clock.now + 60.0)
        assert [job.state for job in self.accept(db, later)] == [JobState.DELAYED]


class TestRunNext:
    def run_next(self, db: Database, job: Job, user_id: int = 1) -> Job | None:
        return db.write(lambda uow: jobs.run_next(uow, job.public_id, 1, user_id))

    def test_job_goes_before_all_others_of_its_user(self, db: Database) -> None:
        first, second, third = make_job(db), make_job(db), make_job(db)
        for job in (second, third):
            assert self.run_next(db, job) == read(db, job)
        assert [take(db).id for _ in range(3)] == [third.id, second.id, first.id]
        assert not db.read(jobs.find_drift)

    def test_first_job_stays_first(self, db: Database) -> None:
        job = make_job(db)
        assert self.run_next(db, job) == job

    def test_only_ones_own_queued_jobs_move(self, db: Database) -> None:
        job = make_job(db)
        assert self.run_next(db, job, user_id=2) is None
        take(db)
        assert self.run_next(db, job) is None
