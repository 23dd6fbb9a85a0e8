"""What a supervisor does about children that fail, hang, die and bear children of their own."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_new_job
from tests.waiting import wait_until
from tests.workers import WAIT_S, Bench, Worker, are_gone, descendants, open_bench, small_spec
from vidmill.domain.job import Job, JobState, RetryPolicy
from vidmill.store import jobs
from vidmill.store.session import UnitOfWork
from vidmill.store.workers import WorkerState
from vidmill.worker import proc

ENGINE = "tests.service.troubled_engine:TroubledEngine"

pytestmark = pytest.mark.sqlite  # test_spread has workers on a server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Worker]]:
    """One worker that all gentle tests put work into, with a generous time limit."""
    with open_bench(tmp_path_factory.mktemp("shared")) as bench:
        worker = Worker(bench, ENGINE)
        worker.wait_state("ready")
        yield bench, worker
        assert worker.stop() == 0


@pytest.fixture
def bench(shared: tuple[Bench, Worker]) -> Bench:
    return shared[0]


@pytest.fixture
def worker(shared: tuple[Bench, Worker]) -> Worker:
    shared[1].wait_state("ready")
    return shared[1]


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


def test_watchers_hear_of_each_phase_however_seldom_of_its_steps(tmp_path: Path) -> None:
    seen: list[str] = []
    with open_bench(tmp_path, progress_interval_s=60.0) as bench:
        worker = Worker(bench, ENGINE)
        worker.wait_state("ready")
        bench.bus.latest("any")  # from here on this process listens
        job = bench.submit()
        stop = bench.bus.subscribe(job.public_id, lambda event: seen.append(event["phase"]))
        bench.wait_over(job)
        stop()
        assert worker.stop() == 0
    assert {"denoising", "decoding", "finishing", "storing"} <= set(seen)


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
    assert wait_until(lambda: bool(sweep(bench)), timeout_s=WAIT_S)
    job = bench.wait_over(job)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)


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


def test_time_limit_takes_child_and_grandchildren_that_ignore_sigterm(tmp_path: Path) -> None:
    with open_bench(tmp_path, time_limit_s=4.0) as bench:
        worker = Worker(bench, ENGINE)
        worker.wait_state("ready")
        job = bench.wait_trouble(bench.trouble("hang with family"))
        child = worker.child("render_child")
        assert wait_until(lambda: len(descendants(child)) == 2, timeout_s=WAIT_S)
        family = descendants(child) | {child}
        job = bench.wait_over(job)
        assert (job.state, job.error_code, job.attempt) == (JobState.FAILED, "timed_out", 1)
        assert "VIDMILL_TIME_LIMIT_S" in (job.error_message or "")
        assert are_gone(family)
        worker.wait_state("ready")
        assert bench.wait_over(bench.submit()).state is JobState.SUCCEEDED
        assert worker.stop() == 0


def test_killed_supervisor_takes_its_children_along_and_the_next_ends_the_rest(
    tmp_path: Path,
) -> None:
    with open_bench(tmp_path) as bench:
        worker = Worker(bench, ENGINE)
        worker.wait_state("ready")
        job = bench.wait_trouble(bench.trouble("hang with family", max_attempts=2))
        children = {worker.child("render_child"), worker.child("finish_child")}
        family = descendants(worker.child("render_child"))
        worker.kill()
        assert are_gone(children)
        bench.db.write(lambda uow: jobs.release_dead(uow, live=()))
        bench.cancel(bench.look(job))
        successor = Worker(bench, ENGINE)
        successor.wait_state("ready")
        in_group = {pid for pid in family if proc.stat(pid) and not _leads(pid)}
        assert are_gone(in_group)
        for pid in family - in_group:  # left its group and its parents: nobody knows it any more
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert successor.stop() == 0


def _leads(pid: int) -> bool:
    return os.getpgid(pid) == pid


def test_frozen_supervisor_wakes_up_as_a_zombie_whose_late_result_changes_nothing(
    tmp_path: Path,
) -> None:
    with open_bench(tmp_path) as bench:
        zombie = Worker(bench, ENGINE)
        zombie.wait_state("ready")
        job = bench.wait_denoising(bench.submit(small_spec(steps=60)))
        zombie.process.send_signal(signal.SIGSTOP)  # its children go on, and finish the frames
        heir = Worker(bench, ENGINE)
        heir.wait_state("ready")
        assert wait_until(lambda: bool(sweep(bench)), timeout_s=WAIT_S)
        job = bench.wait_over(job)
        before = [bench.attempts(job), bench.files(), job]
        zombie.process.send_signal(signal.SIGCONT)
        others = [bench.submit() for _ in range(6)]
        assert {bench.wait_over(other).attempt for other in others} == {1}
        assert zombie.stop() == heir.stop() == 0
        ours = {key for key in bench.files() if key.startswith(job.public_id)}
        assert [bench.attempts(job), ours, bench.look(job)] == before
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)


def sweep(bench: Bench) -> list[jobs.Settled]:
    policy = RetryPolicy(base_s=0.0)
    return bench.db.write(
        lambda uow: jobs.sweep(uow, policy=policy, jitter=lambda: 0.5, time_limit_s=60)
    )


def test_damaged_model_is_reported_with_its_file_and_mended_without_a_restart(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "damaged").touch()
    with open_bench(tmp_path / "data", model_path=str(folder)) as bench:
        worker = Worker(bench, ENGINE)
        job = bench.submit()
        row = worker.wait_state("broken")
        assert "transformer/model.safetensors is damaged" in row.detail
        assert bench.look(job).state is JobState.QUEUED
        (folder / "damaged").unlink()
        assert bench.wait_over(job).state is JobState.SUCCEEDED
        assert worker.stop() == 0


def test_model_that_never_gets_ready_is_killed_and_loaded_again(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stuck").touch()
    with open_bench(tmp_path / "data", model_path=str(folder), load_limit_s=6.0) as bench:
        worker = Worker(bench, ENGINE)
        row = worker.wait_state("broken")
        assert "VIDMILL_LOAD_LIMIT_S" in row.detail
        job = bench.submit()
        (folder / "stuck").unlink()
        assert bench.wait_over(job).attempt == 1
        assert worker.stop() == 0


def test_drain_finishes_the_running_job_and_claims_no_other(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        worker = Worker(bench, ENGINE)
        worker.wait_state("ready")
        running = bench.submit(small_spec(steps=60))
        bench.wait_denoising(running)
        waiting = bench.submit()
        assert worker.stop() == 0
        assert bench.look(running).state is JobState.SUCCEEDED
        assert bench.look(waiting).state is JobState.QUEUED
        assert worker.row() is None
        assert list(bench.settings.run_dir.glob("*.pids")) == []


@pytest.mark.parametrize("is_second_signal", [True, False])
def test_drain_that_may_not_last_hands_the_job_back_uncounted(
    tmp_path: Path, *, is_second_signal: bool
) -> None:
    with open_bench(tmp_path, drain_s=60.0 if is_second_signal else 0.3) as bench:
        worker = Worker(bench, ENGINE)
        worker.wait_state("ready")
        job = bench.wait_trouble(bench.trouble("hang"))
        worker.process.terminate()
        if is_second_signal:
            worker.wait_state(WorkerState.DRAINING)
            worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(WAIT_S) == 0
        job = bench.look(job)
        assert (job.state, job.max_attempts) == (JobState.QUEUED, 5)
