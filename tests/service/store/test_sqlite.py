"""What is true of SQLite alone: a file, one lock, and a disk that may be full."""

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

from tests.builders import make_database, make_job
from tests.service.store.test_session import ROOT, count_jobs, insert, insert_and_fail, together
from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import jobs, sqlite
from vidmill.store.group_commit import GroupWriter
from vidmill.store.session import Database, UnitOfWork, open_database

pytestmark = pytest.mark.sqlite


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
    writer = GroupWriter(sqlite.Writing(engine, clock=db.now, lock_wait_s=0.05))
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
