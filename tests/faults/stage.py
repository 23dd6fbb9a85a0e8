"""A whole farm of real processes on a database and a broker of its own, and eyes on all of it."""

import os
import secrets
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.faults.clients import Client, Load
from tests.faults.history import History
from tests.faults.invariants import Breach, bad_files, breaches
from tests.faults.processes import START_S, Replica, Worker
from tests.faults.proxy import FaultProxy
from tests.faults.shared import BROKERS, DATABASES, Services, delete_queue
from tests.faults.thin import Labour, run_worker, start_process
from tests.waiting import wait_until
from vidmill.domain.webhook import NATIVE_TYPES
from vidmill.services.access import hash_key
from vidmill.settings import Settings
from vidmill.store import accounts, webhooks
from vidmill.store.session import Database, UnitOfWork, open_database
from vidmill.worker.__main__ import new_worker_id

TIMES: Mapping[str, Any] = {
    "lease_s": 3.0,
    "heartbeat_s": 0.5,
    "poll_s": 1.0,
    "sweep_s": 1.0,
    "promote_s": 0.2,
    "reconcile_s": 1.0,
    "audit_s": 5.0,
    "retry_base_s": 0.05,
    "retry_cap_s": 0.5,
    "cancel_grace_s": 1.0,
    "drain_s": 20.0,
    "max_attempts": 30,
    "queue_max": 1_000_000,
    "signing_secret": "of the drills alone",
    "log_format": "json",
}
"""Everything that takes seconds in production takes a tenth of it here, the lease included."""


@dataclass(kw_only=True)
class Stage:
    """The farm. Whoever opens it with `open_stage` closes it so."""

    folder: Path
    values: Mapping[str, Any]
    db: Database
    history: History
    keys: Sequence[str]
    broker: Any
    broker_proxy: FaultProxy | None
    replicas: list[Replica] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    samples: list[Breach] = field(default_factory=list)
    work_s: float = 0.015

    @property
    def settings(self) -> Settings:
        return Settings(**self.values)

    def serve(self, count: int = 1) -> list[Replica]:
        """Start replicas, each with a controller, and wait until they answer."""
        names = [self.folder / f"serve-{len(self.replicas) + i}.log" for i in range(count)]
        env = {**os.environ, **as_env(self.values)}
        added = [Replica(env, name) for name in names]
        for replica in added:
            assert wait_until(replica.answers, timeout_s=START_S), replica.log_tail()
        self.replicas += added
        return added

    def ports(self) -> list[int]:
        return [r.port for r in self.replicas if r.process.poll() is None]

    def hire(self, count: int = 1, **changes: Any) -> list[Worker]:
        """Start thin workers; *changes* are settings of theirs."""
        work_s = changes.pop("work_s", self.work_s)
        settings = Settings(**{**self.values, **changes})
        labour = Labour(work_s=work_s, files=self.folder / "files")
        added = []
        for _ in range(count):
            name = new_worker_id()
            log_path = self.folder / f"{name}.log"
            process = start_process(run_worker, log_path, settings, name, labour)
            added.append(Worker(name=name, process=process, log_path=log_path))
        for worker in added:
            assert wait_until(lambda: self.knows(worker), timeout_s=START_S), worker.log()[-5:]  # noqa: B023
        self.workers += added
        return added

    def knows(self, worker: Worker) -> bool:
        """Return whether the database has heard of *worker* within its lease."""
        query = "SELECT count(*) FROM workers WHERE id = :name AND lease_until > :now"
        return bool(self.rows(query, name=worker.name, now=self.db.now())[0][0])

    def staff(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.is_alive]

    def client(self) -> Client:
        return Client(self.history, self.ports, self.keys)

    def client_of(self, port: int) -> Client:
        """Return a client of one replica alone."""
        return Client(self.history, lambda: [port], self.keys)

    def load(self, **how: Any) -> Load:
        return Load(self.client, **how)

    def load_each(self, keys: Sequence[str], count: int) -> None:
        """Have every tenant order *count* clips, one after the other in turn."""
        client = self.client()
        for _ in range(count):
            for key in keys:
                client.submit(key=key)

    def rows(self, query: str, **values: Any) -> list[Any]:
        return list(self.db.read(lambda conn: conn.execute(text(query), values).all()))

    def count_open(self) -> int:
        over = "('succeeded', 'failed', 'cancelled')"
        return int(self.rows(f"SELECT count(*) FROM jobs WHERE state NOT IN {over}")[0][0])

    def wait_over(self, timeout_s: float) -> bool:
        """Wait until every job has ended."""
        return wait_until(lambda: not self.count_open(), timeout_s=timeout_s, step_s=0.1)

    def states(self) -> Counter[str]:
        rows = self.rows("SELECT state, count(*) FROM jobs GROUP BY state")
        return Counter({row[0]: row[1] for row in rows})

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return what workers said of *event*."""
        return [line for w in self.workers for line in w.log() if line.get("event") == event]

    def breaches(self) -> list[Breach]:
        """Return all that is wrong now, on the disk as well."""
        settings = self.settings
        patience_s = settings.lease_s + settings.sweep_s + 5
        found = breaches(self.db, patience_s=patience_s) + bad_files(self.db, self.folder / "files")
        present = {row[0] for row in self.rows("SELECT public_id FROM jobs")}
        lost = [task for task in self.history.acknowledged() if task not in present]
        return [*found, *self.samples, *(Breach(rule="I1 acknowledged", found=(x,)) for x in lost)]

    def close(self) -> None:
        self.history.write(self.folder / "history.jsonl")
        for worker in self.staff():
            worker.kill()
        for replica in self.replicas:
            if replica.process.poll() is None:
                replica.kill()
        self.db.close()


def as_env(values: Mapping[str, Any]) -> dict[str, str]:
    return {f"VIDMILL_{name.upper()}": str(value) for name, value in values.items()}


@contextmanager
def open_stage(
    services: Services,
    *,
    database: str = "postgresql",
    broker: str = "redis",
    tenants: int = 4,
    cap_running: int = 1_000,
    **changes: Any,
) -> Iterator[Stage]:
    """Yield a farm without replicas and workers; *broker* `local` = none."""
    folder = Path(tempfile.mkdtemp(dir=services.folder))
    (folder / "run").mkdir()
    url = DATABASES[database](services, folder)
    server = proxy = None
    values = {**TIMES, "data_dir": folder, "database_url": url}
    values["pool"] = f"pool-{secrets.token_hex(3)}"  # a queue of its own on a broker others use
    if broker in BROKERS:
        server, broker_url, target = BROKERS[broker](services)
        proxy = FaultProxy(target)
        values["broker_url"] = broker_url.format(port=proxy.port)
    db = open_database(url)
    keys = [f"vm_faults_{number}" for number in range(tenants)]

    def people(uow: UnitOfWork) -> None:
        for key in keys:
            tenant = accounts.ensure_tenant(
                uow, key, cap_running=cap_running, cap_queued=values["queue_max"]
            )
            accounts.create_key(uow, tenant.id, key, hash_key(key))
            _listen(uow, tenant.id)

    db.write(people)
    stage = Stage(
        folder=folder,
        values={**values, **changes},
        db=db,
        history=History(),
        keys=keys,
        broker=server,
        broker_proxy=proxy,
    )
    try:
        with watched(stage):
            yield stage
    finally:
        stage.close()
        if proxy:
            proxy.close()
        if proxy and server is None:  # a broker of others as well
            delete_queue(values["broker_url"], proxy.target, values["pool"])


CAPS = "SELECT id, running, cap_running FROM tenants WHERE running > cap_running"
SAMPLE_S = 0.2


def _listen(uow: UnitOfWork, tenant_id: int) -> None:
    """Let the tenant want to be told of everything, by an endpoint that rests for ever: see I6."""
    endpoint = webhooks.create(
        uow,
        tenant_id=tenant_id,
        public_id="we_of_the_drills",
        url="https://hooks.invalid/",
        description="",
        events=NATIVE_TYPES,
        secret="00" * 32,
    )
    webhooks.note_failure(uow, endpoint.id, rest_s=1e9)


@contextmanager
def watched(stage: Stage) -> Iterator[None]:
    """Look at the caps (I8) all the time, from a thread."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(SAMPLE_S):
            try:
                rows = stage.rows(CAPS)
            except Exception:  # noqa: BLE001  a database that is away is looked at again
                continue
            stage.samples += [Breach(rule="I8", found=tuple(row)) for row in rows]

    thread = threading.Thread(target=look, name="sampler")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def pause(seconds: float) -> None:
    """Let a fault last: its length is the point, not a wait for something."""
    time.sleep(seconds)
