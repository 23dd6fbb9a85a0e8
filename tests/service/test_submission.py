"""From an order to a durable job: what is written, what is refused, when workers hear of it."""

from pathlib import Path

import pytest

from tests.builders import FakeClock, make_database
from vidmill.domain.clip import Resolution
from vidmill.domain.errors import InvalidRequest, PermissionDenied, QueueFull, ServiceUnavailable
from vidmill.domain.job import JobState, Lane
from vidmill.domain.order import Limits, Order
from vidmill.domain.ports import Inbox
from vidmill.profiles import load_profile
from vidmill.services.access import Caller
from vidmill.services.forecast import Forecast
from vidmill.services.submission import Submission
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
CALLER = Caller(key_id=1, tenant_id=1, tenant="default", is_vip=False)
VIP = Caller(key_id=2, tenant_id=2, tenant="tenant-2", is_vip=True)


class Tickets:
    """Notes each ticket and how many jobs the database held when it was sent."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.seen: list[tuple[str, int]] = []

    def publish(self, pool: str) -> None:
        held = self._db.read(lambda conn: len(jobs.page(conn, 1, limit=10)))
        self.seen.append((pool, held))

    def listen(self, pool: str, worker: str) -> Inbox[str]:
        raise NotImplementedError

    def close(self) -> None: ...


@pytest.fixture
def tickets(db: Database) -> Tickets:
    return Tickets(db)


@pytest.fixture
def submission(db: Database, tickets: Tickets, clock: FakeClock) -> Submission:
    forecast = Forecast(db, profile=TINY, pool="main", clock=clock)
    return Submission(
        db=db, tickets=tickets, forecast=forecast, limits=LIMITS, profile=TINY, pool="main"
    )


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
        submission.submit(Order(prompt="a ball"), CALLER)

    assert (count(db), len(tickets.seen)) == (1, 1)
    assert submission.submit(Order(prompt="a ball"), VIP).state is JobState.QUEUED


def test_a_database_without_writes_takes_no_orders(
    tmp_path: Path, clock: FakeClock, tickets: Tickets
) -> None:
    (tmp_path / "other").mkdir()
    db = make_database(tmp_path / "other", clock)
    forecast = Forecast(db, profile=TINY, pool="main", clock=clock)
    submission = Submission(
        db=db, tickets=tickets, forecast=forecast, limits=LIMITS, profile=TINY, pool="main"
    )
    db.close()

    with pytest.raises(ServiceUnavailable):
        submission.submit(Order(prompt="a ball"), CALLER)

    assert tickets.seen == []


def test_what_a_job_costs_is_first_guessed_and_then_learnt(
    submission: Submission, db: Database, clock: FakeClock
) -> None:
    from tests.builders import make_result

    guessed = submission.submit(Order(prompt="a ball"), CALLER)
    db.write(lambda uow: jobs.claim(uow, pool="main", worker="w", lease_s=30.0))
    done = make_result(timings_s={"denoising": 40.0, "decoding": 2.0})
    clock.advance(50)
    db.write(
        lambda uow: jobs.settle(
            uow, job_id=guessed.id, attempt=1, worker="w", outcome=jobs.Succeeded(result=done)
        )
    )

    learnt = submission.submit(Order(prompt="a ball"), CALLER)

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
