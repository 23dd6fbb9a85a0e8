"""What a supervisor does about children that fail, hang and die, and who hears of their work."""

import os
import signal
import time
from typing import Any

import pytest

from tests.builders import make_new_job
from tests.waiting import wait_until
from tests.workers import (
    WAIT_S,
    Bench,
    Worker,
    are_gone,
    small_spec,
)
from vidmill.domain.job import Job, JobState
from vidmill.store import jobs
from vidmill.store.session import UnitOfWork

pytestmark = pytest.mark.sqlite  # test_spread has workers on a server


def test_job_becomes_files_and_a_result(bench: Bench, worker: Worker) -> None:
    job = bench.wait_over(bench.submit())
    assert (job.state, job.attempt, job.progress) == (JobState.SUCCEEDED, 1, 1.0)
    assert job.result is not None
    assert job.result.model["name"] == "troubled"
    assert set(job.result.timings_s) >= {"denoising", "decoding", "encoding", "storing"}
    assert set(job.result.assets) == {"video", "poster", "preview"}
    for asset in job.result.assets.values():
        stored = bench.settings.data_dir / "files" / asset.key
        assert stored.stat().st_size == asset.size_bytes
    assert not list(bench.settings.scratch_dir.rglob("*.mp4"))


def test_engine_failure_is_retried_until_the_attempts_are_used_up(
    bench: Bench, worker: Worker
) -> None:
    job = bench.wait_over(bench.trouble("fail", max_attempts=3))
    assert (job.state, job.error_code) == (JobState.FAILED, "engine_failed")
    assert job.error_message == "the device said no"
    assert (job.attempt, len(bench.attempts(job))) == (3, 3)


def test_render_child_whose_device_failed_is_replaced_at_no_cost_to_the_next_job(
    bench: Bench, worker: Worker
) -> None:
    before = worker.child("render_child")
    job, following = bench.trouble("fail", max_attempts=1), bench.submit()
    job, following = bench.wait_over(job), bench.wait_over(following)
    assert (job.state, job.error_code) == (JobState.FAILED, "engine_failed")
    assert (following.state, following.attempt) == (JobState.SUCCEEDED, 1)
    assert worker.child("render_child") != before


def test_last_words_of_a_dead_render_child_make_room_for_no_job_in_it(
    bench: Bench, worker: Worker
) -> None:
    before = worker.child("render_child")
    slow_failure = small_spec(prompt="fail", steps=250)  # seconds in which to be seen
    job = bench.wait_denoising(bench.submit(slow_failure, max_attempts=1))
    worker.process.send_signal(signal.SIGSTOP)  # wakes to the words and the death at once
    following = bench.submit()
    assert are_gone({before})
    worker.process.send_signal(signal.SIGCONT)
    assert bench.wait_over(job).error_code == "engine_failed"
    assert bench.attempts(bench.wait_over(following)) == ["succeeded"]


@pytest.mark.parametrize(
    ("trouble", "code"),
    [("defect", "internal_error"), ("run out of memory", "out_of_memory")],
)
def test_render_child_lives_on_after_what_leaves_the_device_sound(
    bench: Bench, worker: Worker, trouble: str, code: str
) -> None:
    before = worker.child("render_child")
    job = bench.wait_over(bench.trouble(trouble, max_attempts=1))
    assert (job.state, job.error_code) == (JobState.FAILED, code)
    assert worker.child("render_child") == before


@pytest.mark.parametrize("death", ["die", "segfault"])
def test_render_child_that_dies_costs_its_job_an_attempt_and_is_replaced(
    bench: Bench, worker: Worker, death: str
) -> None:
    before = worker.child("render_child")
    job = bench.wait_over(bench.trouble(death, max_attempts=1))
    assert (job.state, job.error_code) == (JobState.FAILED, "render_crashed")
    worker.wait_state("ready")
    assert worker.child("render_child") != before
    assert bench.wait_over(bench.submit()).state is JobState.SUCCEEDED


def test_job_of_a_dead_render_child_is_done_by_the_next(bench: Bench, worker: Worker) -> None:
    job = bench.submit(small_spec(steps=100))
    bench.wait_denoising(job)
    os.kill(worker.child("render_child"), signal.SIGKILL)
    job = bench.wait_over(job)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert bench.files() >= {f"{job.public_id}/2"}
    assert f"{job.public_id}/1" not in bench.files()


def test_finish_child_that_dies_costs_no_attempt_since_the_frames_live(
    bench: Bench, worker: Worker
) -> None:
    with worker.frozen("finish_child") as pid:
        job = bench.submit()
        worker.wait_rendered(job)
        os.kill(pid, signal.SIGKILL)
        job = bench.wait_over(job)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)


def test_next_clip_is_rendered_while_others_wait_for_the_finisher_up_to_the_backlog(
    bench: Bench, worker: Worker
) -> None:
    with worker.frozen("finish_child"):
        submitted = [bench.submit() for _ in range(4)]
        for job in submitted[: bench.settings.finish_backlog]:
            worker.wait_rendered(job)
        time.sleep(2 * bench.settings.poll_s)  # it has every chance to take one too many
        states = [bench.look(job).state for job in submitted]
    assert states == [JobState.RUNNING] * 2 + [JobState.QUEUED] * 2
    assert {bench.wait_over(job).state for job in submitted} == {JobState.SUCCEEDED}


def test_storm_of_tickets_for_one_job_runs_it_once(bench: Bench, worker: Worker) -> None:
    job = bench.submit()
    for _ in range(200):
        bench.tickets.publish(bench.settings.pool)
    assert bench.wait_over(job).attempt == 1
    assert len(bench.attempts(job)) == 1


def test_watchers_see_progress_of_one_attempt_only_grow(bench: Bench, worker: Worker) -> None:
    seen: list[dict[str, Any]] = []
    job = bench.submit(small_spec(steps=40))
    stop = bench.bus.subscribe(job.public_id, lambda event: seen.append(dict(event)))
    bench.wait_over(job)
    stop()
    progress = [event["progress"] for event in seen]
    assert progress == sorted(progress)
    assert {"denoising"} <= {event["phase"] for event in seen}
    assert {event["attempt"] for event in seen} == {1}


def test_stolen_lease_is_a_zombie_that_stops_and_says_nothing(bench: Bench, worker: Worker) -> None:
    job = bench.wait_denoising(bench.submit(small_spec(steps=500)))
    thief = bench.db.write(lambda uow: jobs.release_dead(uow, live=()))
    assert [swept.job.id for swept in thief] == [job.id]
    job = bench.wait(job, lambda j: j.attempt == 2)
    bench.cancel(job)
    job = bench.wait_over(job)
    assert (job.state, job.attempt) == (JobState.CANCELLED, 2)


def test_disk_that_fills_up_delays_a_job_that_completes_when_there_is_room(
    bench: Bench, worker: Worker
) -> None:
    with worker.full_disk(worker.child("finish_child")):
        job = bench.submit(max_attempts=50)
        job = bench.wait(job, lambda j: j.error_code is not None)
        assert job.error_code == "disk_full"
        assert f"{job.public_id}/1" not in bench.files()
    job = bench.wait_over(job)
    assert (job.state, job.error_code) == (JobState.SUCCEEDED, None)
    assert bench.files() >= {f"{job.public_id}/{job.attempt}"}


def test_database_whose_disk_is_full_delays_the_outcome_but_loses_nothing(
    bench: Bench, worker: Worker
) -> None:
    job = bench.wait_denoising(bench.submit(small_spec(steps=30)))
    with worker.full_disk(worker.process.pid):
        time.sleep(1.5)  # the clip is ready meanwhile, and the heartbeats fail
        unclaimed = bench.submit()
    job = bench.wait_over(job)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    assert bench.files() >= {f"{job.public_id}/1"}
    assert bench.wait_over(unclaimed).attempt == 1


def test_claim_that_the_supervisor_never_saw_is_not_kept_alive_and_falls_to_the_sweep(
    bench: Bench, worker: Worker
) -> None:
    def claim_behind_its_back(uow: UnitOfWork) -> Job | None:
        jobs.insert(uow, make_new_job(pool=bench.settings.pool, spec=small_spec()))
        return jobs.claim(
            uow, pool=bench.settings.pool, worker=worker.name, profile="tiny", lease_s=1.0
        )

    job = bench.db.write(claim_behind_its_back)
    assert job is not None
    assert wait_until(lambda: bool(bench.sweep()), timeout_s=WAIT_S)
    job = bench.wait_over(job)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
