"""A whole API over a real database: a key per tenant, a clock that stands, files in a folder."""

import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests import databases
from tests.builders import FakeClock, make_database, make_result
from vidmill.api.app import create_app
from vidmill.domain.job import Job, Lane
from vidmill.profiles import load_profile
from vidmill.queueing import open_bus, open_tickets
from vidmill.services.access import hash_key
from vidmill.settings import Settings
from vidmill.storage import open_blobs
from vidmill.store import accounts, jobs
from vidmill.store.session import UnitOfWork, open_database
from vidmill.wiring import App

KEY = "vm_test_key_of_tenant_1"
COLLEAGUE_KEY = "vm_test_key_of_another_user_of_tenant_1"
OTHER_KEY = "vm_test_key_of_tenant_2"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """An API under test and what lies behind it."""

    app: App
    api: FastAPI
    client: TestClient
    clock: FakeClock
    folder: Path

    def other(self) -> TestClient:
        """Return a client of another tenant."""
        return TestClient(self.api, headers={"Authorization": f"Bearer {OTHER_KEY}"})

    def colleague(self) -> TestClient:
        """Return a client of another user of tenant 1."""
        return TestClient(self.api, headers={"Authorization": f"Bearer {COLLEAGUE_KEY}"})

    def stranger(self) -> TestClient:
        """Return a client without a key."""
        return TestClient(self.api)

    def generate(self, **changes: Any) -> dict[str, Any]:
        """Submit a clip that must be queued, unless told, whatever identical ones there are."""
        body = {"prompt": "a red ball", "cache": False, **changes}
        answer = self.client.post("/v1/t2v/generate", json=body)
        assert answer.status_code == 202, answer.text
        doc: dict[str, Any] = answer.json()
        return doc

    def claim(self, worker: str = "w1") -> Job:
        """Let a worker take the best job."""
        pool = self.app.settings.pool
        job = self.app.db.write(
            lambda uow: jobs.claim(uow, pool=pool, worker=worker, profile="tiny", lease_s=30.0)
        )
        assert job is not None
        return job

    def settle(self, job: Job, outcome: jobs.Outcome) -> None:
        """End the run of *job*."""
        assert job.worker

        def write(uow: UnitOfWork) -> object:
            return jobs.settle(
                uow, job_id=job.id, attempt=job.attempt, worker=str(job.worker), outcome=outcome
            )

        assert self.app.db.write(write) is not None

    def break_database(self) -> None:
        """Put a folder where the file was: no connection can be opened any more."""
        self.app.db.close()
        (self.folder / "vidmill.db").rename(self.folder / "elsewhere.db")
        (self.folder / "vidmill.db").mkdir()

    def close(self) -> None:
        self.app.close()


def make_bench(folder: Path, *, cap_queued: int = 10_000, **settings: Any) -> Bench:
    """Return an API over an empty database with tenants 1 (VIP) and 2, which the caller closes.

    Its events travel within *folder*, whatever the database.
    """
    clock = FakeClock()
    values = {"data_dir": folder, "profile": "tiny", "public_url": "http://files.test", **settings}
    chosen = Settings.model_validate(values)
    db = make_database(folder, clock, tenant_count=2)

    def keys(uow: UnitOfWork) -> None:
        accounts.save_plan(uow, accounts.Plan(name="default", lane=Lane.VIP, cap_queued=cap_queued))
        accounts.save_plan(uow, accounts.Plan(name="plain", lane=Lane.STANDARD))
        accounts.ensure_tenant(uow, "default", cap_queued=cap_queued)
        accounts.ensure_tenant(uow, "tenant-2", plan="plain")
        colleague = accounts.ensure_user(uow, 1, "colleague")
        accounts.create_key(uow, 1, "test", hash_key(KEY))
        accounts.create_key(uow, 1, "test", hash_key(COLLEAGUE_KEY), user_id=colleague.id)
        accounts.create_key(uow, 2, "test", hash_key(OTHER_KEY))

    db.write(keys)
    app = App(
        settings=chosen,
        db=db,
        blobs=open_blobs(chosen.effective_storage_url),
        bus=open_bus(chosen.effective_events_url),
        tickets=open_tickets(chosen.effective_queue_url),
        profile=load_profile(chosen.profile),
        signing_secret=b"s" * 32,
        clock=clock,
    )
    api = create_app(app)
    client = TestClient(api, headers={"Authorization": f"Bearer {KEY}"})
    return Bench(app=app, api=api, client=client, clock=clock, folder=folder)


def make_replica(bench: Bench) -> Bench:
    """Return another process's API, as it were: the same database and sockets, all else its own."""
    settings = bench.app.settings
    db = open_database(database_url(bench.folder), clock=bench.clock)
    app = replace(
        bench.app,
        db=db,
        bus=open_bus(settings.effective_events_url),
        tickets=open_tickets(settings.effective_queue_url),
    )
    api = create_app(app)
    client = TestClient(api, headers={"Authorization": f"Bearer {KEY}"})
    return Bench(app=app, api=api, client=client, clock=bench.clock, folder=bench.folder)


@dataclass(frozen=True, kw_only=True)
class Served:
    """An API on a real port of this machine."""

    bench: Bench
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **given: Any) -> httpx2.Response:
        """Ask with the key of tenant 1."""
        headers = {"Authorization": f"Bearer {KEY}", **given.pop("headers", {})}
        return httpx2.get(f"{self.url}{path}", headers=headers, timeout=30, **given)

    def connect(self) -> socket.socket:
        """Return a connection to write raw HTTP on; the caller closes it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


def head_of(method: str, path: str, *lines: str) -> bytes:
    """Return a raw request head with the key of tenant 1."""
    fixed = (f"{method} {path} HTTP/1.1", "Host: test", f"Authorization: Bearer {KEY}")
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def finish(bench: Bench, content: bytes = b"0123456789", **order: Any) -> str:
    """Make a clip that is done, whose files all hold *content*; return its task id."""
    task_id: str = bench.generate(**order)["task_id"]
    job = bench.claim()
    suffixes = {"video": "mp4", "poster": "jpg", "preview": "webp"}
    video = make_result().assets["video"]
    assets = {}
    for variant, suffix in suffixes.items():
        key = f"{task_id}/{job.attempt}/{variant}.{suffix}"
        source = bench.folder / f"{variant}.{suffix}"
        source.write_bytes(content)
        bench.app.blobs.put_file(key, source, content_type=video.content_type)
        assets[variant] = replace(video, key=key, size_bytes=len(content))
    bench.settle(job, jobs.Succeeded(result=make_result(assets=assets)))
    return task_id


def database_url(folder: Path) -> str:
    """Return where the database of *folder* is; see `tests.databases`."""
    return databases.Choice.in_use.get(folder, f"sqlite:///{folder / 'vidmill.db'}")


def path_of(url: str) -> str:
    """Return what follows the host in a link."""
    return url.removeprefix("http://files.test")
