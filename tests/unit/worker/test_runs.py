import os

import pytest

from tests.builders import make_spec
from vidmill.domain.job import Job, JobState, Lane, Phase
from vidmill.worker.frames import create
from vidmill.worker.runs import Clip, Run, Runs, Stage


def make_running_job(number: int = 1, attempt: int = 1) -> Job:
    return Job(
        id=number,
        public_id=f"t2v_{number}",
        tenant_id=1,
        pool="default",
        lane=Lane.STANDARD,
        state=JobState.RUNNING,
        attempt=attempt,
        max_attempts=4,
        spec=make_spec(),
        request={},
        est_cost_s=1.0,
        submitted_at=0.0,
    )


def make_run(attempt: int = 1) -> Run:
    return Runs().begin(make_running_job(attempt=attempt))


def test_progress_never_falls() -> None:
    run = make_run()
    run.advance(Phase.DENOISING, 6, 12)
    before = (run.phase, run.progress)
    run.advance(Phase.ENCODING_TEXT, 1, 1)
    run.advance(Phase.DENOISING, 5, 12)
    assert (run.phase, run.progress) == before


def test_progress_moves_at_every_step_and_through_all_phases() -> None:
    run, seen = make_run(), list[float]()
    for phase in (Phase.ENCODING_TEXT, Phase.DENOISING, Phase.DECODING, Phase.FINISHING):
        for done in range(1, 13):
            run.advance(phase, done, 12)
            seen.append(run.progress)
    assert seen == sorted(set(seen))
    assert run.event() == {
        "attempt": 1,
        "state": "running",
        "phase": "finishing",
        "progress": 0.98,
    }


def test_files_of_each_attempt_have_a_place_of_their_own() -> None:
    assert [make_run(attempt).prefix for attempt in (1, 2)] == ["t2v_1/1", "t2v_1/2"]


def test_runs_are_found_by_number_by_attempt_and_by_stage() -> None:
    runs = Runs()
    first, second = runs.begin(make_running_job(1)), runs.begin(make_running_job(2, attempt=3))
    first.stage = Stage.WAITING
    assert runs.get(second.number) is second
    assert runs.find("t2v_2", 3) is second
    assert runs.find("t2v_2", 2) is None
    assert runs.at(Stage.WAITING) is first
    assert runs.at(Stage.FINISHING) is None
    assert (len(runs), runs.backlog) == (2, 1)


def test_ended_run_closes_its_frames_and_its_number_is_not_used_again() -> None:
    runs = Runs()
    run = runs.begin(make_running_job())
    descriptor, _ = create((1, 2, 2, 3))
    run.clip = Clip(fd=descriptor, shape=[1, 2, 2, 3], timings_s={}, identity={})
    runs.end(run)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert list(runs) == []
    assert runs.begin(make_running_job()).number == run.number + 1
