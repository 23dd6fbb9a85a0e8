"""Following a task: one reader for all who follow it, and news that heal."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.callers import make_caller
from tests.desks import Bench
from vidmill.api import following
from vidmill.api.desk import Desk
from vidmill.api.following import Following, Watcher, changed
from vidmill.domain.errors import ServiceUnavailable, TaskNotFound
from vidmill.domain.job import JobState, Phase
from vidmill.services.access import Caller
from vidmill.services.tasks import Tasks, TaskView
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

CALLER = make_caller(1)


@dataclass(frozen=True, kw_only=True)
class CountingTasks(Tasks):
    """Counts how often a row is read."""

    reads: list[str]

    def get(self, task_id: str, caller: Caller) -> TaskView:
        self.reads.append(task_id)
        return super().get(task_id, caller)

    def get_many(self, asked: Sequence[tuple[str, Caller]]) -> list[TaskView | Exception]:
        self.reads.extend(task_id for task_id, _ in asked)
        return super().get_many(asked)


@dataclass(frozen=True)
class Stage:
    bench: Bench
    tasks: CountingTasks
    following: Following

    def view(self, task_id: str) -> TaskView:
        return Tasks.get(self.tasks, task_id, CALLER)

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await work()

        return asyncio.run(bounded())


@pytest.fixture
def stage(bench: Bench) -> Stage:
    desk = Desk.of(bench.app)
    tasks = CountingTasks(**vars(desk.tasks), reads=[])
    return Stage(bench, tasks, Following(tasks, desk.reads, watchers_max=1000))


def test_a_thousand_who_follow_one_task_read_its_row_as_one_does(stage: Stage) -> None:
    view = stage.view(stage.bench.generate()["task_id"])
    heard: list[TaskView | None] = []

    async def follow() -> None:
        stops = [stage.following.watch(view, CALLER, heard.append) for _ in range(999)]
        with Watcher(stage.following, view, CALLER) as last:
            await last.next(5)  # the first look
            await last.next(5)  # the one REREAD_S later
        assert (stage.following.num_watchers, len(heard)) == (999, 1998)
        for stop in stops:
            stop()

    stage.run(follow)

    assert len(stage.tasks.reads) == 2
    assert stage.following.num_watchers == 0


def test_beyond_the_limit_nobody_may_watch(stage: Stage) -> None:
    view = stage.view(stage.bench.generate()["task_id"])
    desk = Desk.of(stage.bench.app)
    narrow = Following(stage.tasks, desk.reads, watchers_max=1)

    async def crowd() -> None:
        with Watcher(narrow, view, CALLER):
            with pytest.raises(ServiceUnavailable), Watcher(narrow, view, CALLER):
                pass
            assert narrow.num_watchers == 1
        with Watcher(narrow, view, CALLER):
            pass

    stage.run(crowd)


def test_news_of_the_same_run_reach_a_watcher_without_reading_the_row(stage: Stage) -> None:
    task_id = stage.bench.generate()["task_id"]
    job = stage.bench.claim()
    view = stage.view(task_id)

    async def follow() -> TaskView:
        with Watcher(stage.following, view, CALLER) as watcher:
            await watcher.next(5)  # the first look
            stage.tasks.reads.clear()
            event = {"attempt": 1, "state": JobState.RUNNING, "phase": Phase.DENOISING}
            stage.bench.app.bus.publish(job.public_id, {**event, "progress": 0.4})
            return await watcher.next(5)

    assert stage.run(follow).progress == 0.4
    assert stage.tasks.reads == []


def test_a_change_without_an_event_is_seen_within_the_reread_time(stage: Stage) -> None:
    task_id = stage.bench.generate()["task_id"]
    view = stage.view(task_id)

    async def follow() -> tuple[TaskView, float]:
        loop = asyncio.get_running_loop()
        with Watcher(stage.following, view, CALLER) as watcher:
            await watcher.next(5)
            job = await asyncio.to_thread(stage.bench.claim)
            lost = jobs.Failed(code="bad_output", message="black")
            await asyncio.to_thread(stage.bench.settle, job, lost)
            began = loop.time()
            news = view
            while not news.is_over:
                news = await watcher.next(5)
            return news, loop.time() - began

    news, took_s = stage.run(follow)

    assert news.status == "failed"
    assert took_s < following.REREAD_S + 1


def test_who_follows_an_erased_task_is_told(stage: Stage) -> None:
    task_id = stage.bench.generate()["task_id"]
    view = stage.view(task_id)

    async def follow() -> None:
        await asyncio.to_thread(stage.tasks.erase, task_id, CALLER)
        with Watcher(stage.following, view, CALLER) as watcher, pytest.raises(TaskNotFound):
            await watcher.next(5)

    stage.run(follow)


def test_a_twin_shows_its_leaders_progress_and_ends_with_it(stage: Stage) -> None:
    bench = stage.bench
    bench.generate(cache=True)
    twin = stage.view(bench.generate(cache=True)["task_id"])
    job = bench.claim()

    async def follow() -> list[TaskView]:
        seen = []
        with Watcher(stage.following, twin, CALLER) as watcher:
            seen.append(await watcher.next(5))
            event = {"attempt": 1, "state": JobState.RUNNING, "phase": Phase.DENOISING}
            bench.app.bus.publish(job.public_id, {**event, "progress": 0.4})
            seen.append(await watcher.next(5))
            await asyncio.to_thread(
                bench.settle, job, jobs.Failed(code="bad_output", message="black")
            )
            while not seen[-1].is_over:
                seen.append(await watcher.next(5))
        return seen

    seen = stage.run(follow)

    assert [(view.status, view.progress) for view in seen[:2]] == [
        ("processing", 0.0),
        ("processing", 0.4),
    ]
    assert (seen[-1].status, seen[-1].job.error_code) == ("failed", "bad_output")
    keys = [view.order_key for view in seen]
    assert keys == sorted(keys)


def test_a_long_poll_ends_with_the_first_change(stage: Stage) -> None:
    view = stage.view(stage.bench.generate()["task_id"])

    async def poll() -> TaskView:
        waiting = asyncio.create_task(changed(stage.following, view, CALLER, timeout_s=10))
        await asyncio.to_thread(stage.bench.claim)
        return await waiting

    assert stage.run(poll).status == "processing"


def test_a_promoted_twin_is_news_though_it_is_queued_again(stage: Stage) -> None:
    twin = stage.view(stage.bench.generate()["task_id"])
    followed = replace(twin, leader=replace(twin.job, state=JobState.RUNNING, attempt=1))

    assert twin.is_news_after(followed)
