"""Transactions: durability shared, failures kept apart, a database that is briefly away."""

import queue
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from tests.builders import START, FakeClock, make_database, make_job, make_new_job
from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import jobs, sqlite
from vidmill.store.group_commit import BATCH_MAX, GroupWriter
from vidmill.store.session import Database, UnitOfWork, open_database

ROOT = Path(__file__).parents[3]


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
    with pytest.raises(OperationalError, match="no such table"):
        db.read(lambda conn: conn.exec_driver_sql("SELECT * FROM nowhere"))


def test_read_whose_snapshot_was_lost_leaves_a_sound_connection(db: Database) -> None:
    def lose(conn: Connection) -> None:
        conn.exec_driver_sql("ROLLBACK")  # as SQLite itself does when the disk fails
        raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        db.read(lose)
    make_job(db)
    assert count_jobs(db) == 1


def test_everything_is_committed_before_close_returns(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: make_job(db), range(200)))
    db.close()
    with sqlite3.connect(tmp_path / "vidmill.db") as conn:
        assert conn.execute("SELECT count(*) FROM jobs").fetchone() == (200,)


def test_closed_database_refuses_at_once_and_closes_again(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    db.close()
    db.close()
    with pytest.raises(ServiceUnavailable, match="closed"):
        make_job(db)


def test_commits_are_durable_and_the_journal_is_a_wal(db: Database) -> None:
    def pragmas(uow: UnitOfWork) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return tuple(uow.conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names)

    assert db.write(pragmas) == ("wal", 2, 1)


def test_missing_folder_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="data folder"):
        open_database(f"sqlite:///{tmp_path / 'nowhere' / 'vidmill.db'}")


def test_file_that_is_no_database_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "vidmill.db"
    path.write_bytes(b"this is not a database, but it is long enough to look at" * 20)
    with pytest.raises(Exception, match="not a database"):
        open_database(f"sqlite:///{path}")


def test_lock_held_elsewhere_for_a_moment_is_waited_for(db: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "vidmill.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, other.execute, ["ROLLBACK"])
    release.start()
    assert make_job(db)
    release.join()
    other.close()


def test_lock_held_elsewhere_for_too_long_is_a_retryable_error(
    db: Database, tmp_path: Path
) -> None:
    engine = sqlite.make_engine(f"sqlite:///{tmp_path / 'vidmill.db'}")
    writer = GroupWriter(engine, clock=db.now, lock_wait_s=0.05)
    impatient = Database(reader=sqlite.Snapshots(engine), writer=writer, clock=db.now)
    other = sqlite3.connect(tmp_path / "vidmill.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ServiceUnavailable, match="locked") as caught:
        make_job(impatient)
    other.execute("ROLLBACK")
    other.close()
    assert caught.value.is_retryable
    assert make_job(impatient)
    impatient.close()


def test_two_processes_take_turns_at_the_lock(tmp_path: Path) -> None:
    busy = make_database(tmp_path)
    quiet = open_database(f"sqlite:///{tmp_path / 'vidmill.db'}")
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            make_job(busy)

    with ThreadPoolExecutor(8) as threads:
        for _ in range(8):
            threads.submit(flood)
        waits = []
        for _ in range(20):
            began = time.monotonic()
            quiet.write(lambda _uow: None)
            waits.append(time.monotonic() - began)
        stop.set()
    quiet.close()
    busy.close()
    assert max(waits) < 1.0


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
    db = make_database(tmp_path)
    url = f"sqlite:///{tmp_path / 'vidmill.db'}"
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


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
from tests.builders import make_database, make_job, make_new_job
from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import jobs

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
db = make_database(Path(sys.argv[1]))
first = make_job(db)
size = 400_000
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
accepted, refused = 1, 0
for _ in range(300):
    try:
        make_job(db)
        accepted += 1
    except ServiceUnavailable as error:
        assert error.is_retryable and "disk" in str(error), error
        refused += 1
read = db.read(lambda conn: jobs.get(conn, first.public_id, 1))
assert read is not None
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
make_job(db)
stored = db.read(lambda conn: len(jobs.page(conn, 1, limit=1000)))
assert stored == accepted + 1, (stored, accepted)
assert not db.read(jobs.find_drift)
check = db.read(lambda conn: conn.exec_driver_sql("PRAGMA integrity_check").scalar_one())
db.close()
print(check, accepted > 1, refused > 1)
"""


def test_full_disk_refuses_politely_and_recovers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok True True"


def test_full_database_fails_the_whole_batch_and_recovers(db: Database) -> None:
    make_job(db)

    def limit_pages(pages: int) -> Callable[[UnitOfWork], object]:
        return lambda uow: uow.conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def insert_much(uow: UnitOfWork) -> None:
        for _ in range(100):
            insert(uow)

    used = db.read(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())
    db.write(limit_pages(used))
    outcomes = together(db, insert_and_fail, insert_much, insert_much)
    assert [type(error) for error in outcomes[1:]] == [ServiceUnavailable, ServiceUnavailable]
    db.write(limit_pages(1_000_000))
    assert count_jobs(db) == 1
    assert make_job(db)
    assert not db.read(jobs.find_drift)


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
        for _ in range(BATCH_MAX + 10):
            db.begin_write(insert, arrived.put)
        gate.set()
        names = {arrived.get(timeout=10.0)() for _ in range(BATCH_MAX + 10)}
        assert (len(names), count_jobs(db)) == (BATCH_MAX + 10, BATCH_MAX + 10)

    def test_listener_that_is_gone_does_not_end_the_writer(self, db: Database) -> None:
        def gone(_outcome: Callable[[], object]) -> None:
            raise RuntimeError("the loop is closed")

        db.begin_write(insert, gone)
        assert make_job(db)
        assert count_jobs(db) == 2
