"""Transactions: durability shared, failures kept apart, a database that is briefly away."""

import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.builders import START, FakeClock, make_database, make_job, make_new_job
from tests.databases import empty_database
from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import jobs
from vidmill.store.session import Database, UnitOfWork

ROOT = Path(__file__).parents[3]
MANY = 300  # more than one commit takes


def count_jobs(db: Database) -> int:
    query = "SELECT count(*) FROM jobs"
    number: int = db.read(lambda conn: conn.exec_driver_sql(query).scalar_one())
    return number


def together(db: Database, *works: Callable[[UnitOfWork], object]) -> list[object]:
    """Run *works* as one batch: all wait while the writer is held up. Errors are returned."""
    gate, entered = threading.Event(), threading.Event()

    def hold(_uow: UnitOfWork) -> None:
        entered.set()
        gate.wait(10.0)

    def attempt(work: Callable[[UnitOfWork], object]) -> object:
        try:
            return db.write(work)
        except Exception as error:  # noqa: BLE001  what came is what is asserted
            return error

    with ThreadPoolExecutor(len(works) + 1) as threads:
        held = threads.submit(db.write, hold)
        entered.wait(10.0)
        futures = [threads.submit(attempt, work) for work in works]
        time.sleep(0.05)  # let them queue up; which ones share the commit does not change the claim
        gate.set()
        held.result()
        return [future.result() for future in futures]


def insert(uow: UnitOfWork) -> str:
    return jobs.insert(uow, make_new_job()).public_id


def insert_and_fail(uow: UnitOfWork) -> None:
    jobs.insert(uow, make_new_job())
    raise ValueError("no")


def test_write_returns_what_the_function_returns(db: Database) -> None:
    assert db.write(lambda _uow: 7) == 7


def test_written_is_read(db: Database) -> None:
    make_job(db)
    assert count_jobs(db) == 1


def test_unit_goes_by_the_handed_in_clock(db: Database, clock: FakeClock) -> None:
    clock.advance(5.0)
    assert db.write(lambda uow: uow.now) == START + 5.0 == db.now()


def test_failing_function_undoes_only_its_own_work(db: Database) -> None:
    first, second, third, fourth = together(db, insert, insert_and_fail, insert, insert)
    assert isinstance(second, ValueError)
    stored = {job.public_id for job in db.read(lambda conn: jobs.page(conn, 1, limit=10))}
    assert stored == {first, third, fourth}
    assert not db.read(jobs.find_drift)


def test_refused_statement_undoes_only_its_own_work(db: Database) -> None:
    make_job(db)

    def delete(uow: UnitOfWork) -> None:
        uow.conn.exec_driver_sql("DELETE FROM jobs")

    _, refused = together(db, insert, delete)
    assert isinstance(refused, IntegrityError)
    assert count_jobs(db) == 2


def test_error_of_a_statement_does_not_tell_what_was_to_be_written(db: Database) -> None:
    insert, values = text("INSERT INTO nowhere VALUES (:prompt)"), {"prompt": "a secret recipe"}
    with pytest.raises(DBAPIError) as caught:
        db.write(lambda uow: uow.conn.execute(insert, values))
    said = "".join(traceback.format_exception(caught.value))
    assert "nowhere" in said
    assert values["prompt"] not in said


def test_error_of_a_refused_row_does_not_tell_what_is_in_it(db: Database) -> None:
    job = make_job(db)
    update = text("UPDATE jobs SET state = 'running' WHERE id = :id")
    with pytest.raises(IntegrityError) as caught:
        db.write(lambda uow: uow.conn.execute(update, {"id": job.id}))
    said = "".join(traceback.format_exception(caught.value))
    assert "jobs_running_has_lease" in said
    assert job.public_id not in said


def test_callbacks_run_after_the_commit_in_the_callers_thread(db: Database) -> None:
    seen = []

    def work(uow: UnitOfWork) -> None:
        jobs.insert(uow, make_new_job())
        uow.after_commit(lambda: seen.append((threading.current_thread(), count_jobs(db))))

    db.write(work)
    assert seen == [(threading.current_thread(), 1)]


def test_callbacks_do_not_run_when_the_work_failed(db: Database) -> None:
    seen: list[int] = []

    def work(uow: UnitOfWork) -> None:
        uow.after_commit(lambda: seen.append(1))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        db.write(work)
    assert seen == []


def test_write_inside_a_write_is_refused_not_deadlocked(db: Database) -> None:
    with pytest.raises(RuntimeError, match="inside a write"):
        db.write(lambda _uow: db.write(insert))


def test_even_a_wish_to_exit_does_not_end_the_writer(db: Database) -> None:
    with pytest.raises(SystemExit):
        db.write(lambda _uow: sys.exit(3))
    assert make_job(db)


def test_readers_do_not_wait_for_the_writer(db: Database) -> None:
    make_job(db)
    counts = []

    def work(uow: UnitOfWork) -> None:
        jobs.insert(uow, make_new_job())
        with ThreadPoolExecutor(1) as threads:
            counts.append(threads.submit(count_jobs, db).result(timeout=5.0))

    db.write(work)
    assert counts == [1]


def test_one_read_sees_one_snapshot(db: Database) -> None:
    def work(conn: Connection) -> tuple[int, int]:
        query = "SELECT count(*) FROM jobs"
        before = conn.exec_driver_sql(query).scalar_one()
        with ThreadPoolExecutor(1) as threads:
            threads.submit(make_job, db).result()
        return before, conn.exec_driver_sql(query).scalar_one()

    assert db.read(work) == (0, 0)
    assert count_jobs(db) == 1


def test_read_connection_cannot_write(db: Database) -> None:
    with pytest.raises(ServiceUnavailable, match="read-only"):
        db.read(lambda conn: conn.exec_driver_sql("DELETE FROM tenants"))


def test_wrong_statement_in_a_read_is_its_own_error(db: Database) -> None:
    with pytest.raises(DBAPIError, match=r"no such table|does not exist"):
        db.read(lambda conn: conn.exec_driver_sql("SELECT * FROM nowhere"))


def test_closed_database_refuses_at_once_and_closes_again(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    db.close()
    db.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        make_job(db)


SUBMITTER = """
import sys, threading, uuid
from tests.builders import make_job
from vidmill.store.session import open_database

db = open_database(sys.argv[1])

def submit():
    while True:
        public_id = make_job(db, public_id=uuid.uuid4().hex).public_id
        sys.stdout.write(public_id + "\\n")
        sys.stdout.flush()

for _ in range(4):
    threading.Thread(target=submit).start()
"""


def test_killed_process_has_lost_nothing_it_acknowledged(tmp_path: Path) -> None:
    url = empty_database(tmp_path)
    db = make_database(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", SUBMITTER, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(40)]
        process.kill()
        acknowledged += process.stdout.read().split()
    stored = {job.public_id for job in db.read(lambda conn: jobs.page(conn, 1, limit=10_000))}
    lost = [name for name in acknowledged if len(name) == 32 and name not in stored]
    drift = db.read(jobs.find_drift)
    db.close()
    assert (lost, bool(drift)) == ([], False)


class TestBeginWrite:
    """Writes for an event loop, which must not wait."""

    def outcome_of(self, db: Database, work: Callable[[UnitOfWork], object]) -> object:
        arrived: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        db.begin_write(work, arrived.put)
        return arrived.get(timeout=10.0)()

    def test_outcome_arrives_once_the_work_is_durable(self, db: Database) -> None:
        assert self.outcome_of(db, insert)
        assert count_jobs(db) == 1

    def test_error_arrives_with_whoever_asks_for_the_outcome(self, db: Database) -> None:
        with pytest.raises(ValueError, match="no"):
            self.outcome_of(db, insert_and_fail)
        assert count_jobs(db) == 0

    def test_bad_ones_of_a_batch_leave_the_others_alone(self, db: Database) -> None:
        arrived: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        gate = threading.Event()

        def decline(_uow: UnitOfWork) -> None:
            raise ServiceUnavailable("the caller changed his mind")

        def delete(uow: UnitOfWork) -> None:
            uow.conn.exec_driver_sql("DELETE FROM jobs")

        db.begin_write(lambda _uow: gate.wait(10.0), lambda _outcome: None)
        for work in (insert, decline, delete, insert_and_fail, insert):
            db.begin_write(work, arrived.put)
        gate.set()
        outcomes = [arrived.get(timeout=10.0) for _ in range(5)]
        for outcome, error in zip(
            outcomes[1:4], (ServiceUnavailable, IntegrityError, ValueError), strict=True
        ):
            with pytest.raises(error):
                outcome()
        stored = {job.public_id for job in db.read(lambda conn: jobs.page(conn, 1, limit=10))}
        assert stored == {outcomes[0](), outcomes[4]()}

    def test_callbacks_run_where_the_outcome_is_asked_for(self, db: Database) -> None:
        seen: list[threading.Thread] = []

        def work(uow: UnitOfWork) -> None:
            uow.after_commit(lambda: seen.append(threading.current_thread()))

        self.outcome_of(db, work)
        assert seen == [threading.current_thread()]

    def test_more_writes_than_one_commit_takes_all_arrive(self, db: Database) -> None:
        arrived: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        gate = threading.Event()
        db.begin_write(lambda _uow: gate.wait(10.0), lambda _outcome: None)
        for _ in range(MANY + 10):
            db.begin_write(insert, arrived.put)
        gate.set()
        names = {arrived.get(timeout=10.0)() for _ in range(MANY + 10)}
        assert (len(names), count_jobs(db)) == (MANY + 10, MANY + 10)

    def test_listener_that_is_gone_does_not_end_the_writer(self, db: Database) -> None:
        def gone(_outcome: Callable[[], object]) -> None:
            raise RuntimeError("the loop is closed")

        db.begin_write(insert, gone)
        assert self.outcome_of(db, insert)
        assert count_jobs(db) == 2
