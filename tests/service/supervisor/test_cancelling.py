"""Where a cancel finds a job, and what is left of it."""

import time

import pytest

from tests.workers import Bench, Worker, are_gone, small_spec
from vidmill.domain.job import JobState
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite  # test_spread has workers on a server


def test_running_job_stops_at_its_cancel_not_at_its_end(bench: Bench, worker: Worker) -> None:
    job = bench.wait_denoising(bench.submit(small_spec(steps=500)))
    began = time.monotonic()
    bench.cancel(job)
    assert bench.wait_over(job).state is JobState.CANCELLED
    assert time.monotonic() - began < 3.0  # of the ten seconds it would have run
    assert bench.wait_over(bench.submit()).state is JobState.SUCCEEDED


def test_cancel_without_the_bus_comes_with_the_heartbeat(bench: Bench, worker: Worker) -> None:
    job = bench.wait_denoising(bench.submit(small_spec(steps=500)))
    bench.cancel(job, is_told=False)
    assert bench.wait_over(job).state is JobState.CANCELLED


def test_cancelled_child_that_does_not_answer_is_killed_after_the_grace(
    bench: Bench, worker: Worker
) -> None:
    before = worker.child("render_child")
    job = bench.wait_trouble(bench.trouble("hang"))
    bench.cancel(job)
    assert bench.wait_over(job).state is JobState.CANCELLED
    assert are_gone({before})
    worker.wait_state("ready")


def test_cancel_while_finishing_leaves_no_files(bench: Bench, worker: Worker) -> None:
    with worker.frozen("finish_child"):
        job, waiting = bench.submit(), bench.submit()
        for one in (job, waiting):
            worker.wait_rendered(one)
            bench.cancel(one)
        assert bench.wait_over(waiting).state is JobState.CANCELLED
    assert bench.wait_over(job).state is JobState.CANCELLED
    assert not bench.files() & {f"{job.public_id}/1", f"{waiting.public_id}/1"}


def test_finish_child_that_does_not_heed_a_cancel_is_killed_after_the_grace(
    bench: Bench, worker: Worker
) -> None:
    with worker.frozen("finish_child") as pid:
        job = bench.submit()
        worker.wait_rendered(job)
        bench.cancel(job)
        assert bench.wait_over(job).state is JobState.CANCELLED
        assert are_gone({pid})


def test_cancel_of_an_attempt_that_is_over_does_not_hit_the_next_job(
    bench: Bench, worker: Worker
) -> None:
    first = bench.wait_over(bench.submit())
    second = bench.wait_denoising(bench.submit(small_spec(steps=60)))
    bench.bus.cancel(first.public_id, first.attempt)
    bench.bus.cancel(second.public_id, second.attempt + 1)
    assert bench.wait_over(second).state is JobState.SUCCEEDED


def test_cancel_storm_leaves_each_job_cancelled_or_succeeded(bench: Bench, worker: Worker) -> None:
    submitted = [bench.submit(small_spec(steps=1)) for _ in range(30)]
    for job in submitted:
        bench.cancel(job)
        time.sleep(0.01)
    ended = [bench.wait_over(job) for job in submitted]
    assert {job.state for job in ended} <= {JobState.CANCELLED, JobState.SUCCEEDED}
    stored = {f"{job.public_id}/{job.attempt}" for job in ended if job.result}
    ours = {job.public_id for job in ended}
    assert {key for key in bench.files() if key.split("/")[0] in ours} == stored
    drift = bench.db.read(jobs.find_drift)
    assert not drift
