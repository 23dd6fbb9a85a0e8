"""A real worker whose engine is a server elsewhere: its slot, its key, and what it needs."""

from collections.abc import Iterator

import pytest

from tests.twins import KEY, VideosTwin, serving
from tests.workers import Bench, Worker, command_line, open_bench, small_spec
from vidmill.domain.job import JobState

pytestmark = pytest.mark.sqlite

PROFILE = """\
base = "tiny"
engine = "openai_videos"
[remote]
dialect = "json"
progress = "percent"
cancel = "no"
poll_s = [0.05, 0.1]
"""


@pytest.fixture(scope="module")
def twin() -> Iterator[VideosTwin]:
    twin = VideosTwin()
    with serving(twin):
        yield twin


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, twin: VideosTwin
) -> Iterator[tuple[Bench, Worker]]:
    folder = tmp_path_factory.mktemp("remote")
    profile = folder / "tiny.toml"
    profile.write_text(PROFILE)
    settings = {
        "profile": str(profile),
        "remote_url": f"{twin.url}/v1",
        "remote_api_key": KEY,
        "cancel_grace_s": 10.0,
    }
    with open_bench(folder / "data", **settings) as bench:
        worker = Worker(bench)
        worker.wait_state("ready")
        yield bench, worker
        assert worker.stop() == 0


def test_a_job_is_drawn_elsewhere_and_its_result_says_so(shared: tuple[Bench, Worker]) -> None:
    bench, _ = shared
    job = bench.wait_over(bench.submit(small_spec(steps=4)))
    assert job.state is JobState.SUCCEEDED
    assert job.result is not None
    assert job.result.model["sha256"] == "remote"
    assert job.result.model["served"] == "Wan2.2-T2V-A14B"


def test_the_log_leads_from_a_job_to_the_clip_at_the_server(
    shared: tuple[Bench, Worker],
) -> None:
    bench, worker = shared
    job = bench.wait_over(bench.submit(small_spec(steps=2)))
    (ordered,) = [
        line for line in worker.said("remote_clip_ordered") if line["run"] == f"{job.public_id}/1"
    ]
    assert ordered["name"].startswith("clip-")


def test_a_failed_run_leaves_its_code_in_the_log_and_not_the_words_of_the_server(
    shared: tuple[Bench, Worker], twin: VideosTwin
) -> None:
    bench, worker = shared
    twin.fails = {"code": 400, "message": "no to 'a red ball'"}
    job = bench.wait_over(bench.submit(small_spec(steps=2)))
    twin.fails = None
    assert job.state is JobState.FAILED
    settled = worker.wait_said("job_settled", job)
    assert (settled["level"], settled["code"]) == ("warning", "spec_unsupported")
    assert "a red ball" not in worker.log_path.read_text()


def test_a_cancelled_job_is_over_at_once_but_its_slot_is_not_given_away_before_the_server_is_free(
    shared: tuple[Bench, Worker], twin: VideosTwin
) -> None:
    bench, worker = shared
    job = bench.wait_denoising(bench.submit(small_spec(steps=8)))
    pid = worker.child("render_child")
    bench.cancel(job)
    assert bench.wait_over(job).state is JobState.CANCELLED
    assert worker.wait_state("loading").detail.startswith("the server still draws")
    following = bench.wait_over(bench.submit(small_spec(steps=2)))
    assert (following.state, following.attempt) == (JobState.SUCCEEDED, 1)
    assert twin.overlaps == 0
    assert worker.child("render_child") == pid


def test_no_command_line_and_no_log_holds_the_key(shared: tuple[Bench, Worker]) -> None:
    bench, worker = shared
    bench.wait_over(bench.submit(small_spec(steps=2)))
    assert not any(KEY in command_line(pid) for pid in worker.pids())
    assert KEY not in worker.log_path.read_text()
    files = [path for path in bench.settings.data_dir.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in path.read_bytes() for path in files)
