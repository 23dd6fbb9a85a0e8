"""Faults inside a whole worker: its render and finish children are real, its engine is troubled."""

import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.kills import OVER_S, fenced, when
from tests.faults.processes import Worker
from tests.faults.shared import Services
from tests.faults.stage import Stage, open_stage, pause
from tests.faults.verdict import Verdict
from tests.waiting import wait_until
from tests.workers import QUICK, Bench, descendants, small_spec
from tests.workers import Worker as WholeWorker
from vidmill.domain.job import JobState
from vidmill.worker.proc import stat

ENGINE = "tests.service.troubled_engine:TroubledEngine"
SEED = 20
STEPS = 60
"""Of 20 ms each: a fault must meet the clip while it is drawn."""
FORGIVING = {"worker_failures": 1000, "breaker_failures": 1000}
"""Children killed from outside look like a broken engine, which would take the worker out."""
WHOLE = {name: QUICK[name] for name in ("encoder_preset", "interpolation", "torch_threads")}


@contextmanager
def whole_workers(stage: Stage, count: int) -> Iterator[tuple[Bench, list[WholeWorker]]]:
    """Yield what orders clips, and *count* workers that are ready."""
    bench = Bench(stage.settings, stage.db)
    workers = [WholeWorker(bench, ENGINE) for _ in range(count)]
    try:
        for worker in workers:
            worker.wait_state("ready")
        stage.workers += [
            Worker(name=w.name, process=AsProcess(w), log_path=w.log_path) for w in workers
        ]
        yield bench, workers
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.kill()
        bench.tickets.close()
        bench.bus.close()


class AsProcess:
    """A whole worker as the stage knows processes."""

    def __init__(self, worker: WholeWorker) -> None:
        self._worker = worker
        self.pid = worker.process.pid

    def is_alive(self) -> bool:
        return self._worker.process.poll() is None

    def kill(self) -> None:
        self._worker.kill()

    def join(self) -> None:
        self._worker.process.wait()


def child_killed(services: Services, *, kills: int) -> Verdict:
    """kill -9 the render child in the middle of a clip; its supervisor lives on."""
    verdict, rng = Verdict(), random.Random(SEED)
    settings = {**WHOLE, **FORGIVING}
    with open_stage(services, **settings) as stage, whole_workers_of(stage, 2) as (bench, workers):
        supervisors = [worker.process.pid for worker in workers]
        times = []
        for _ in range(kills):
            job = bench.submit(small_spec(steps=STEPS))
            row = bench.wait(job, lambda j: j.state is JobState.RUNNING)
            pause(rng.uniform(0.1, 0.8))
            worker = next(w for w in workers if w.name == row.worker)
            killed_at = time.time()
            os.kill(worker.child("render_child"), signal.SIGKILL)
            ended = bench.wait_over(job)
            verdict.require(ended.state is JobState.SUCCEEDED, f"{ended.state}")
            verdict.require(ended.attempt <= 2, f"{ended.attempt} attempts")
            query = "SELECT started_at FROM attempts WHERE job_id = :job AND attempt = 2"
            times += [row[0] - killed_at for row in stage.rows(query, job=job.id)]
            worker.wait_state("ready")
        verdict.done = f"{kills} render children killed in the middle of a clip"
        verdict.hold("tried again after at most", max(times, default=0), at_most=2, unit="s")
        verdict.note(f"{len(times)} runs counted, once each")
        verdict.require(bool(times), "no kill met a run")
        alive = [worker.process.pid for worker in workers if worker.process.poll() is None]
        verdict.require(alive == supervisors, "a supervisor died")
        verdict.judge(stage)
    return verdict


@contextmanager
def whole_workers_of(stage: Stage, count: int) -> Iterator[tuple[Bench, list[WholeWorker]]]:
    """The same, with a controller beside them."""
    stage.serve()
    with whole_workers(stage, count) as found:
        yield found


def frozen_supervisor(services: Services, *, freezes: int) -> Verdict:
    """SIGSTOP a supervisor past its lease while its children go on; then SIGCONT."""
    verdict = Verdict()
    with open_stage(services, **WHOLE) as stage, whole_workers_of(stage, 2) as (bench, workers):
        for _ in range(freezes):
            job = bench.submit(small_spec(steps=STEPS))
            row = bench.wait(job, lambda j: j.state is JobState.RUNNING)
            zombie = next(w for w in workers if w.name == row.worker)
            zombie.process.send_signal(signal.SIGSTOP)
            ended = bench.wait_over(job)
            zombie.process.send_signal(signal.SIGCONT)
            verdict.require(ended.state is JobState.SUCCEEDED, f"{ended.state}")
            verdict.require(ended.attempt == 2, f"{ended.attempt} attempts")
            is_clean = wait_until(
                lambda b=bench, j=ended: prefixes(b, j.public_id) == {f"{j.public_id}/2"},  # type: ignore[misc]
                timeout_s=10,
            )
            verdict.require(is_clean, "the zombie's files are still there")
            zombie.wait_state("ready")
        verdict.done = f"{freezes} supervisors frozen past their lease, their children not"
        verdict.note(f"{fenced(stage)} late writes or leases refused")
        verdict.require(fenced(stage) == freezes, f"{fenced(stage)} of {freezes} were refused")
        verdict.judge(stage)
    return verdict


def prefixes(bench: Bench, public_id: str) -> set[str]:
    return {key for key in bench.files() if key.startswith(public_id)}


def hard_limit(services: Services, *, times: int, limit_s: float = 2.0) -> Verdict:
    """A render child heeds no signal and has children of its own, one in another session."""
    verdict = Verdict()
    settings = {**WHOLE, "time_limit_s": limit_s}
    with open_stage(services, **settings) as stage, whole_workers_of(stage, 1) as (bench, workers):
        late, gone = [], []
        for _ in range(times):
            job = bench.trouble("hang with family")
            bench.wait_trouble(job)
            child = workers[0].child("render_child")
            when(lambda c=child: len(descendants(c)) == 2, timeout_s=limit_s / 2)  # type: ignore[misc]
            family = descendants(child)
            ended = bench.wait_over(job)
            verdict.require(ended.error_code == "timed_out", f"{ended.error_code}")
            verdict.require(len(family) == 2, f"{len(family)} grandchildren")
            assert ended.finished_at is not None
            assert ended.started_at is not None
            late.append(ended.finished_at - ended.started_at - limit_s)
            all_gone = when(lambda f=family, c=child: not any(map(stat, [*f, c])), timeout_s=20)  # type: ignore[misc]
            gone.append(20.0 if all_gone is None else all_gone)
            following = bench.wait_over(bench.submit())
            verdict.require(following.state is JobState.SUCCEEDED, "the next clip failed")
        verdict.done = f"{times} children past the limit of {limit_s:g} s, two grandchildren each"
        verdict.hold("ended after the limit by", max(late), at_most=1, unit="s")
        verdict.hold("whole family gone after that by", max(gone), at_most=1, unit="s")
        verdict.judge(stage)
    return verdict


@contextmanager
def full_disk(pid: int, size_bytes: int) -> Iterator[None]:
    """Let no file of that process grow beyond *size_bytes*: what a full disk is like."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def artifact_disk_full(services: Services, *, times: int) -> Verdict:
    """No room for the finished file, until there is."""
    verdict = Verdict()
    with open_stage(services, **WHOLE) as stage, whole_workers_of(stage, 1) as (bench, workers):
        codes = set()
        for _ in range(times):
            with full_disk(workers[0].child("finish_child"), 0):
                job = bench.submit()
                bench.wait(job, lambda j: j.error_code is not None)
                codes.add(bench.look(job).error_code)
            ended = bench.wait_over(job)
            verdict.require(ended.state is JobState.SUCCEEDED, f"{ended.state}")
        verdict.done = f"the artifact disk full {times} times, then free again"
        verdict.note(f"errors meanwhile: {', '.join(sorted(map(str, codes)))}")
        verdict.require(codes <= {"disk_full", "storage_failed"}, f"errors {codes}")
        verdict.judge(stage)
    return verdict


def sqlite_disk_full(services: Services, *, times: int) -> Verdict:
    """No room for the database's own file: the API says 503 and goes on when there is room."""
    verdict = Verdict()
    with open_stage(services, database="sqlite", broker="local") as stage:
        replica = stage.serve()[0]
        stage.hire(2)
        client = stage.client()
        for _ in range(times):
            assert client.submit()
            size_bytes = (stage.folder / "vidmill.db").stat().st_size
            with full_disk(replica.process.pid, min(size_bytes, 1024)):
                for _ in range(10):
                    client.submit()
            is_back = wait_until(lambda: bool(client.submit()), timeout_s=30, step_s=0.2)
            verdict.require(is_back, "submits go on failing when there is room")
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        answers = {str(k): n for k, n in stage.history.statuses("submit").items()}
        verdict.done = f"the database's disk full {times} times for 10 submits"
        verdict.note(f"answers to submits: {answers}")
        verdict.require(set(answers) == {"202", "503"}, f"answers {answers}")
        whole = stage.rows("PRAGMA integrity_check")[0][0]
        verdict.require(whole == "ok", f"integrity check: {whole}")
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict
