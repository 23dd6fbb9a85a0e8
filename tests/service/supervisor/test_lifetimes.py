"""Supervisors that load, drain, freeze and die, each on a bench of its own."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.workers import (
    TROUBLED,
    WAIT_S,
    Worker,
    are_gone,
    descendants,
    open_bench,
    small_spec,
)
from vidmill.domain.job import JobState
from vidmill.store import jobs
from vidmill.store.workers import WorkerState
from vidmill.worker import proc

pytestmark = pytest.mark.sqlite  # test_spread has workers on a server


def _leads(pid: int) -> bool:
    return os.getpgid(pid) == pid


def test_watchers_hear_of_each_phase_however_seldom_of_its_steps(tmp_path: Path) -> None:
    seen: list[str] = []
    with open_bench(tmp_path, progress_interval_s=60.0) as bench:
        worker = Worker(bench, TROUBLED)
        worker.wait_state("ready")
        bench.bus.latest("any")  # from here on this process listens
        job = bench.submit()
        stop = bench.bus.subscribe(job.public_id, lambda event: seen.append(event["phase"]))
        bench.wait_over(job)
        stop()
        assert worker.stop() == 0
    assert {"denoising", "decoding", "finishing", "storing"} <= set(seen)


def test_time_limit_takes_child_and_grandchildren_that_ignore_sigterm(tmp_path: Path) -> None:
    with open_bench(tmp_path, time_limit_s=4.0) as bench:
        worker = Worker(bench, TROUBLED)
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
        worker = Worker(bench, TROUBLED)
        worker.wait_state("ready")
        job = bench.wait_trouble(bench.trouble("hang with family", max_attempts=2))
        children = {worker.child("render_child"), worker.child("finish_child")}
        family = descendants(worker.child("render_child"))
        worker.kill()
        assert are_gone(children)
        bench.db.write(lambda uow: jobs.release_dead(uow, live=()))
        bench.cancel(bench.look(job))
        successor = Worker(bench, TROUBLED)
        successor.wait_state("ready")
        in_group = {pid for pid in family if proc.stat(pid) and not _leads(pid)}
        assert are_gone(in_group)
        for pid in family - in_group:  # left its group and its parents: nobody knows it any more
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert successor.stop() == 0


def test_frozen_supervisor_wakes_up_as_a_zombie_whose_late_result_changes_nothing(
    tmp_path: Path,
) -> None:
    with open_bench(tmp_path) as bench:
        zombie = Worker(bench, TROUBLED)
        zombie.wait_state("ready")
        job = bench.wait_denoising(bench.submit(small_spec(steps=60)))
        zombie.process.send_signal(signal.SIGSTOP)  # its children go on, and finish the frames
        heir = Worker(bench, TROUBLED)
        heir.wait_state("ready")
        assert wait_until(lambda: bool(bench.sweep()), timeout_s=WAIT_S)
        job = bench.wait_over(job)
        left = {f"{job.public_id}/2"}
        assert wait_until(lambda: bench.files() == left, timeout_s=WAIT_S)
        before = [bench.attempts(job), left, job]
        zombie.process.send_signal(signal.SIGCONT)
        others = [bench.submit() for _ in range(6)]
        assert {bench.wait_over(other).attempt for other in others} == {1}
        assert zombie.stop() == heir.stop() == 0
        ours = {key for key in bench.files() if key.startswith(job.public_id)}
        assert [bench.attempts(job), ours, bench.look(job)] == before
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)


def test_damaged_model_is_reported_with_its_file_and_mended_without_a_restart(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "damaged").touch()
    with open_bench(tmp_path / "data", model_path=str(folder)) as bench:
        worker = Worker(bench, TROUBLED)
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
        worker = Worker(bench, TROUBLED)
        row = worker.wait_state("broken")
        assert "VIDMILL_LOAD_LIMIT_S" in row.detail
        job = bench.submit()
        (folder / "stuck").unlink()
        assert bench.wait_over(job).attempt == 1
        assert worker.stop() == 0


def test_drain_finishes_the_running_job_and_claims_no_other(tmp_path: Path) -> None:
    with open_bench(tmp_path) as bench:
        worker = Worker(bench, TROUBLED)
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
        worker = Worker(bench, TROUBLED)
        worker.wait_state("ready")
        job = bench.wait_trouble(bench.trouble("hang"))
        worker.process.terminate()
        if is_second_signal:
            worker.wait_state(WorkerState.DRAINING)
            worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(WAIT_S) == 0
        job = bench.look(job)
        assert (job.state, job.max_attempts) == (JobState.QUEUED, 5)
