"""Faults of workers: killed, frozen past their lease, cut off, replaced one by one."""

import random
import signal
import time
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

from tests.faults.history import percentile
from tests.faults.processes import Worker
from tests.faults.proxy import FaultProxy, Mode
from tests.faults.shared import Services, name_of
from tests.faults.stage import Stage, open_stage, pause
from tests.faults.verdict import Verdict
from tests.waiting import wait_until

SEED = 20
OVER_S = 300.0
"""Far above what the work that is left may take when the fault is over."""


def random_kills(
    services: Services,
    *,
    jobs: int,
    workers: int,
    rate_per_s: float | None = None,
    every_s: float = 1.5,
    broker: str = "redis",
    database: str = "postgresql",
) -> Verdict:
    """kill -9 a random worker again and again; put a new one in its place.

    With a rate the workers keep up, so that a job made up for starts at once; without one it takes
    its fair turn among all that wait.
    """
    verdict, rng = Verdict(), random.Random(SEED)
    killed: dict[str, float] = {}
    with open_stage(services, broker=broker, database=database) as stage:
        stage.work_s = 0.04  # so long that most kills meet a run
        stage.serve(2)
        stage.hire(workers)
        began = time.monotonic()
        load = stage.load(count=jobs, rate_per_s=rate_per_s)
        while not (load.is_over and not stage.count_open()):
            pause(every_s)
            victim = rng.choice(stage.staff())
            killed[victim.name] = time.time()
            victim.kill()
            stage.hire()
            if time.monotonic() - began > 2 * OVER_S:
                break
        seconds = time.monotonic() - began
        settings = stage.settings
        returned, resumed = recovery_times(stage, killed)
        verdict.done = (
            f"{jobs} jobs through {workers} workers, {len(killed)} kills in {seconds:.0f} s"
        )
        limit_s = settings.lease_s + settings.sweep_s + 2
        verdict.note(f"{len(returned)} runs died and were made up for")
        verdict.hold("given back p99", percentile(returned, 0.99), at_most=limit_s, unit="s")
        verdict.hold(
            "run again p99",
            percentile(resumed, 0.99),
            at_most=limit_s if rate_per_s else OVER_S,
            unit="s",
        )
        verdict.require(len(stage.history.acknowledged()) == jobs, "a submit was refused")
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict


def recovery_times(stage: Stage, killed: dict[str, float]) -> tuple[list[float], list[float]]:
    """Return, for each run a killed worker held, when after the kill the job was back, and ran."""
    rows = stage.rows(
        "SELECT a.worker, a.ended_at, b.started_at FROM attempts a"
        " JOIN attempts b ON b.job_id = a.job_id AND b.attempt = a.attempt + 1"
        " WHERE a.error_code = 'worker_lost'"
    )
    dead = [row for row in rows if row.worker in killed]
    returned = [row.ended_at - killed[row.worker] for row in dead]
    return returned, [row.started_at - killed[row.worker] for row in dead]


def frozen_workers(
    services: Services, *, freezes: int, workers: int = 4, broker: str = "redis"
) -> Verdict:
    """SIGSTOP a worker past its lease, then SIGCONT: what it writes then must not count."""
    verdict, rng = Verdict(), random.Random(SEED)
    with open_stage(services, broker=broker) as stage:
        stage.work_s = 0.6  # so long that a freeze meets a run nearly always
        stage.serve()
        stage.hire(workers)
        load = stage.load(rate_per_s=workers / 0.9)
        frozen = 0
        for _ in range(freezes):
            assert wait_until(lambda: len(busy(stage)) > 1, timeout_s=30)
            some = rng.sample(busy(stage), k=max(1, len(busy(stage)) // 2))
            frozen += len(some)
            freeze(some, stage.settings.lease_s + stage.settings.sweep_s + 1)
        load.stop()
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        zombies = stage.rows("SELECT count(*) FROM attempts WHERE error_code = 'worker_lost'")
        taken = int(zombies[0][0])
        wait_until(lambda: fenced(stage) >= taken, timeout_s=10)  # the last has just woken up
        late = fenced(stage)
        verdict.done = f"{frozen} workers frozen past their lease"
        verdict.note(f"{taken} runs taken away, {late} late writes or leases refused")
        verdict.require(late >= taken, "a late write was not refused")
        verdict.require(taken > 0, "no freeze met a run")
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict


def busy(stage: Stage) -> list[Worker]:
    """Return the workers that run something."""
    names = {row[0] for row in stage.rows("SELECT worker FROM jobs WHERE state = 'running'")}
    return [worker for worker in stage.staff() if worker.name in names]


def freeze(workers: list[Worker], seconds: float) -> None:
    for worker in workers:
        worker.send(signal.SIGSTOP)
    pause(seconds)
    for worker in workers:
        worker.send(signal.SIGCONT)


def fenced(stage: Stage) -> int:
    """Return how many runs learnt that they were not theirs any more."""
    settled = [line for line in stage.said("job_settled") if line["state"] is None]
    return len({(x["job_id"], x["attempt"]) for x in [*settled, *stage.said("lease_lost")]})


def cut_off(services: Services, *, lease_s: float, cut_s: float) -> Verdict:
    """One worker cannot reach the database any more; the others can."""
    verdict = Verdict()
    with open_stage(services, lease_s=lease_s, heartbeat_s=1.0) as stage:
        target = urlsplit(stage.settings.database_url)
        with FaultProxy((str(target.hostname), int(target.port or 0))) as proxy:
            url = services.postgres.url(name_of(stage.settings.database_url), proxy.port)
            stage.serve()
            lonely = stage.hire(database_url=url, work_s=10 * cut_s)[0]
            client = stage.client()
            client.submit()
            assert wait_until(lambda: bool(stage.states()["running"]), timeout_s=30)
            stage.hire(2)
            proxy.switch(Mode.BLACKHOLE)
            cut_at = time.time()
            lease_until = float(stage.rows("SELECT lease_until FROM jobs")[0][0])
            pause(cut_s)
            verdict.require(not stage.count_open(), "the job was not done by another")
            proxy.switch(Mode.PASS)
            lost = [float(at) for at in times_of(lonely, "lease_lost")]
            verdict.require(bool(lost), "the worker did not give its run up")
            again = stage.rows("SELECT max(started_at) FROM attempts")[0][0]
            settings = stage.settings
            verdict.done = (
                f"the database blackholed for one worker for {cut_s:g} s, lease {lease_s:g} s"
            )
            verdict.hold(
                "run given up after the end of its lease by",
                min(lost, default=9e9) - lease_until,
                at_most=5,
                unit="s",
            )
            verdict.hold(
                "started elsewhere after",
                again - cut_at,
                at_most=lease_s + settings.sweep_s + settings.poll_s + 2,
                unit="s",
            )
            is_back = wait_until(lambda: stage.knows(lonely), timeout_s=30)
            verdict.require(is_back, "the worker did not come back")
            verdict.expect_all_succeeded(stage)
            verdict.judge(stage)
    return verdict


def times_of(worker: Worker, event: str) -> list[float]:
    """Return when *worker* said *event*, Unix seconds."""
    return [unix_time(line["timestamp"]) for line in worker.log() if line.get("event") == event]


def unix_time(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def rolling_deploy(
    services: Services, *, jobs: int, rounds: int, workers: int = 4, broker: str = "redis"
) -> Verdict:
    """SIGTERM every process, one by one, each replaced by a new one before."""
    verdict = Verdict()
    with open_stage(services, broker=broker) as stage:
        stage.work_s = 0.1
        stage.serve(2)
        stage.hire(workers)
        load = stage.load(count=jobs, rate_per_s=0.7 * workers / 0.1)
        statuses = []
        for _ in range(rounds):
            for worker in stage.staff():
                stage.hire()
                worker.send(signal.SIGTERM)
                worker.process.join(30)
                statuses.append(worker.process.exitcode)
            for replica in [r for r in stage.replicas if r.process.poll() is None]:
                stage.serve()
                statuses.append(replica.stop())
        load.wait()
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        verdict.done = f"{len(statuses)} processes replaced, {jobs} jobs"
        verdict.require(set(statuses) == {0}, f"exit statuses {set(statuses)}")
        consumed = stage.rows(
            "SELECT count(*) FROM attempts WHERE outcome NOT IN ('succeeded', 'queued')"
        )
        verdict.hold("attempts consumed", consumed[0][0], at_most=0)
        answers = {str(k): n for k, n in stage.history.statuses("submit").items()}
        verdict.note(f"answers to submits: {answers}")
        verdict.require(set(answers) <= {"202", "ConnectionRefusedError"}, f"answers {answers}")
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict


def when(condition: Callable[[], bool], *, timeout_s: float) -> float | None:
    """Return the seconds until *condition* held, None if it never did."""
    began = time.monotonic()
    return time.monotonic() - began if wait_until(condition, timeout_s=timeout_s) else None
