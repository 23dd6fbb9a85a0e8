"""From an order to a durable job: what is written, what is refused, when workers hear of it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import FakeClock, make_database, make_result
from tests.callers import make_caller
from vidmill.domain.clip import Resolution
from vidmill.domain.enhancing import Enhancement
from vidmill.domain.errors import (
    EnhancerUnavailable,
    InvalidRequest,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    ServiceUnavailable,
)
from vidmill.domain.job import Job, JobState, Lane
from vidmill.domain.order import Limits, Order
from vidmill.domain.ports import TicketInbox
from vidmill.domain.pricing import Tariff
from vidmill.engines.lora_file import read_facts
from vidmill.profiles import load_profile
from vidmill.services.drafts import Drafts
from vidmill.services.forecast import Forecast
from vidmill.services.fullness import Fullness
from vidmill.services.idempotency import IdempotencyKey
from vidmill.services.loras import Loras
from vidmill.services.submission import Submission
from vidmill.storage import open_blobs
from vidmill.store import accounts, jobs
from vidmill.store.session import Database

TINY = load_profile("tiny")
LIMITS = Limits(
    prompt_max_chars=200,
    negative_prompt_max_chars=500,
    duration_min_s=3.0,
    duration_max_s=10.0,
    resolutions=(Resolution.P480, Resolution.P720),
    frame_rates=(24,),
    default_frame_rate=24,
)
CALLER = make_caller(1)
VIP = make_caller(2, user_id=2, lane=Lane.VIP)


class Tickets:
    """Notes each ticket and how many jobs the database held when it was sent."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.seen: list[tuple[str, int]] = []

    def publish(self, pool: str) -> None:
        held = self._db.read(lambda conn: len(jobs.page(conn, 1, limit=10)))
        self.seen.append((pool, held))

    def listen(self, pools: Sequence[str], worker: str) -> TicketInbox:
        raise AssertionError(f"{worker} listens to {pools}; these tickets only go out")

    def close(self) -> None: ...


@pytest.fixture
def tickets(db: Database) -> Tickets:
    return Tickets(db)


def make_submission(
    db: Database, tickets: Tickets, clock: FakeClock, *, queue_total_max: int = 100_000
) -> Submission:
    loras = Loras(
        db=db,
        blobs=open_blobs("file:///nowhere"),
        profile=TINY,
        read_facts=read_facts,
        clock=clock,
    )
    return Submission(
        db=db,
        tickets=tickets,
        forecast=Forecast(db, profile=TINY, pool="main", clock=clock),
        fullness=Fullness(db, queue_total_max=queue_total_max, clock=clock),
        drafts=Drafts(limits=LIMITS, profile=TINY, loras=loras),
        pool="main",
        tariff=Tariff(credits_per_s={Resolution.P480: 10, Resolution.P720: 25}),
        cache_ttl_s=3600.0,
    )


@pytest.fixture
def submission(db: Database, tickets: Tickets, clock: FakeClock) -> Submission:
    return make_submission(db, tickets, clock)


def count(db: Database, tenant_id: int = 1) -> int:
    return db.read(lambda conn: len(jobs.page(conn, tenant_id, limit=100)))


def test_an_order_becomes_a_queued_job(submission: Submission, db: Database) -> None:
    job = submission.submit(Order(prompt="a ball", client_reference="r"), CALLER)

    found = db.read(lambda conn: jobs.get(conn, job.public_id, 1))
    assert found == job
    assert (job.state, job.lane, job.pool) == (JobState.QUEUED, Lane.STANDARD, "main")
    assert (job.max_attempts, job.client_reference) == (4, "r")


def test_workers_hear_of_a_job_only_when_they_can_find_it(
    submission: Submission, tickets: Tickets
) -> None:
    submission.submit(Order(prompt="a ball"), CALLER)

    assert tickets.seen == [("main", 1)]


def test_a_refused_order_leaves_no_job_and_no_ticket(
    submission: Submission, db: Database, tickets: Tickets
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        submission.submit(Order(prompt="", duration_s=2.0), CALLER)

    assert [p.code for p in caught.value.problems] == ["blank", "min"]
    assert (count(db), tickets.seen) == (0, [])


def test_an_order_whose_prompt_was_to_be_enhanced_is_never_queued_without(
    submission: Submission, db: Database
) -> None:
    taking = replace(submission, drafts=replace(submission.drafts, enhance_refusal=None))

    with pytest.raises(EnhancerUnavailable):
        taking.submit(Order(prompt="a ball", enhance=True), CALLER)

    assert count(db) == 0


def test_an_enhanced_text_is_what_the_cache_goes_by(submission: Submission) -> None:
    taking = replace(submission, drafts=replace(submission.drafts, enhance_refusal=None))
    order = Order(prompt="a ball", enhance=True, seed=1)

    made = [
        taking.submit(replace(order, enhanced=Enhancement(text=text, model="m")), CALLER)
        for text in ("a red ball", "a blue ball", "a red ball")
    ]

    assert [job.spec.prompt for job in made] == ["a red ball", "a blue ball", "a red ball"]
    states = [JobState.QUEUED, JobState.QUEUED, JobState.FOLLOWING]
    assert [job.state for job in made] == states


def test_the_vip_lane_is_not_for_everybody(submission: Submission, db: Database) -> None:
    order = Order(prompt="a ball", priority="high")

    with pytest.raises(PermissionDenied):
        submission.submit(order, CALLER)

    assert count(db) == 0
    assert submission.submit(order, VIP).lane is Lane.VIP


def test_a_full_queue_takes_no_more(submission: Submission, db: Database, tickets: Tickets) -> None:
    db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=1))
    submission.submit(Order(prompt="a ball"), CALLER)

    with pytest.raises(QueueFull):
        submission.submit(Order(prompt="another ball"), CALLER)

    assert (count(db), len(tickets.seen)) == (1, 1)
    assert submission.submit(Order(prompt="a ball"), VIP).state is JobState.QUEUED


def test_a_database_without_writes_takes_no_orders(
    tmp_path: Path, clock: FakeClock, tickets: Tickets
) -> None:
    (tmp_path / "other").mkdir()
    db = make_database(tmp_path / "other", clock)
    submission = make_submission(db, tickets, clock)
    db.close()

    with pytest.raises(ServiceUnavailable):
        submission.submit(Order(prompt="a ball"), CALLER)

    assert tickets.seen == []


def test_what_a_job_costs_is_first_guessed_and_then_learnt(
    submission: Submission, db: Database, clock: FakeClock
) -> None:
    guessed = submission.submit(Order(prompt="a ball"), CALLER)
    db.write(lambda uow: jobs.claim(uow, pool="main", worker="w", profile="tiny", lease_s=30.0))
    done = make_result(timings_s={"denoising": 40.0, "decoding": 2.0})
    clock.advance(50)
    db.write(
        lambda uow: jobs.settle(
            uow, job_id=guessed.id, attempt=1, worker="w", outcome=jobs.Succeeded(result=done)
        )
    )

    learnt = submission.submit(Order(prompt="a ball", cache=False), CALLER)

    assert guessed.est_cost_s == TINY.seconds_per_step * TINY.steps
    assert learnt.est_cost_s == pytest.approx(42.0)


def test_the_request_is_kept_with_its_defaults_and_what_rules_added(
    submission: Submission,
) -> None:
    job = submission.submit(Order(prompt="a ball", metadata={"a": "b"}), CALLER)

    assert job.request["resolution"] == "720p"
    assert job.request["seed"] is None
    assert job.request["metadata"] == {"a": "b"}
    assert job.request["shaping"]["additions"] == []


def test_the_lane_is_the_lower_of_what_was_asked_and_the_plans(submission: Submission) -> None:
    frugal = make_caller(2, user_id=2, lane=Lane.BATCH)

    lanes = {
        (who.plan.lane, priority): submission.submit(
            Order(prompt="a ball", priority=priority, cache=False), who
        ).lane
        for who in (CALLER, VIP, frugal)
        for priority in ("normal", "low")
    }

    assert lanes == {
        (Lane.STANDARD, "normal"): Lane.STANDARD,
        (Lane.STANDARD, "low"): Lane.BATCH,
        (Lane.VIP, "normal"): Lane.STANDARD,
        (Lane.VIP, "low"): Lane.BATCH,
        (Lane.BATCH, "normal"): Lane.BATCH,
        (Lane.BATCH, "low"): Lane.BATCH,
    }


def test_jobs_go_to_the_first_pool_of_the_plan(submission: Submission, tickets: Tickets) -> None:
    job = submission.submit(Order(prompt="a ball"), make_caller(1, pools=("fast", "main")))

    assert job.pool == "fast"
    assert tickets.seen == [("fast", 1)]


def test_a_delivered_second_has_its_price(submission: Submission) -> None:
    small = submission.submit(Order(prompt="x", resolution="480p", duration_s=3.1), CALLER)
    large = submission.submit(Order(prompt="x", resolution="720p", duration_s=4.0), CALLER)

    assert (small.price_credits, large.price_credits) == (31, 100)


def test_an_identical_order_follows_and_wakes_nobody(
    submission: Submission, tickets: Tickets
) -> None:
    first = submission.submit(Order(prompt="a ball"), CALLER)

    second = submission.submit(Order(prompt="a ball"), CALLER)

    assert (second.state, second.leader_id) == (JobState.FOLLOWING, first.id)
    assert len(tickets.seen) == 1


@pytest.mark.parametrize("change", [{"seed": 7}, {"cache": False}, {"duration_s": 6.0}])
def test_an_order_that_differs_is_made(submission: Submission, change: dict[str, Any]) -> None:
    submission.submit(Order(prompt="a ball"), CALLER)

    other = submission.submit(Order(prompt="a ball", **change), CALLER)

    assert other.state is JobState.QUEUED


def test_the_cache_is_the_tenants_own(submission: Submission) -> None:
    submission.submit(Order(prompt="a ball"), CALLER)

    assert submission.submit(Order(prompt="a ball"), VIP).state is JobState.QUEUED


def test_all_tenants_together_have_a_limit_too(
    db: Database, tickets: Tickets, clock: FakeClock
) -> None:
    submission = make_submission(db, tickets, clock, queue_total_max=2)
    for caller in (CALLER, VIP):
        submission.submit(Order(prompt="a ball"), caller)
    clock.advance(1.5)  # the count is a second old at most

    with pytest.raises(QueueFull, match="all tenants"):
        submission.submit(Order(prompt="another"), VIP)


def test_what_was_taken_is_told_again_however_full_the_queue_is(
    db: Database, tickets: Tickets, clock: FakeClock
) -> None:
    submission = make_submission(db, tickets, clock, queue_total_max=1)
    order, key = Order(prompt="a ball"), IdempotencyKey(key="k", fingerprint="f")
    first = db.write(submission.accept(order, CALLER, key=key))
    clock.advance(1.5)

    again = db.write(submission.accept(order, CALLER, key=key))

    assert (again.job, again.is_replay) == (first.job, True)
    resent = replace(key, is_taken_over=True)
    for other in (None, replace(key, key="other"), resent):
        with pytest.raises(QueueFull, match="all tenants"):
            submission.accept(order, CALLER, key=other)


def test_of_many_orders_the_right_ones_are_queued_and_each_has_its_verdict(
    submission: Submission, db: Database, tickets: Tickets
) -> None:
    orders = [
        Order(prompt="one"),
        Order(prompt=""),
        Order(prompt="two", priority="high"),
        Order(prompt="one"),
        Order(prompt="three"),
    ]

    verdicts = db.write(submission.accept_many(orders, CALLER))

    made = [job for job in verdicts if isinstance(job, Job)]
    assert [type(verdict) for verdict in verdicts] == [
        Job,
        InvalidRequest,
        PermissionDenied,
        Job,
        Job,
    ]
    states = [job.state for job in made]
    assert states == [JobState.QUEUED, JobState.FOLLOWING, JobState.QUEUED]
    assert [job.spec.prompt for job in made] == ["one", "one", "three"]
    assert (count(db), tickets.seen) == (3, [("main", 3)])


def test_many_orders_beyond_the_limit_leave_nothing(submission: Submission, db: Database) -> None:
    db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=2))
    orders = [Order(prompt=f"ball {n}") for n in range(3)]

    with pytest.raises(QuotaExceeded, match="these are 3; ask for fewer"):
        db.write(submission.accept_many(orders, CALLER))

    assert count(db) == 0


def test_ten_thousand_orders_are_queued_within_seconds(
    submission: Submission, db: Database
) -> None:
    orders = [Order(prompt=f"a ball {number}") for number in range(10_000)]

    began = time.perf_counter()
    verdicts = db.write(submission.accept_many(orders, CALLER))
    took_s = time.perf_counter() - began

    assert all(isinstance(verdict, Job) for verdict in verdicts)
    assert took_s < 20  # 2 s on an idle machine: bench/submit_store.py measures
