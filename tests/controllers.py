"""Controllers for tests, run by hand or by a clock that only waiting moves."""

import random
import threading
from collections.abc import Callable, Sequence

from tests.recorders import RecordingBus, RecordingTickets
from vidmill.domain.job import Job, JobState, RetryPolicy
from vidmill.services.controller import Controller, ControllerTimes
from vidmill.store import jobs, workers
from vidmill.store.session import Database
from vidmill.store.workers import WorkerState


def make_controller(
    db: Database,
    tickets: RecordingTickets,
    bus: RecordingBus,
    *,
    name: str = "c1",
    chores: Sequence[Callable[[], object]] = (),
    **times: float,
) -> Controller:
    return Controller(
        db,
        tickets,
        bus,
        policy=RetryPolicy(),
        times=ControllerTimes(**times),
        rng=random.Random(1),
        name=name,
        chores=chores,
    )


def add_worker(db: Database, worker: str, *, pool: str = "main") -> None:
    db.write(
        lambda uow: workers.register(
            uow, worker=worker, pool=pool, host="here", pid=1, profile="tiny", lease_s=30.0
        )
    )
    db.write(lambda uow: workers.renew(uow, worker=worker, lease_s=30.0, state=WorkerState.READY))


def state(db: Database, job: Job) -> JobState:
    found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert found is not None
    return found.state


class SteppedStop(threading.Event):
    """A clock that only waiting moves, and which ends the loop at *until*."""

    def __init__(self, *, until: float) -> None:
        super().__init__()
        self.now = 0.0
        self.until = until

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        self.now += max(0.001, timeout or 0.0)
        if self.now >= self.until:
            self.set()
        return self.is_set()


def run(controller: Controller, *, seconds: float) -> None:
    stop = SteppedStop(until=seconds)
    controller.run(stop, monotonic=stop)
