"""The outbox: what gets into it by itself, and how it is worked off."""

from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, event

from tests.builders import START, FakeClock, make_job, make_new_job, make_result
from tests.outboxes import (
    default_of,
    end,
    endpoint_now,
    make_endpoint,
    outbox,
    record,
    take,
)
from vidmill.domain.webhook import (
    ENDPOINT_TYPES,
    NATIVE_TYPES,
    DeliveryState,
    EventType,
    Reply,
    Verdict,
)
from vidmill.store import deliveries, jobs, webhooks
from vidmill.store.deliveries import LOG_AT_ONCE
from vidmill.store.session import Database, UnitOfWork

FAILED = jobs.Failed(code="bad_output", message="black")
OK = Reply(took_s=0.1, status=200)
OWN_URL = "https://own.example/x"


def told(db: Database, endpoint: webhooks.Endpoint) -> list[tuple[str, str]]:
    return [(delivery.type.value, delivery.subject) for delivery in outbox(db, endpoint)]


def settle(db: Database, delivery: deliveries.Delivery, **verdict: Any) -> bool:
    made = Verdict(**{"state": DeliveryState.DELIVERED, **verdict})
    return db.write(lambda uow: deliveries.settle(uow, delivery, OK, made))


def ready(db: Database) -> list[int]:
    return db.read(lambda conn: [e.id for e in deliveries.ready(conn, now=db.now(), limit=64)])


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (jobs.Succeeded(result=make_result()), {"t2v.task.completed", "video.completed"}),
        (FAILED, {"t2v.task.failed", "video.failed"}),
        (jobs.Cancelled(), {"t2v.task.cancelled", "video.failed"}),
    ],
)
def test_end_of_a_task_is_told_in_each_word_the_endpoint_wants(
    db: Database, outcome: jobs.Outcome, expected: set[str]
) -> None:
    endpoint = make_endpoint(db, events=ENDPOINT_TYPES)
    job = make_job(db)
    end(db, job, outcome)
    assert set(told(db, endpoint)) == {(name, job.public_id) for name in expected}


def test_only_what_is_wanted_is_told(db: Database) -> None:
    endpoint = make_endpoint(db, events=[EventType.TASK_FAILED])
    end(db, make_job(db), jobs.Succeeded(result=make_result()))
    failing = make_job(db)
    end(db, failing, FAILED)
    assert told(db, endpoint) == [("t2v.task.failed", failing.public_id)]


def test_task_that_is_tried_again_is_not_told_of(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    job = make_job(db)
    end(db, job, jobs.Delayed(not_before=clock.now + 10, code="engine_failed", message="hot"))
    assert told(db, endpoint) == []


def test_cancelling_a_queued_task_is_told(db: Database) -> None:
    endpoint = make_endpoint(db)
    job = make_job(db)
    db.write(lambda uow: jobs.request_cancel(uow, job.public_id, 1))
    assert told(db, endpoint) == [("t2v.task.cancelled", job.public_id)]


def test_every_endpoint_gets_its_own_delivery(db: Database) -> None:
    first, second = make_endpoint(db), make_endpoint(db)
    end(db, make_job(db), FAILED)
    ids = {delivery.public_id for e in (first, second) for delivery in outbox(db, e)}
    assert len(ids) == 2
    assert all(name.startswith("msg_") and "." not in name for name in ids)


def test_other_tenants_endpoints_hear_nothing(db: Database) -> None:
    other = make_endpoint(db, tenant_id=2)
    end(db, make_job(db), FAILED)
    assert (told(db, other), told(db, default_of(db, 2))) == ([], [])


def test_endpoint_that_is_switched_off_is_not_told(db: Database) -> None:
    endpoint = make_endpoint(db)
    db.write(lambda uow: webhooks.change(uow, endpoint.id, {"is_enabled": False}))
    end(db, make_job(db), FAILED)
    assert told(db, endpoint) == []


def test_followers_and_the_leader_are_each_told_of(db: Database) -> None:
    endpoint = make_endpoint(db)
    leader = make_job(db, cache_key="same")
    follower = make_job(db, cache_key="same")
    end(db, leader, jobs.Succeeded(result=make_result()))
    expected = {("t2v.task.completed", job.public_id) for job in (leader, follower)}
    assert set(told(db, endpoint)) == expected


def test_task_answered_from_the_cache_is_told_of_though_it_never_ran(db: Database) -> None:
    endpoint = make_endpoint(db, events=ENDPOINT_TYPES)
    end(db, make_job(db, cache_key="same"), jobs.Succeeded(result=make_result()))
    new = make_new_job(cache_key="same", request={"webhook_url": OWN_URL})
    cached = db.write(lambda uow: jobs.insert(uow, new, cache_ttl_s=3600))
    assert {name for name, subject in told(db, endpoint) if subject == cached.public_id} == {
        "t2v.task.completed",
        "video.completed",
    }
    assert [(d.type, d.url) for d in outbox(db, default_of(db))] == [
        (EventType.TASK_COMPLETED, OWN_URL)
    ]


def test_many_tasks_answered_at_once_are_each_told_of(db: Database) -> None:
    endpoint = make_endpoint(db)
    end(db, make_job(db, cache_key="same"), jobs.Succeeded(result=make_result()))
    news = [make_new_job(cache_key="same") for _ in range(3)]
    db.write(lambda uow: jobs.insert_many(uow, news, cache_ttl_s=3600))
    assert len(told(db, endpoint)) == 4


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (jobs.Succeeded(result=make_result()), EventType.TASK_COMPLETED),
        (FAILED, EventType.TASK_FAILED),
        (jobs.Cancelled(), EventType.TASK_CANCELLED),
    ],
)
def test_url_of_a_task_is_told_by_way_of_the_default_endpoint(
    db: Database, outcome: jobs.Outcome, expected: EventType
) -> None:
    end(db, make_job(db, request={"webhook_url": OWN_URL}), outcome)
    assert [(d.type, d.url) for d in outbox(db, default_of(db))] == [(expected, OWN_URL)]


@pytest.mark.parametrize("request_", [{}, {"webhook_url": None}])
def test_task_without_a_url_leaves_the_default_endpoint_alone(
    db: Database, request_: dict[str, Any]
) -> None:
    end(db, make_job(db, request=request_), FAILED)
    assert told(db, default_of(db)) == []


def test_each_tenant_has_a_secret_of_its_own_from_the_start(db: Database) -> None:
    keys = [default_of(db, tenant).keys(0.0) for tenant in (1, 2, 3)]
    assert len(set(keys)) == 3
    assert all(len(key) == 32 for (key,) in keys)


def test_end_that_is_rolled_back_is_not_told(db: Database) -> None:
    endpoint = make_endpoint(db)
    job = make_job(db)

    def cancel_and_fail(uow: Any) -> None:
        jobs.request_cancel(uow, job.public_id, 1)
        raise LookupError

    with pytest.raises(LookupError):
        db.write(cancel_and_fail)
    assert told(db, endpoint) == []


def test_batch_is_told_to_who_wants_it_and_to_its_own_url(db: Database) -> None:
    wanting = make_endpoint(db)
    indifferent = make_endpoint(db, events=[EventType.TASK_COMPLETED])
    record(db, "bat_1", url=OWN_URL)
    assert told(db, wanting) == [("t2v.batch.completed", "bat_1")]
    assert told(db, indifferent) == []
    assert [(d.subject, d.url) for d in outbox(db, default_of(db))] == [("bat_1", OWN_URL)]


# Working it off.


def test_what_is_taken_is_not_taken_again_until_its_lease_ends(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    [first] = take(db, endpoint)
    assert (take(db, endpoint), ready(db)) == ([], [])
    clock.advance(61)
    [second] = take(db, endpoint)
    assert (first.attempts, second.attempts, first.public_id) == (1, 2, second.public_id)


def test_who_lost_his_lease_records_nothing(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    [first] = take(db, endpoint)
    clock.advance(61)
    [second] = take(db, endpoint)
    assert (settle(db, first), settle(db, second)) == (False, True)
    [delivery] = outbox(db, endpoint)
    assert [entry["attempt"] for entry in delivery.log] == [2]


def test_those_due_longest_are_taken_first_and_no_more_than_asked(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db)
    for number in range(5):
        record(db, f"bat_{number}")
        clock.advance(1)
    assert sorted(d.subject for d in take(db, endpoint, limit=2)) == ["bat_0", "bat_1"]


def test_what_was_delivered_is_over_and_in_the_log(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    [delivery] = take(db, endpoint)
    settle(db, delivery)
    [found] = outbox(db, endpoint)
    assert (found.state, found.ended_at) == (DeliveryState.DELIVERED, clock.now)
    assert found.log == [
        {"attempt": 1, "at": clock.now, "status": 200, "error": None, "took_s": 0.1}
    ]


def test_what_failed_is_due_again_after_its_delay(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    [delivery] = take(db, endpoint)
    settle(db, delivery, state=DeliveryState.PENDING, delay_s=300)
    clock.advance(299)
    assert ready(db) == []
    clock.advance(1)
    assert ready(db) == [endpoint.id]


def test_log_keeps_the_last_twenty_attempts(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    for _ in range(25):
        [delivery] = take(db, endpoint)
        settle(db, delivery, state=DeliveryState.PENDING, delay_s=1)
        clock.advance(2)
    [found] = outbox(db, endpoint)
    assert [entry["attempt"] for entry in found.log] == list(range(6, 26))


def test_endpoint_that_rests_or_is_off_is_not_ready(db: Database, clock: FakeClock) -> None:
    resting, off = make_endpoint(db), make_endpoint(db)
    record(db, "bat_1")
    db.write(lambda uow: webhooks.note_failure(uow, resting.id, rest_s=30))
    db.write(lambda uow: webhooks.change(uow, off.id, {"is_enabled": False}))
    assert ready(db) == []
    clock.advance(30)
    assert ready(db) == [resting.id]


def test_redelivery_keeps_the_id_and_begins_a_new_round(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    [first] = take(db, endpoint)
    settle(db, first, state=DeliveryState.DEAD)
    clock.advance(10)
    db.write(lambda uow: deliveries.redeliver(uow, first.id))
    [again] = take(db, endpoint)
    assert (again.public_id, again.attempts, again.tries) == (first.public_id, 2, 1)
    assert again.ended_at is None


def test_replay_reaches_back_to_its_instant_and_to_its_types(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db)
    for number in range(3):
        record(db, f"bat_{number}")
        clock.advance(10)
    end(db, make_job(db), FAILED)
    for delivery in take(db, endpoint):
        settle(db, delivery)
    since = clock.now - 20
    told_again = db.write(
        lambda uow: deliveries.redeliver_since(
            uow, endpoint.id, since=since, types=[EventType.BATCH_COMPLETED], limit=10
        )
    )
    assert told_again == [since, since + 10]
    assert sorted(d.subject for d in take(db, endpoint)) == ["bat_1", "bat_2"]


def test_what_ended_before_the_endpoint_was_there_is_found_untold(
    db: Database, clock: FakeClock
) -> None:
    early, late = make_job(db), make_job(db)
    end(db, early, FAILED)
    clock.advance(10)
    since = clock.now
    end(db, late, FAILED)
    endpoint = make_endpoint(db)
    asked: dict[str, Any] = {"since": since, "types": NATIVE_TYPES, "limit": 10}
    missed = db.read(lambda conn: deliveries.untold(conn, endpoint, **asked))
    assert missed == [(EventType.TASK_FAILED, late.public_id, since)]
    db.write(lambda uow: deliveries.add(uow, endpoint, missed))
    assert told(db, endpoint) == [("t2v.task.failed", late.public_id)]
    assert db.read(lambda conn: deliveries.untold(conn, endpoint, **asked)) == []


def test_looking_for_what_is_untold_reads_what_ended_since(db: Database) -> None:
    endpoint = make_endpoint(db)

    def plan(conn: Connection) -> str:
        asked: list[tuple[Any, Any]] = []

        @event.listens_for(conn, "before_cursor_execute")
        def note(*call: Any) -> None:
            asked.append(call[2:4])

        types = [EventType.TASK_COMPLETED]
        deliveries.untold(conn, endpoint, since=START, types=types, limit=10)
        event.remove(conn, "before_cursor_execute", note)
        [(statement, values)] = asked
        if conn.dialect.name == "postgresql":  # else it reads a table of one page at once
            conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
            return str(conn.exec_driver_sql(f"EXPLAIN {statement}", values).all())
        return str(conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all())

    assert "jobs_ended" in db.read(plan)


def test_log_forgets_what_is_a_month_old_and_what_no_endpoint_is_left_for(
    db: Database, clock: FakeClock
) -> None:
    gone, endpoint = make_endpoint(db), make_endpoint(db)
    record(db, "bat_old")
    clock.advance(deliveries.KEPT_S + 1)
    record(db, "bat_new")
    db.write(
        lambda uow: [
            uow.conn.exec_driver_sql(f"DELETE FROM webhook_endpoints WHERE id = {gone.id}")
        ]
    )
    ids = db.read(lambda conn: deliveries.forgettable(conn, now=clock.now))
    db.write(lambda uow: deliveries.forget(uow, ids))
    assert [d.subject for d in outbox(db, endpoint)] == ["bat_new"]
    assert outbox(db, gone) == []


def test_log_of_an_endpoint_is_deleted_part_by_part_and_no_other(db: Database) -> None:
    endpoint, other = make_endpoint(db), make_endpoint(db)
    events = [(EventType.TASK_COMPLETED, f"t2v_{n}", 0.0) for n in range(LOG_AT_ONCE + 1)]

    def fill(uow: UnitOfWork) -> None:
        for one in (endpoint, other):
            deliveries.add(uow, one, events)

    db.write(fill)
    db.write(lambda uow: webhooks.remove(uow, endpoint.id))

    parts = [db.write(lambda uow: deliveries.forget_log(uow, endpoint.id)) for _ in range(3)]

    assert parts == [LOG_AT_ONCE, 1, 0]
    assert (outbox(db, endpoint), len(outbox(db, other))) == ([], 1000)


def test_age_of_the_queue_is_that_of_what_could_go_out(db: Database, clock: FakeClock) -> None:
    assert db.read(deliveries.oldest_due) is None
    off, endpoint = make_endpoint(db), make_endpoint(db)
    record(db, "bat_1")
    clock.advance(5)
    db.write(lambda uow: webhooks.change(uow, off.id, {"is_enabled": False}))
    assert db.read(deliveries.oldest_due) == clock.now - 5
    take(db, endpoint)
    assert db.read(deliveries.oldest_due) == clock.now + 60


def test_old_secret_signs_beside_the_new_one_for_as_long_as_it_lives(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db, secret="aa" * 32)
    until = clock.now + 86_400
    rotated = db.write(lambda uow: webhooks.rotate(uow, endpoint.id, "bb" * 32, old_until=until))
    assert rotated is not None
    assert rotated.keys(until - 1) == (b"\xbb" * 32, b"\xaa" * 32)
    assert rotated.keys(until) == (b"\xbb" * 32,)


def test_pages_of_the_log_neither_skip_nor_repeat(db: Database) -> None:
    endpoint = make_endpoint(db)
    for number in range(5):
        record(db, f"bat_{number}")
    seen: list[int] = []
    after = None
    while page := db.read(lambda conn: deliveries.page(conn, endpoint.id, limit=2, after=after)):  # noqa: B023
        seen += [delivery.id for delivery in page]
        after = page[-1].id
    assert len(seen) == 5
    assert all(later > earlier for later, earlier in pairwise(seen))


def test_success_forgets_the_failures_before_it(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    since = clock.now
    db.write(lambda uow: webhooks.note_failure(uow, endpoint.id, rest_s=9))
    clock.advance(5)
    assert db.write(lambda uow: webhooks.note_failure(uow, endpoint.id, rest_s=0)) == since
    db.write(lambda uow: webhooks.note_success(uow, endpoint.id))
    now = endpoint_now(db, endpoint)
    assert (now.failing_since, now.rest_until) == (None, None)
