"""A real supervisor with its two children, on a database of the test's own."""

import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.builders import make_new_job, make_spec
from tests.waiting import wait_until
from vidmill.domain.clip import ClipSpec, Size
from vidmill.domain.ids import task_id
from vidmill.domain.job import Job, Phase, RetryPolicy
from vidmill.queueing import open_bus, open_tickets
from vidmill.settings import Settings
from vidmill.stack import settings_json
from vidmill.store import accounts, jobs, migrate, workers
from vidmill.store.session import Database, open_database
from vidmill.worker import proc
from vidmill.worker.__main__ import new_worker_id

ROOT = Path(__file__).parents[1]
WAIT_S = 60.0
"""Far above what anything here takes, for a machine that does other things as well."""

QUICK: dict[str, Any] = {
    "lease_s": 3.0,
    "heartbeat_s": 0.3,
    "poll_s": 1.0,
    "retry_base_s": 0.05,
    "cancel_grace_s": 1.0,
    "drain_s": 20.0,
    "progress_interval_s": 0.02,
    "encoder_preset": "ultrafast",
    "interpolation": "blend",
    "torch_threads": 1,
    "log_format": "json",
    "breaker_failures": 1000,
    "worker_failures": 1000,
}
"""Settings under which what takes minutes in production takes parts of a second."""


TROUBLED = "tests.service.troubled_engine:TroubledEngine"


def small_spec(**changes: Any) -> ClipSpec:
    """Return the spec of a half second clip that costs little to finish."""
    values: dict[str, Any] = {
        "size": Size(160, 96),
        "duration_s": 0.5,
        "num_frames": 5,
        "steps": 10,
        "prompt": "a quiet grey clip",
    }
    return make_spec(**{**values, **changes})


@dataclass
class Bench:
    """A data folder, its database, and the means to put work into it and to look at it."""

    settings: Settings
    db: Database

    def __post_init__(self) -> None:
        self.tickets = open_tickets(self.settings.effective_queue_url)
        self.bus = open_bus(self.settings.effective_events_url)

    def submit(self, spec: ClipSpec | None = None, **changes: Any) -> Job:
        """Queue a job as the API does, ticket included."""
        new = make_new_job(
            public_id=task_id(time.time_ns() // 10**6, secrets.randbits(74)),
            pool=self.settings.pool,
            spec=spec or small_spec(),
            **changes,
        )
        job = self.db.write(lambda uow: jobs.insert(uow, new))
        self.tickets.publish(self.settings.pool)
        return job

    def trouble(self, prompt: str, **changes: Any) -> Job:
        """Queue a job for `TroubledEngine`."""
        return self.submit(small_spec(prompt=prompt), **changes)

    def cancel(self, job: Job, *, is_told: bool = True) -> Job:
        """Cancel as the API does; *is_told*: the bus carries it too."""
        done = self.db.write(lambda uow: jobs.request_cancel(uow, job.public_id, job.tenant_id))
        assert done is not None
        if is_told:
            self.bus.cancel(done.job.public_id, done.job.attempt)
        return done.job

    def look(self, job: Job) -> Job:
        found = self.db.read(lambda conn: jobs.get_by_id(conn, job.id))
        assert found is not None
        return found

    def wait(self, job: Job, condition: Callable[[Job], bool], timeout_s: float = WAIT_S) -> Job:
        """Wait until *condition* holds of the row, promoting due retries meanwhile."""

        def holds() -> bool:
            if self.db.write(jobs.promote):
                self.tickets.publish(self.settings.pool)
            return condition(self.look(job))

        assert wait_until(holds, timeout_s=timeout_s, step_s=0.02), self.look(job)
        return self.look(job)

    def wait_over(self, job: Job, timeout_s: float = WAIT_S) -> Job:
        return self.wait(job, lambda j: j.is_terminal, timeout_s)

    def wait_denoising(self, job: Job) -> Job:
        return self.wait(job, lambda j: j.phase is Phase.DENOISING)

    def wait_trouble(self, job: Job) -> Job:
        """Wait until `TroubledEngine` is in its trouble, half way through."""
        return self.wait(job, lambda j: j.progress >= 0.4)

    def sweep(self) -> list[jobs.Settled]:
        """Take the jobs of leases that ran out, as the controller does."""
        policy = RetryPolicy(base_s=0.0)
        return self.db.write(
            lambda uow: jobs.sweep(uow, policy=policy, jitter=lambda: 0.5, time_limit_s=60)
        )

    def attempts(self, job: Job) -> list[str | None]:
        """Return the outcome of each attempt."""
        query = text("SELECT outcome FROM attempts WHERE job_id = :job ORDER BY attempt")
        return self.db.read(lambda conn: list(conn.execute(query, {"job": job.id}).scalars()))

    def files(self) -> set[str]:
        """Return `<task>/<attempt>` of every clip of which there are files."""
        root = self.settings.data_dir / "files"
        found = set()
        for folder, _, names in os.walk(root):  # which bears that one goes meanwhile
            if not all(name.startswith("step-") for name in names):  # preview frames
                found.add("/".join(Path(folder).relative_to(root).parts[:2]))
        return found

    def close(self) -> None:
        self.tickets.close()
        self.bus.close()
        self.db.close()


@contextmanager
def open_bench(folder: Path, **changes: Any) -> Iterator[Bench]:
    settings = Settings(**{**QUICK, "data_dir": folder, "port": 0, **changes})
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    migrate.upgrade(settings.effective_database_url)
    db = open_database(settings.effective_database_url)
    db.write(lambda uow: accounts.ensure_tenant(uow, "default"))
    bench = Bench(settings, db)
    yield bench
    bench.close()


class Worker:
    """`python -m vidmill.worker`, as `vidmill up` starts it."""

    def __init__(self, bench: Bench, engine: str = "") -> None:
        self._bench = bench
        self.name = new_worker_id()
        command = [sys.executable, "-m", "vidmill.worker", "--settings-stdin"]
        command += ["--worker", self.name, "--parent", str(os.getpid()), "--engine", engine]
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        self.log_path = bench.settings.data_dir / f"{self.name}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        assert self.process.stdin is not None
        self.process.stdin.write(settings_json(bench.settings).encode())
        self.process.stdin.close()

    def row(self) -> workers.Worker | None:
        db = self._bench.db
        rows = db.read(lambda conn: workers.all_workers(conn, now=db.now()))
        return next((row for row in rows if row.id == self.name), None)

    def wait_state(self, state: str, timeout_s: float = WAIT_S) -> workers.Worker:
        def is_there() -> bool:
            row = self.row()
            return row is not None and row.state == state

        assert wait_until(is_there, timeout_s=timeout_s), (self.row(), self.log_tail())
        row = self.row()
        assert row is not None
        return row

    def pids(self) -> list[int]:
        """Return the noted pids, dead or alive."""
        path = self._bench.settings.run_dir / f"{self.name}.pids"
        return [mark["pid"] for mark in json.loads(path.read_text())]

    def child(self, module: str) -> int:
        """Return the pid of the living child that runs *module*."""
        return next(pid for pid in self.pids() if module in command_line(pid))

    @contextmanager
    def frozen(self, module: str) -> Iterator[int]:
        """Stop that child for the block, so that its job stays where it is; give its pid."""
        pid = self.child(module)
        os.kill(pid, signal.SIGSTOP)
        yield pid
        if proc.stat(pid):
            os.kill(pid, signal.SIGCONT)

    def wait_rendered(self, job: Job) -> None:
        """Wait until the frames of *job* are handed over."""
        self.wait_said("job_rendered", job)

    @contextmanager
    def full_disk(self, pid: int) -> Iterator[None]:
        """Let no file of that process grow for the block, which is what a full disk is like."""
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
        yield
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)

    def stop(self, timeout_s: float = WAIT_S) -> int:
        """Drain; return the exit status."""
        self.process.terminate()
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return every whole line of the log that tells of *event*."""
        lines = self.log_path.read_text().splitlines()
        name = f'"event": "{event}"'
        return [json.loads(line) for line in lines if name in line and line.endswith("}")]

    def wait_said(self, event: str, job: Job) -> dict[str, Any]:
        """Wait until the log tells of *event* of *job*; return that line."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.said(event) if line["job_id"] == job.public_id]

        assert wait_until(lambda: bool(found()), timeout_s=WAIT_S), self.log_tail()
        return found()[-1]

    def log_tail(self) -> str:
        return "\n".join(self.log_path.read_text().splitlines()[-15:])


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(pid: int) -> set[int]:
    """Return every living process below *pid*."""
    processes = proc.all_processes()
    found, layer = set[int](), {pid}
    while layer:
        layer = {p.pid for p in processes if p.parent in layer} - found
        found |= layer
    return found


def are_gone(pids: set[int], timeout_s: float = 5.0) -> bool:
    return wait_until(lambda: not any(proc.stat(p) for p in pids), timeout_s=timeout_s)
