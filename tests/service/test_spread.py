"""Several workers on a server database and a broker: all join in, each may leave at any time."""

import random
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.brokers import local, shared_rabbitmq, shared_redis
from tests.databases import empty_database
from tests.workers import Bench, Worker, open_bench, small_spec
from vidmill.domain.job import JobState
from vidmill.store import jobs

ENGINE = "tests.service.troubled_engine:TroubledEngine"

pytestmark = pytest.mark.postgresql

BROKERS: Mapping[str, Callable[[Path], AbstractContextManager[str]]] = {
    "local": local,
    "redis": shared_redis,
    "amqp": shared_rabbitmq,
}


@pytest.fixture(
    params=["redis", *(pytest.param(name, marks=pytest.mark.long) for name in ("amqp", "local"))]
)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with BROKERS[request.param](tmp_path) as broker_url:
        settings = {"database_url": empty_database(tmp_path), "broker_url": broker_url}
        with open_bench(tmp_path / "data", **settings, signing_secret="s", pool="gpu") as bench:
            yield bench


def test_each_of_four_workers_gets_work_and_all_of_it_is_done_once(bench: Bench) -> None:
    workers = [Worker(bench, ENGINE) for _ in range(4)]
    for worker in workers:
        worker.wait_state("ready")
    submitted = [bench.submit(small_spec(seed=n)) for n in range(16)]
    done = [bench.wait_over(job) for job in submitted]
    assert {(job.state, job.attempt) for job in done} == {(JobState.SUCCEEDED, 1)}
    assert {job.worker for job in done} == {worker.name for worker in workers}
    assert [worker.stop() for worker in workers] == [0] * 4
    assert not bench.db.read(jobs.find_drift)


def test_rolling_restart_under_load_fails_nothing_and_costs_no_attempt(bench: Bench) -> None:
    old = [Worker(bench, ENGINE) for _ in range(2)]
    for worker in old:
        worker.wait_state("ready")
    submitted = [bench.submit(small_spec(seed=n, steps=30)) for n in range(12)]
    new = []
    for worker in old:
        bench.wait(random.choice(submitted), lambda job: job.state is not JobState.QUEUED)
        new.append(Worker(bench, ENGINE))
        new[-1].wait_state("ready")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
    done = [bench.wait_over(job) for job in submitted]
    assert {job.state for job in done} == {JobState.SUCCEEDED}
    assert {job.max_attempts - job.attempt for job in done} == {3}
    assert [worker.stop() for worker in new] == [0, 0]
