"""Many clips at once: every clip has exactly one outcome, and one failure stops no other."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from vidmill.client import ClipRequest, Outcome, Task, TaskFailed, VidmillError
from vidmill.client._many import run_batch, run_batch_async

CLIPS = [ClipRequest(prompt=str(number)) for number in range(20)]


def submit(clip: ClipRequest) -> Task:
    if clip.prompt == "3":
        raise VidmillError("refused")
    return Task(task_id=clip.prompt, status="queued")


def wait(task: Task, *, on_progress: Any) -> str:
    on_progress(task.model_copy(update={"status": "processing"}))
    if task.task_id == "5":
        raise TaskFailed("failed", task.model_copy(update={"status": "failed"}))
    return f"video {task.task_id}"


async def submit_async(clip: ClipRequest) -> Task:
    return submit(clip)


async def wait_async(task: Task, *, on_progress: Any) -> str:
    await asyncio.sleep(0)
    return wait(task, on_progress=on_progress)


def in_order(outcomes: list[Outcome[str]]) -> list[Outcome[str]]:
    return sorted(outcomes, key=lambda outcome: outcome.index)


def check(outcomes: list[Outcome[str]], reports: list[tuple[int, str]]) -> None:
    assert [outcome.index for outcome in in_order(outcomes)] == list(range(20))
    by_index = {outcome.index: outcome for outcome in outcomes}
    assert by_index[3].task is None
    assert str(by_index[3].error) == "refused"
    assert by_index[5].task is not None
    assert by_index[5].task.status == "failed"
    good = [o for o in outcomes if o.error is None]
    assert {o.video for o in good} == {f"video {n}" for n in range(20) if n not in {3, 5}}
    for index in set(range(20)) - {3}:
        assert [s for i, s in reports if i == index] == ["queued", "processing"]


@pytest.mark.parametrize("concurrency", [1, 3, 64])
def test_threads_give_each_clip_one_outcome(concurrency: int) -> None:
    reports: list[tuple[int, str]] = []
    threads = set()

    def report(index: int, task: Task) -> None:
        threads.add(threading.get_ident())
        reports.append((index, task.status))

    batch = run_batch(CLIPS, submit=submit, wait=wait, concurrency=concurrency, report=report)
    check(list(batch), reports)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("concurrency", [1, 3, 64])
def test_coroutines_give_each_clip_one_outcome(concurrency: int) -> None:
    reports: list[tuple[int, str]] = []

    async def collect() -> list[Outcome[str]]:
        batch = run_batch_async(
            CLIPS,
            submit=submit_async,
            wait=wait_async,
            concurrency=concurrency,
            report=lambda index, task: reports.append((index, task.status)),
        )
        return [outcome async for outcome in batch]

    check(asyncio.run(collect()), reports)


def test_task_handed_in_before_is_only_waited_for() -> None:
    def never(_clip: ClipRequest) -> Task:
        raise AssertionError

    old = [Task(task_id="old", status="processing")]
    batch = run_batch(old, submit=never, wait=wait, concurrency=2, report=None)
    assert [outcome.video for outcome in batch] == ["video old"]


def test_defect_in_a_thread_comes_out_where_the_caller_iterates() -> None:
    def broken(_clip: ClipRequest) -> Task:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run_batch(CLIPS, submit=broken, wait=wait, concurrency=2, report=None))


def test_leaving_early_ends_the_waiting() -> None:
    waiting, gone = threading.Event(), threading.Event()

    def wait_long(task: Task, *, on_progress: Any) -> str:
        if task.task_id == "0":
            return "first"
        waiting.set()
        try:
            while True:
                on_progress(task)
        finally:
            gone.set()

    batch = run_batch(CLIPS, submit=submit, wait=wait_long, concurrency=2, report=None)
    assert next(o for o in batch if o.video).video == "first"
    assert waiting.wait(10)
    batch.close()
    assert gone.wait(10)


def test_leaving_early_cancels_the_coroutines() -> None:
    async def wait_for_ever(task: Task, *, on_progress: Any) -> str:
        return "first" if task.task_id == "0" else await asyncio.Future()

    async def leave() -> None:
        batch: AsyncGenerator[Outcome[str], None] = run_batch_async(
            CLIPS, submit=submit_async, wait=wait_for_ever, concurrency=4, report=None
        )
        async for outcome in batch:
            if outcome.video:
                break
        await batch.aclose()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(leave())


def test_no_clips_give_no_outcomes() -> None:
    assert list(run_batch([], submit=submit, wait=wait, concurrency=4, report=None)) == []
