"""Poison jobs, sick engines and unfit workers: who is taken out, and who goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.workers import WAIT_S, Bench, Worker, open_bench
from vidmill.domain.job import JobState
from vidmill.store import breakers
from vidmill.store.breakers import Breaker, BreakerState
from vidmill.worker.supervisor import EXIT_UNFIT

ENGINE = "tests.service.troubled_engine:TroubledEngine"

pytestmark = pytest.mark.sqlite  # what is done here is the worker's, whatever the database


@contextmanager
def working(folder: Path, **settings: object) -> Iterator[tuple[Bench, Worker]]:
    with open_bench(folder, **settings) as bench:
        worker = Worker(bench, ENGINE)
        worker.wait_state("ready")
        yield bench, worker
        if worker.process.poll() is None:
            worker.stop()


def breaker_of(bench: Bench) -> Breaker | None:
    return next(iter(bench.db.read(breakers.all_breakers)), None)


def test_job_that_kills_its_child_three_times_is_failed_and_the_pool_goes_on(
    tmp_path: Path,
) -> None:
    with working(tmp_path, breaker_failures=2, worker_failures=2) as (bench, worker):
        poison = bench.wait_over(bench.trouble("die"))
        assert (poison.state, poison.error_code) == (JobState.FAILED, "poison_job")
        assert bench.attempts(poison) == ["delayed", "delayed", "failed"]
        assert bench.wait_over(bench.submit()).state is JobState.SUCCEEDED
        assert worker.process.poll() is None
        breaker = breaker_of(bench)
        assert breaker is not None
        assert breaker.state is BreakerState.CLOSED


def test_worker_whose_engine_fails_job_after_job_loads_it_anew_and_then_takes_itself_out(
    tmp_path: Path,
) -> None:
    with working(tmp_path, worker_failures=2) as (bench, worker):
        for _ in range(3):
            bench.trouble("run out of memory", max_attempts=1)
        assert worker.process.wait(WAIT_S) == EXIT_UNFIT
        log = worker.log_path.read_text()
        assert log.count("engine_suspected") == 1
        assert log.count("worker_unfit") == 1
        assert worker.row() is None
        untouched = bench.submit()
        with_hope = Worker(bench, ENGINE)
        assert bench.wait_over(untouched).state is JobState.SUCCEEDED
        with_hope.stop()


def test_worker_that_works_again_after_loading_anew_is_trusted_again(tmp_path: Path) -> None:
    with working(tmp_path, worker_failures=2) as (bench, worker):
        for _ in range(2):
            bench.wait_over(bench.trouble("run out of memory", max_attempts=1))
        assert bench.wait_over(bench.submit()).state is JobState.SUCCEEDED
        bench.wait_over(bench.trouble("run out of memory", max_attempts=1))
        assert bench.wait_over(bench.submit()).state is JobState.SUCCEEDED
        assert worker.process.poll() is None


def test_job_that_waits_during_a_reload_is_given_to_the_new_process(tmp_path: Path) -> None:
    with working(tmp_path, worker_failures=2) as (bench, worker):
        for _ in range(2):
            bench.trouble("run out of memory", max_attempts=1)
        done = bench.wait_over(bench.submit())
        assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)
        assert worker.process.poll() is None


def test_worker_whose_device_is_unusable_from_the_start_takes_itself_out(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "unusable").touch()
    changes = {"worker_failures": 2, "model_path": str(model)}
    with open_bench(tmp_path / "data", **changes) as bench:
        worker = Worker(bench, ENGINE)
        assert worker.process.wait(WAIT_S) == EXIT_UNFIT
        last = worker.said("worker_unfit")[-1]["reason"]
        assert last.startswith("the model cannot be loaded here: engine_failed: ")


def test_pool_whose_engine_fails_everything_rests_and_opens_again_with_one_probe(
    tmp_path: Path,
) -> None:
    changes = {"breaker_failures": 2, "breaker_rest_s": 1.0}
    with working(tmp_path, **changes) as (bench, _worker):
        for _ in range(2):
            bench.wait_over(bench.trouble("run out of memory", max_attempts=1))
        breaker = breaker_of(bench)
        assert breaker is not None
        assert (breaker.state, breaker.reason) == (
            BreakerState.OPEN,
            "out_of_memory: the device ran out of memory",
        )
        waiting = [bench.submit() for _ in range(2)]
        assert all(bench.look(job).state is JobState.QUEUED for job in waiting)
        for job in waiting:
            assert bench.wait_over(job).state is JobState.SUCCEEDED

        def is_closed() -> bool:
            found = breaker_of(bench)
            return found is not None and found.state is BreakerState.CLOSED

        assert wait_until(is_closed, timeout_s=WAIT_S)
