"""What only a server can do to a database's clients: hang up, collide, fall silent."""

import contextlib
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from tests.builders import FakeClock, make_job, make_new_job
from tests.databases import empty_database
from tests.faults.proxy import FaultProxy, Mode
from tests.faults.servers import PrivatePostgres
from tests.service.store.test_session import count_jobs, insert
from tests.waiting import wait_until
from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import accounts, jobs, migrate, postgres
from vidmill.store.session import Connection, Database, UnitOfWork, open_database
from vidmill.store.turns import Turns
from vidmill.store.watchdog import Watchdog

pytestmark = pytest.mark.postgresql

HANG_UP = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()"""


def hang_up(url: str) -> None:
    """Have the server end every connection to the database, as a restart does."""
    with postgres.make_engine(url).connect() as conn:
        conn.exec_driver_sql(HANG_UP)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return empty_database(tmp_path)


@pytest.fixture
def opened(url: str) -> Iterator[Database]:
    """On the server's own clock."""
    db = open_database(url)
    db.write(lambda uow: [accounts.ensure_tenant(uow, name) for name in ("default", "other")])
    yield db
    db.close()


def test_idle_connections_the_server_closed_are_replaced_unnoticed(
    opened: Database, url: str
) -> None:
    make_job(opened)
    opened.begin_write(insert, lambda _outcome: None)
    count_jobs(opened)
    hang_up(url)
    assert opened.look(lambda conn: conn.exec_driver_sql("SELECT 1").scalar_one()) == 1
    assert make_job(opened)
    assert count_jobs(opened) >= 2


def test_all_idle_connections_being_stale_no_read_is_lost(opened: Database, url: str) -> None:
    together = threading.Barrier(4)

    def open_one(_number: int) -> None:
        opened.read(lambda _conn: together.wait(5.0))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(open_one, range(4)))
    hang_up(url)
    assert opened.look(lambda conn: conn.exec_driver_sql("SELECT 1").scalar_one()) == 1


def test_restarted_server_is_used_again_by_every_way(tmp_path: Path) -> None:
    with PrivatePostgres() as server:
        url = server.new_database()
        migrate.upgrade(url)
        db = open_database(url)
        db.write(lambda uow: accounts.ensure_tenant(uow, "default"))
        ways: list[Callable[[], object]] = [
            lambda: count_jobs(db),
            lambda: db.look(lambda conn: conn.exec_driver_sql("SELECT 1").scalar_one()),
            lambda: make_job(db),
            lambda: outcome_of(db, insert),
        ]
        for way in ways:
            way()
        server.stop(signal.SIGINT)
        for way in ways:
            with pytest.raises(ServiceUnavailable, match="cannot be reached"):
                way()
        server.start()
        for way in ways:
            assert way()
        assert count_jobs(db) == 4
        db.close()


def outcome_of(db: Database, work: Callable[[UnitOfWork], object]) -> object:
    arrived: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    db.begin_write(work, arrived.put)
    return arrived.get(timeout=10.0)()


@pytest.mark.parametrize("is_shared", [False, True])
def test_commit_whose_answer_is_lost_is_never_tried_again(url: str, *, is_shared: bool) -> None:
    server = make_url(url)
    assert server.host
    with FaultProxy((server.host, server.port or 5432)) as proxy:
        behind = server.set(host="127.0.0.1", port=proxy.port)
        db = open_database(behind.render_as_string(hide_password=False), patience_s=0.5)
        db.write(lambda uow: accounts.ensure_tenant(uow, "default"))

        def work(uow: UnitOfWork) -> None:
            insert(uow)
            proxy.switch(Mode.HALF_OPEN)

        with pytest.raises(ServiceUnavailable):
            outcome_of(db, work) if is_shared else db.write(work)
        proxy.switch(Mode.PASS)
        assert count_jobs(db) == 1
        db.close()


@pytest.mark.parametrize("is_shared", [False, True])
def test_swallowed_error_of_a_statement_is_told_and_nothing_is_written(
    opened: Database, *, is_shared: bool
) -> None:
    def work(uow: UnitOfWork) -> None:
        insert(uow)
        with contextlib.suppress(DBAPIError):
            uow.conn.exec_driver_sql("SELECT * FROM nowhere")

    with pytest.raises(RuntimeError, match="swallowed"):
        outcome_of(opened, work) if is_shared else opened.write(work)
    assert count_jobs(opened) == 0


def test_lock_held_longer_than_one_try_is_waited_for(opened: Database) -> None:
    held, done = threading.Event(), threading.Event()

    def hold(uow: UnitOfWork) -> None:
        raise_weight(uow, 1)
        held.set()
        done.wait(2.5 * postgres.HASTE_S)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(opened.write, hold)
        held.wait(5.0)
        opened.write(lambda uow: raise_weight(uow, 1))
        holding.result()
    (weight, _) = opened.read(lambda conn: [t.weight for t in accounts.all_tenants(conn)])
    assert weight == 3.0


def test_who_waits_longest_is_next() -> None:
    turns, order = Turns(1), queue.SimpleQueue[int]()
    turns.acquire(0.0)

    def wait(number: int) -> None:
        turns.acquire(5.0)
        order.put(number)
        turns.release()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(3)]
    for waiting, thread in enumerate(threads, start=1):
        thread.start()
        assert wait_until(partial(has_waiting, turns, waiting), timeout_s=5.0)
    turns.release()
    turns.acquire(5.0)  # after those three, however soon it asks
    for thread in threads:
        thread.join()
    assert [order.get() for _ in threads] == [0, 1, 2]


def has_waiting(turns: Turns, number: int) -> bool:
    return turns.waiting == number


def test_turn_not_had_in_time_is_told_and_left_to_others() -> None:
    turns = Turns(1)
    assert turns.acquire(0.0)
    assert not turns.acquire(0.01)
    turns.release()
    assert turns.acquire(0.0)


def test_connection_lost_in_the_middle_is_a_retryable_error_and_nothing_is_written(
    opened: Database, url: str
) -> None:
    def lose(uow: UnitOfWork) -> None:
        jobs.insert(uow, make_new_job())
        hang_up(url)
        jobs.insert(uow, make_new_job())

    with pytest.raises(ServiceUnavailable) as caught:
        opened.write(lose)
    assert caught.value.is_retryable
    assert count_jobs(opened) == 0


def test_connection_lost_in_a_shared_commit_fails_all_of_it_and_the_next_is_well(
    opened: Database, url: str
) -> None:
    outcomes: list[object] = []

    def lose(uow: UnitOfWork) -> None:
        jobs.insert(uow, make_new_job())
        hang_up(url)
        jobs.insert(uow, make_new_job())

    def note(outcome: Callable[[], object]) -> None:
        try:
            outcomes.append(outcome())
        except ServiceUnavailable as error:
            outcomes.append(error)

    gate = threading.Event()
    opened.begin_write(lambda _uow: gate.wait(5.0), note)
    opened.begin_write(insert, note)
    opened.begin_write(lose, note)
    gate.set()
    done = threading.Event()
    opened.begin_write(lambda _uow: None, lambda _outcome: done.set())
    done.wait(10.0)
    assert [type(o) for o in outcomes[1:]] == [ServiceUnavailable, ServiceUnavailable]
    assert count_jobs(opened) == 0
    assert make_job(opened)


def test_deadlocked_writes_both_succeed(opened: Database) -> None:
    both_hold_one = threading.Barrier(2)
    tries: list[int] = []

    def cross(first: int, second: int) -> Callable[[UnitOfWork], None]:
        def work(uow: UnitOfWork) -> None:
            raise_weight(uow, first)
            tries.append(first)
            if len(tries) <= 2:
                both_hold_one.wait(5.0)
            raise_weight(uow, second)

        return work

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(opened.write, [cross(1, 2), cross(2, 1)]))
    weights = opened.read(lambda conn: [t.weight for t in accounts.all_tenants(conn)])
    assert weights == [3.0, 3.0]
    assert len(tries) in {3, 4}  # both may lose, but not again and again


def raise_weight(uow: UnitOfWork, tenant_id: int) -> None:
    statement = text("UPDATE tenants SET weight = weight + 1 WHERE id = :tenant")
    uow.conn.execute(statement, {"tenant": tenant_id})


def test_more_threads_than_connections_wait_for_one(url: str) -> None:
    db = open_database(url, connections=2)

    def slow(conn: Connection) -> object:
        return conn.exec_driver_sql("SELECT pg_sleep(0.05)").first()

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(lambda _: db.read(slow), range(8)))) == 8
    db.close()


def test_server_that_is_not_there_is_a_retryable_error() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    db = open_database(f"postgresql://nobody@127.0.0.1:{port}/nowhere")
    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        count_jobs(db)
    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        db.write(insert)
    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        db.now()
    db.close()


def test_server_that_accepts_and_never_answers_holds_nobody_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        db = open_database(f"postgresql://nobody@127.0.0.1:{mute.getsockname()[1]}/nowhere")
        began = time.monotonic()
        with pytest.raises(ServiceUnavailable):
            count_jobs(db)
        assert time.monotonic() - began < postgres.CONNECT_S + 3.0
        db.close()


def test_watchdog_ends_a_call_that_hangs() -> None:
    watchdog = Watchdog(limit_s=0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs, watchdog.over(ours.fileno()):
        assert ours.recv(1) == b""  # shut, where it would have waited for ever
    watchdog.close()


def test_watchdog_leaves_a_socket_alone_once_its_call_is_over() -> None:
    watchdog = Watchdog(limit_s=0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with watchdog.over(ours.fileno()):
            pass
        time.sleep(1.2)  # two looks of the watchdog
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
    watchdog.close()


def test_clock_is_the_servers_and_goes_on_between_calls(opened: Database) -> None:
    query = "SELECT extract(epoch FROM clock_timestamp())::float8"
    theirs = opened.look(lambda conn: conn.exec_driver_sql(query).scalar_one())
    ours = opened.now()
    assert theirs == pytest.approx(ours, abs=1.0)
    assert opened.write(lambda uow: uow.now) == pytest.approx(ours, abs=1.0)


def test_look_uses_the_clock_handed_in(db: Database, clock: FakeClock) -> None:
    clock.advance(7.0)
    assert db.now() == clock.now


def test_read_only_replica_is_told_as_such(url: str) -> None:
    db = open_database(f"{url}?options=-c%20default_transaction_read_only%3Don")
    with pytest.raises(ServiceUnavailable, match="not the primary"):
        db.write(lambda uow: accounts.ensure_tenant(uow, "default"))
    db.close()


def test_unmigrated_database_has_no_revision(url: str) -> None:
    assert migrate.current(url) == migrate.head()
    hidden = f"{url}?options=-c%20search_path%3Dnowhere"
    assert migrate.current(hidden) is None
