"""The SDK against the real API and a real database; the worker is played by hand."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.desks import KEY
from tests.servers import CONTENTS, WAIT_S, Server, claim_when_queued, deliver, fail, working
from vidmill.client import (
    AsyncVidmill,
    ClipRequest,
    InvalidRequest,
    NotFinished,
    NotFound,
    Outcome,
    ServerUnreachable,
    Task,
    TaskCancelled,
    TaskFailed,
    Timeout,
    Unauthorized,
    Video,
    Vidmill,
)

pytestmark = pytest.mark.sqlite
"""What is tried here is a client; `tests/service/store` and others try both databases."""


def test_generate_waits_and_the_saved_file_is_what_was_stored(
    server: Server, vidmill: Vidmill, tmp_path: Path
) -> None:
    seen: list[Task] = []
    with working(server.bench, deliver):
        video = vidmill.generate(
            "a red ball", duration_s=3, resolution="480p", seed=7, on_progress=seen.append
        )
    path = video.save(tmp_path / "out" / "clip.mp4")
    assert path.read_bytes() == CONTENTS["video"]
    assert video.save_poster(tmp_path / "p.jpg").read_bytes() == CONTENTS["poster"]
    assert video.save_preview(tmp_path / "p.webp").read_bytes() == CONTENTS["preview"]
    assert video.bytes() == CONTENTS["video"]
    assert (video.result.width, video.result.duration, video.seed) == (832, 3.0, 7)
    assert (video.result.native_width, video.result.is_upscaled) == (80, True)
    assert seen[0].status == "queued"
    assert seen[-1].status == "completed"
    assert [t.progress for t in seen] == sorted(t.progress for t in seen)


def test_every_wrong_field_is_named_and_nothing_is_queued(vidmill: Vidmill) -> None:
    with pytest.raises(InvalidRequest) as caught:
        vidmill.submit(ClipRequest(prompt=" ", duration_s=2.9, resolution="4k", seed=-1))
    fields = {error.field: error.code for error in caught.value.errors}
    assert set(fields) == {"prompt", "duration", "resolution", "seed"}
    assert caught.value.code == "invalid_request"
    assert caught.value.request_id
    assert list(vidmill.tasks()) == []


def test_every_field_of_the_request_arrives(vidmill: Vidmill) -> None:
    clip = ClipRequest(
        prompt="a red ball",
        duration_s=3.5,
        resolution="480p",
        frame_rate=16,
        seed=5,
        negative_prompt="blur",
        use_default_negative_prompt=False,
        priority="low",
        client_reference="mine",
        metadata={"a": "b"},
    )
    task = vidmill.task(vidmill.submit(clip).task_id)
    assert task.request is not None
    assert clip.to_wire().items() <= task.request.items()
    assert (task.client_reference, task.steps) == ("mine", 12)


def test_failure_carries_the_servers_reason(server: Server, vidmill: Vidmill) -> None:
    with working(server.bench, fail), pytest.raises(TaskFailed, match="black") as caught:
        vidmill.generate("a red ball")
    assert caught.value.task.error is not None
    assert caught.value.task.error.code == "bad_output"
    with pytest.raises(TaskFailed):
        vidmill.result(caught.value.task.task_id)


def test_cancelled_task_ends_the_wait(vidmill: Vidmill) -> None:
    task = vidmill.submit("a red ball")
    timer = threading.Timer(0.2, lambda: vidmill.cancel(task.task_id))
    timer.start()
    with pytest.raises(TaskCancelled):
        vidmill.wait(task)
    timer.join()
    assert vidmill.cancel(task.task_id).status == "cancelled"  # once more does no harm


def test_wait_that_is_too_short_leaves_the_task_alone(vidmill: Vidmill) -> None:
    task = vidmill.submit("a red ball")
    started = time.monotonic()
    with pytest.raises(Timeout):
        vidmill.wait(task, timeout_s=0.3)
    assert time.monotonic() - started < 5
    assert vidmill.status(task.task_id).status == "queued"
    with pytest.raises(NotFinished):
        vidmill.result(task.task_id)


def test_wait_outlives_a_restart_of_the_server(server: Server, vidmill: Vidmill) -> None:
    task = vidmill.submit("a red ball")
    videos: list[Video] = []
    waiter = threading.Thread(target=lambda: videos.append(vidmill.wait(task)))
    waiter.start()
    time.sleep(0.2)
    server.stop()
    deliver(server.bench, claim_when_queued(server.bench))
    time.sleep(0.5)
    server.start()
    waiter.join(WAIT_S)
    assert [video.bytes() for video in videos] == [CONTENTS["video"]]


def test_tasks_are_listed_over_all_pages_newest_first(vidmill: Vidmill) -> None:
    made = [
        vidmill.submit(ClipRequest(prompt=str(n), client_reference=str(n % 2))) for n in range(5)
    ]
    ids = [task.task_id for task in reversed(made)]
    assert [task.task_id for task in vidmill.tasks(page_size=2)] == ids
    odd = vidmill.tasks(client_reference="1", page_size=1)
    assert [task.task_id for task in odd] == ids[1::2]
    assert list(vidmill.tasks(status="completed")) == []


def test_a_finished_task_is_made_once_more_with_the_same_seed(
    server: Server, vidmill: Vidmill
) -> None:
    with working(server.bench, fail):
        first = vidmill.submit(ClipRequest(prompt="a red ball", seed=7))
        with pytest.raises(TaskFailed):
            vidmill.wait(first)
    again = vidmill.retry(first.task_id)
    assert (again.status, again.parent_task_id) == ("queued", first.task_id)
    with working(server.bench, deliver):
        assert vidmill.wait(again).seed == 7


def test_a_deleted_task_is_gone_and_a_search_finds_only_its_own(vidmill: Vidmill) -> None:
    ball, star = vidmill.submit("a red ball"), vidmill.submit("一个黄色的星星")
    assert [task.task_id for task in vidmill.tasks(q="RED b")] == [ball.task_id]
    assert [task.task_id for task in vidmill.tasks(q="星星")] == [star.task_id]
    vidmill.delete(ball.task_id)
    assert [task.task_id for task in vidmill.tasks()] == [star.task_id]
    with pytest.raises(NotFound):
        vidmill.status(ball.task_id)


def test_wrong_key_and_unknown_task_have_errors_of_their_own(
    server: Server, vidmill: Vidmill
) -> None:
    with Vidmill(server.url, "wrong") as stranger, pytest.raises(Unauthorized):
        stranger.submit("a red ball")
    with pytest.raises(NotFound):
        vidmill.status("t2v_0")


def test_capabilities_and_readiness_are_typed(vidmill: Vidmill) -> None:
    found = vidmill.capabilities()
    assert (found.duration.min, found.duration.max) == (3.0, 10.0)
    assert [size.name for size in found.resolutions] == ["480p", "720p"]
    assert (found.model.name, found.limits.prompt_max_chars) == ("tiny", 200)
    readiness = vidmill.readiness()
    assert not readiness.is_ready
    assert readiness.missing.startswith("worker: ")


def test_many_clips_come_back_each_with_its_own_end(server: Server, vidmill: Vidmill) -> None:
    clips = [ClipRequest(prompt=f"ball {n}") for n in range(4)] + [ClipRequest(prompt="")]
    with working(server.bench, deliver, fail, deliver, deliver):
        outcomes = sorted(vidmill.generate_many(clips), key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4]
    errors = [type(outcome.error).__name__ for outcome in outcomes]
    assert sorted(errors[:4]) == ["NoneType", "NoneType", "NoneType", "TaskFailed"]
    assert (errors[4], outcomes[4].task) == ("InvalidRequest", None)


def test_server_that_is_not_there_is_named(server: Server) -> None:
    server.stop()
    with Vidmill(server.url, KEY) as client, pytest.raises(ServerUnreachable, match=server.url):
        client.status("t2v_0")
    server.start()


def test_async_client_does_the_same(server: Server, tmp_path: Path) -> None:
    seen: list[str] = []

    async def on_progress(task: Task) -> None:
        await asyncio.sleep(0)
        seen.append(task.status)

    async def use() -> dict[str, Any]:
        async with AsyncVidmill(server.url, KEY) as vidmill:
            video = await vidmill.generate("a red ball", duration_s=3, on_progress=on_progress)
            path = await video.save(tmp_path / "clip.mp4")
            listed = [task.task_id async for task in vidmill.tasks(page_size=1)]
            clips = [ClipRequest(prompt=f"ball {n}") for n in range(3)]
            many: list[Outcome[Any]] = [outcome async for outcome in vidmill.generate_many(clips)]
            late = await vidmill.submit("late")
            cancelled = await vidmill.cancel(late.task_id)
            return {
                "saved": path.read_bytes(),
                "poster": await video.bytes(variant="poster"),
                "listed": listed == [video.task_id],
                "many": sorted(outcome.index for outcome in many if outcome.video),
                "cancelled": cancelled.status,
                "capable": (await vidmill.capabilities()).model.name,
                "ready": (await vidmill.readiness()).is_ready,
            }

    with working(server.bench, deliver, deliver, deliver, deliver):
        found = asyncio.run(use())
    assert found == {
        "saved": CONTENTS["video"],
        "poster": CONTENTS["poster"],
        "listed": True,
        "many": [0, 1, 2],
        "cancelled": "cancelled",
        "capable": "tiny",
        "ready": False,
    }
    assert (seen[0], seen[-1]) == ("queued", "completed")
