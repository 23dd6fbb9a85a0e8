"""Preview frames: kept while a clip is drawn, shown by `explain`, gone with the task."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desks import Bench, finish, path_of
from tests.waiting import wait_until
from tests.workers import WAIT_S, Worker, open_bench, small_spec
from tests.workers import Bench as WorkerBench
from vidmill.domain.job import Job, JobState
from vidmill.domain.preview_frames import preview_key
from vidmill.store import jobs

ENGINE = "tests.service.troubled_engine:TroubledEngine"
STEPS = {"1/step-2.jpg", "1/step-5.jpg", "1/step-8.jpg"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerBench]:
    """One worker that all tests of this module put work into."""
    with open_bench(tmp_path_factory.mktemp("shared")) as bench:
        worker = Worker(bench, ENGINE)
        worker.wait_state("ready")
        yield bench
        assert worker.stop() == 0


def pictures(bench: WorkerBench, job: Job) -> set[str]:
    """Return the preview frames of all runs of *job*, as `<attempt>/<name>`."""
    folder = bench.settings.data_dir / "files" / job.public_id
    return {str(path.relative_to(folder)) for path in folder.rglob("step-*.jpg")}


@pytest.mark.sqlite
def test_pictures_are_kept_from_the_middle_of_a_run(shared: WorkerBench) -> None:
    job = shared.wait_over(shared.submit())

    assert job.state is JobState.SUCCEEDED
    # Where storing one takes longer than to the next, that next one is left out.
    assert {"1/step-2.jpg"} <= pictures(shared, job) <= STEPS
    assert not list(shared.settings.scratch_dir.rglob("*.jpg"))


@pytest.mark.sqlite
def test_pictures_of_runs_that_failed_stay(shared: WorkerBench) -> None:
    job = shared.wait_over(shared.trouble("run out of memory", max_attempts=2))

    assert job.state is JobState.FAILED
    assert {name.partition("/")[0] for name in pictures(shared, job)} == {"1", "2"}


@pytest.mark.sqlite
def test_a_cancelled_run_leaves_no_pictures(shared: WorkerBench) -> None:
    long = shared.submit(small_spec(steps=60))
    job = shared.wait(long, lambda job: bool(pictures(shared, job)))
    shared.cancel(job)

    assert shared.wait_over(job).state is JobState.CANCELLED
    assert wait_until(lambda: not pictures(shared, job), timeout_s=WAIT_S)


@pytest.mark.sqlite
def test_an_operator_may_want_none(tmp_path: Path) -> None:
    with open_bench(tmp_path, preview_frames=False) as bench:
        worker = Worker(bench, ENGINE)
        job = bench.wait_over(bench.submit())

        assert (job.state, pictures(bench, job)) == (JobState.SUCCEEDED, set())
        assert worker.stop() == 0


def keep(bench: Bench, prefix: str, *steps: int) -> None:
    """Store pictures as a render child does."""
    for step in steps:
        source = bench.folder / "picture.jpg"
        source.write_bytes(b"a picture")
        bench.app.blobs.put_file(preview_key(prefix, step), source, content_type="image/jpeg")


def shown(bench: Bench, task_id: str) -> list[tuple[int, int]]:
    """Return step and number of steps of each picture that `explain` links to."""
    doc = bench.client.get(f"/v1/t2v/tasks/{task_id}/explain").json()
    for frame in doc["preview_frames"]:
        picture = bench.stranger().get(path_of(frame["url"]))
        assert (picture.content, picture.headers["content-type"]) == (b"a picture", "image/jpeg")
    return [(frame["step"], frame["of"]) for frame in doc["preview_frames"]]


def test_pictures_are_shown_from_the_run_on(bench: Bench) -> None:
    task_id = str(bench.generate()["task_id"])
    assert shown(bench, task_id) == []
    job = bench.claim()
    assert shown(bench, task_id) == []
    keep(bench, f"{task_id}/1", 3)
    assert shown(bench, task_id) == [(3, 12)]
    keep(bench, f"{task_id}/1", 6)
    bench.settle(job, jobs.Failed(code="engine_failed", message="it broke"))

    assert shown(bench, task_id) == [(3, 12), (6, 12)]


def test_a_clip_from_the_cache_shows_the_pictures_of_the_run_that_made_it(bench: Bench) -> None:
    made = finish(bench, cache=True, seed=7)
    keep(bench, f"{made}/1", 3, 6, 9)

    again = bench.client.post("/v1/t2v/generate", json={"prompt": "a red ball", "seed": 7}).json()

    assert (again["cached"], again["status"]) == (True, "completed")
    assert shown(bench, again["task_id"]) == [(3, 12), (6, 12), (9, 12)]


def test_a_task_that_shares_a_run_shows_its_pictures(bench: Bench) -> None:
    leader = bench.generate(cache=True, seed=7)["task_id"]
    follower = bench.generate(cache=True, seed=7)["task_id"]
    bench.claim()
    keep(bench, f"{leader}/1", 3)

    assert shown(bench, follower) == [(3, 12)]


def test_pictures_are_erased_with_their_task(bench: Bench) -> None:
    task_id = finish(bench)
    keep(bench, f"{task_id}/1", 3)

    assert bench.client.delete(f"/v1/t2v/tasks/{task_id}").status_code == 204
    assert bench.app.blobs.head(preview_key(f"{task_id}/1", 3)) is None
