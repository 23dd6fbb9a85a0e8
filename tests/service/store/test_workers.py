"""Workers' rows and the leader's lease."""

from tests.builders import FakeClock, make_job
from vidmill.domain.job import Job
from vidmill.store import jobs, workers
from vidmill.store.session import Database
from vidmill.store.workers import WorkerState


def register(db: Database, worker: str, *, pool: str = "main", host: str = "here") -> None:
    db.write(
        lambda uow: workers.register(
            uow, worker=worker, pool=pool, host=host, pid=7, profile="tiny", lease_s=30.0
        )
    )


def renew(db: Database, worker: str, state: WorkerState = WorkerState.READY) -> bool:
    return db.write(
        lambda uow: workers.renew(uow, worker=worker, lease_s=30.0, state=state, detail="warm 1/2")
    )


def live(db: Database, clock: FakeClock, pool: str | None = None) -> list[str]:
    found = db.read(lambda conn: workers.all_workers(conn, now=clock.now, pool=pool))
    return [worker.id for worker in found]


def idle(db: Database, clock: FakeClock) -> int:
    return db.read(lambda conn: workers.idle_counts(conn, now=clock.now)["main"])


def claim(db: Database, worker: str) -> Job | None:
    return db.write(
        lambda uow: jobs.claim(uow, pool="main", worker=worker, profile="tiny", lease_s=30.0)
    )


def test_new_worker_is_loading(db: Database, clock: FakeClock) -> None:
    register(db, "w1")
    (worker,) = db.read(lambda conn: workers.all_workers(conn, now=clock.now))
    assert (worker.state, worker.pid, worker.lease_until) == (
        WorkerState.LOADING,
        7,
        clock.now + 30.0,
    )


def test_renewed_worker_tells_how_it_is(db: Database, clock: FakeClock) -> None:
    register(db, "w1")
    clock.advance(20.0)
    assert renew(db, "w1")
    (worker,) = db.read(lambda conn: workers.all_workers(conn, now=clock.now))
    assert (worker.state, worker.detail) == (WorkerState.READY, "warm 1/2")
    assert worker.lease_until == clock.now + 30.0


def test_forgotten_worker_must_register_again(db: Database) -> None:
    register(db, "w1")
    db.write(lambda uow: workers.drop(uow, "w1"))
    assert not renew(db, "w1")


def test_silent_worker_is_not_listed_as_live_but_known_on_its_host(
    db: Database, clock: FakeClock
) -> None:
    register(db, "old")
    clock.advance(31.0)
    register(db, "new")
    register(db, "elsewhere", host="there")
    assert live(db, clock) == ["new", "elsewhere"]
    on_host = db.read(lambda conn: workers.on_host(conn, "here"))
    assert [worker.id for worker in on_host] == ["old", "new"]


def test_workers_are_listed_by_pool(db: Database, clock: FakeClock) -> None:
    register(db, "w1")
    register(db, "w2", pool="vip")
    assert live(db, clock, "vip") == ["w2"]


def test_idle_is_ready_and_without_a_job(db: Database, clock: FakeClock) -> None:
    for worker in ("loading", "busy", "idle", "draining", "silent"):
        register(db, worker)
    renew(db, "silent")
    clock.advance(31.0)
    renew(db, "busy")
    renew(db, "idle")
    renew(db, "draining", WorkerState.DRAINING)
    make_job(db)
    assert idle(db, clock) == 2
    claim(db, "busy")
    assert idle(db, clock) == 1


def test_long_silent_workers_are_forgotten(db: Database, clock: FakeClock) -> None:
    register(db, "old")
    clock.advance(131.0)
    register(db, "new")
    assert db.write(lambda uow: workers.drop_expired(uow, older_than_s=100.0)) == 1
    assert [w.id for w in db.read(lambda conn: workers.on_host(conn, "here"))] == ["new"]


class TestLease:
    def seize(self, db: Database, holder: str) -> bool:
        return db.write(
            lambda uow: workers.seize_lease(uow, "controller", holder=holder, lease_s=15.0)
        )

    def test_one_holds_it_and_may_renew(self, db: Database, clock: FakeClock) -> None:
        assert self.seize(db, "a")
        assert not self.seize(db, "b")
        clock.advance(14.0)
        assert self.seize(db, "a")
        clock.advance(14.0)
        assert not self.seize(db, "b")

    def test_another_takes_over_when_it_ran_out(self, db: Database, clock: FakeClock) -> None:
        self.seize(db, "a")
        clock.advance(15.1)
        assert self.seize(db, "b")
        assert not self.seize(db, "a")

    def test_only_its_holder_frees_it(self, db: Database) -> None:
        self.seize(db, "a")
        db.write(lambda uow: workers.free_lease(uow, "controller", holder="b"))
        assert not self.seize(db, "b")
        db.write(lambda uow: workers.free_lease(uow, "controller", holder="a"))
        assert self.seize(db, "b")

    def test_whoever_starts_alone_frees_it_from_the_dead(self, db: Database) -> None:
        self.seize(db, "dead")
        db.write(lambda uow: workers.free_lease(uow, "controller"))
        assert self.seize(db, "new")
