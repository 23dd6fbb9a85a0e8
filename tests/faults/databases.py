"""Faults of the database, and of the processes that write between it and the workers."""

import time
from signal import SIGQUIT

from tests.faults.kills import OVER_S, when
from tests.faults.replicas import run_mortal, run_usurper
from tests.faults.servers import free_port
from tests.faults.shared import Services
from tests.faults.stage import Stage, open_stage, pause
from tests.faults.thin import start_process
from tests.faults.verdict import Verdict
from tests.waiting import wait_until
from vidmill.domain.errors import VidmillError

LED = "SELECT holder, lease_until FROM leases WHERE name = 'controller'"


def database_restarts(
    services: Services, *, restarts: int, rate_per_s: float, apart_s: float = 5.0
) -> Verdict:
    """PostgreSQL is stopped at once, as by a crash, and started again, while jobs pour in."""
    verdict = Verdict()
    with open_stage(services) as stage:
        stage.serve(2)
        stage.hire(4)
        load = stage.load(rate_per_s=rate_per_s)
        resumed = []
        for _ in range(restarts):
            pause(apart_s)
            services.postgres.stop(SIGQUIT)
            pause(1.0)
            services.postgres.start()
            started = time.time()
            after = when(lambda: _has_claimed_since(stage, started), timeout_s=60)  # noqa: B023
            resumed.append(60.0 if after is None else after)
        load.stop()
        verdict.require(_wait_over(stage), "not all jobs ended")
        verdict.done = f"{restarts} immediate restarts at {rate_per_s:g} submits/s"
        verdict.hold("workers claimed again after", max(resumed), at_most=10, unit="s")
        answers = {str(k): n for k, n in stage.history.statuses("submit").items()}
        verdict.note(f"answers to submits: {answers}")
        verdict.require(set(answers) <= {"202", "503"}, f"answers to submits: {answers}")
        lost = stage.rows("SELECT count(*) FROM attempts WHERE outcome <> 'succeeded'")[0][0]
        verdict.note(f"{lost} runs had to be made again")
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict


def _has_claimed_since(stage: Stage, instant: float) -> bool:
    try:
        query = "SELECT count(*) FROM attempts WHERE started_at > :instant"
        return bool(stage.rows(query, instant=instant)[0][0])
    except VidmillError:
        return False


def _wait_over(stage: Stage) -> bool:
    def is_over() -> bool:
        try:
            return not stage.count_open()
        except VidmillError:
            return False

    return wait_until(is_over, timeout_s=OVER_S, step_s=0.1)


def leader_killed(services: Services, *, kills: int, jobs: int) -> Verdict:
    """kill -9 the replica whose controller leads; then let two lead at once."""
    verdict = Verdict()
    with open_stage(services) as stage:
        stage.serve()
        assert wait_until(lambda: bool(_leader(stage)), timeout_s=30)
        stage.hire(3)
        load = stage.load(count=jobs, rate_per_s=20)
        takeovers = []
        for _ in range(kills):
            stage.serve()
            leader = _leader(stage)
            next(r for r in stage.replicas if r.process.poll() is None).kill()  # the older leads
            after = when(lambda: _leader(stage) not in (None, leader), timeout_s=40)  # noqa: B023
            takeovers.append(40.0 if after is None else after)
        usurper = start_process(run_usurper, stage.folder / "usurper.log", stage.settings)
        stage.staff()[0].kill()
        stage.hire()
        load.wait()
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        verdict.require(usurper.is_alive(), "the second leader died")
        usurper.kill()
        verdict.done = f"{kills} leaders killed, then two at once; {jobs} jobs"
        verdict.hold("another led after", max(takeovers), at_most=15, unit="s")
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict


def _leader(stage: Stage) -> str | None:
    rows = [row for row in stage.rows(LED) if row.lease_until > stage.db.now()]
    return str(rows[0].holder) if rows else None


def killed_before_ticket(services: Services, *, times: int) -> Verdict:
    """kill -9 the API after the commit of a submit and before its ticket."""
    verdict = Verdict()
    with open_stage(services, reconcile_s=60.0) as stage:  # the poll alone must find the job
        stage.hire(2)
        stage.serve()
        pause(1.0)
        sound = list(stage.replicas)
        for _ in range(times):
            settings = stage.settings.model_copy(update={"port": free_port()})
            process = start_process(run_mortal, stage.folder / "mortal.log", settings)
            client = stage.client_of(settings.port)
            assert wait_until(lambda: bool(client.ping()), timeout_s=60)  # noqa: B023
            client.submit()
            process.join(30)
        stage.replicas = sound
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        delays = stage.rows(
            "SELECT a.started_at - j.submitted_at FROM jobs j"
            " JOIN attempts a ON a.job_id = j.id AND a.attempt = 1"
        )
        verdict.done = f"killed {times} times between commit and ticket"
        verdict.require(len(delays) == times, f"{len(delays)} of {times} jobs are there")
        verdict.require(len(stage.history.of("submit", "info")) == times, "a call was answered")
        verdict.hold(
            "longest wait for a worker",
            max(float(row[0]) for row in delays),
            at_most=stage.settings.poll_s * 1.25 + 2,
            unit="s",
        )
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict
