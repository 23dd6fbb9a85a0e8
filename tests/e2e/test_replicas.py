"""Two real `vidmill serve` behind a round robin: one client, and nothing sticks to either."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import databases
from tests.brokers import shared_redis
from tests.builders import make_result
from tests.e2e.round_robin import RoundRobin
from tests.e2e.stacks import QUICK_ENV
from tests.faults.processes import START_S, Replica
from tests.receivers import answering, receiving
from tests.waiting import wait_until
from vidmill import wiring
from vidmill.domain.breaker import BreakerPolicy
from vidmill.domain.clip import Asset
from vidmill.domain.job import Job, RetryPolicy
from vidmill.services.access import hash_key
from vidmill.services.lifecycle import Lifecycle
from vidmill.settings import Settings
from vidmill.store import accounts, jobs
from vidmill.store.session import UnitOfWork

KEY = "vm_key_of_the_one_client"
CONTENT = b"an mp4, as it were"
STREAMS = 200
WAIT_S = 60.0

pytestmark = pytest.mark.e2e


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Two replicas, the way to both, and a worker played by hand."""

    app: wiring.App
    replicas: list[Replica]
    way: RoundRobin
    client: httpx2.Client
    folder: Path

    def call(self, method: str, path: str, **given: Any) -> httpx2.Response:
        """Ask on a connection of its own: the one before went to the other replica."""
        return self.client.request(method, f"/v1/t2v{path}", **given)

    def submit(self, **fields: Any) -> str:
        body = {"prompt": "a red ball", "cache": False, **fields}
        answer = self.call("POST", "/generate", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def claim(self) -> Job:
        job = self.app.db.write(
            lambda uow: jobs.claim(uow, pool="default", worker="w1", profile="tiny", lease_s=60.0)
        )
        assert job is not None
        return job

    def complete(self, job: Job) -> None:
        """Store a file and settle the job, as a worker does."""
        key = f"{job.public_id}/{job.attempt}/video.mp4"
        path = self.folder / "clip"
        path.write_bytes(CONTENT)
        self.app.blobs.put_file(key, path, content_type="video/mp4")
        video = Asset(
            key=key,
            content_type="video/mp4",
            size_bytes=len(CONTENT),
            md5=hashlib.md5(CONTENT).hexdigest(),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            width_px=832,
            height_px=480,
        )
        lifecycle = Lifecycle(
            db=self.app.db,
            bus=self.app.bus,
            tickets=self.app.tickets,
            retry=RetryPolicy(),
            breaker=BreakerPolicy(),
        )
        assert lifecycle.complete(job, make_result(assets={"video": video}))


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    databases.choose("postgresql")
    with contextlib.ExitStack() as stack:
        stack.callback(databases.choose, "sqlite")
        broker = stack.enter_context(shared_redis(tmp_path))
        values = {
            "VIDMILL_DATABASE_URL": databases.empty_database(tmp_path),
            "VIDMILL_BROKER_URL": broker,
            "VIDMILL_STORAGE_URL": (tmp_path / "files").as_uri(),
            "VIDMILL_DATA_DIR": str(tmp_path / "data"),
            "VIDMILL_SIGNING_SECRET": "the same for both",
            "VIDMILL_WEBHOOK_HTTP": "true",
            "VIDMILL_WEBHOOK_ALLOW": '["127.0.0.1"]',
        }
        env = {**os.environ, **QUICK_ENV, **values}
        replicas = [Replica(env, tmp_path / f"serve-{number}.log") for number in range(2)]
        for replica in replicas:
            stack.callback(replica.kill)
        way = stack.enter_context(RoundRobin([replica.port for replica in replicas]))
        app = open_app(tmp_path, values)
        stack.callback(app.close)
        client = stack.enter_context(make_client(way.url))
        is_up = wait_until(
            lambda: all(replica.answers() for replica in replicas), timeout_s=START_S, step_s=0.1
        )
        assert is_up, [replica.log_tail() for replica in replicas]
        yield Farm(app=app, replicas=replicas, way=way, client=client, folder=tmp_path)


def open_app(folder: Path, values: dict[str, str]) -> wiring.App:
    """Return what a worker's process has, and make the client's key."""
    names = ("DATABASE_URL", "BROKER_URL", "STORAGE_URL", "SIGNING_SECRET")
    given = {name.lower(): values[f"VIDMILL_{name}"] for name in names}
    app = wiring.build(Settings.model_validate({"data_dir": folder / "worker", **given}))

    def people(uow: UnitOfWork) -> None:
        tenant = accounts.ensure_tenant(uow, "acme")
        accounts.create_key(uow, tenant.id, "test", hash_key(KEY))

    app.db.write(people)
    return app


def make_client(url: str) -> httpx2.Client:
    """Return a client that keeps no connection."""
    return httpx2.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {KEY}"},
        limits=httpx2.Limits(max_keepalive_connections=0),
        timeout=30,
    )


def test_nothing_a_client_does_depends_on_which_replica_answers(farm: Farm) -> None:
    submits_once_under_one_key(farm)
    polls_with_the_etag_of_the_other(farm)
    walks_the_list_by_cursors(farm)
    opens_links_made_by_the_other(farm)
    follows_a_batch(farm)
    one, other = (farm.way.taken[replica.port] for replica in farm.replicas)
    assert abs(one - other) <= 1


def submits_once_under_one_key(farm: Farm) -> None:
    headers = {"Idempotency-Key": "k"}
    body = {"prompt": "a red ball"}
    answers = [farm.call("POST", "/generate", json=body, headers=headers) for _ in range(4)]
    assert len({answer.json()["task_id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers[1:]] == ["true"] * 3
    farm.complete(farm.claim())


def polls_with_the_etag_of_the_other(farm: Farm) -> None:
    path = f"/status?task_id={farm.submit()}"
    farm.complete(farm.claim())
    etag = farm.call("GET", path).headers["etag"]
    again = [farm.call("GET", path, headers={"If-None-Match": etag}) for _ in range(2)]
    assert [answer.status_code for answer in again] == [304, 304]


def walks_the_list_by_cursors(farm: Farm) -> None:
    made = [farm.submit(client_reference="a list") for _ in range(5)]
    seen: list[str] = []
    query: str | None = "?client_reference=a+list&limit=2"
    while query:
        page = farm.call("GET", f"/tasks{query}").json()
        seen += [task["task_id"] for task in page["data"]]
        cursor = page["next_cursor"]
        query = f"?client_reference=a+list&limit=2&cursor={cursor}" if cursor else None
    assert seen == made[::-1]
    for _ in made:
        farm.complete(farm.claim())


def opens_links_made_by_the_other(farm: Farm) -> None:
    task_id = farm.submit()
    farm.complete(farm.claim())
    for _ in range(3):
        link = farm.call("GET", f"/status?task_id={task_id}").json()["result_url"]
        farm.call("GET", "/capabilities")  # so that each replica serves the other's link
        assert httpx2.get(link, headers={"Connection": "close"}).content == CONTENT


def follows_a_batch(farm: Farm) -> None:
    with receiving(answering(204)) as receiver:
        farm.call("POST", "/webhooks", json={"url": receiver.url}).raise_for_status()
        rows = {"items": [{"prompt": f"ball {number}", "cache": False} for number in range(3)]}
        checked = farm.call("POST", "/batches", json=rows).json()["batch_id"]
        farm.call("POST", f"/batches/{checked}/confirm", json={}).raise_for_status()
        for _ in range(3):
            farm.complete(farm.claim())
        assert wait_until(lambda: len(receiver.calls) == 4, timeout_s=WAIT_S)
        state = farm.call("GET", f"/batches/{checked}").json()["state"]
        types = sorted(json.loads(call.body)["type"] for call in receiver.calls)
    assert state == "completed"
    assert types == ["t2v.batch.completed"] + ["t2v.task.completed"] * 3
    ids = {call.headers["webhook-id"] for call in receiver.calls}
    assert len(ids) == 4, "two replicas deliver, and neither what the other did"


@dataclass
class Follower:
    """Reads the events of one task until it is over, wherever a connection leads."""

    task_id: str
    seen: list[tuple[str, str]] = field(default_factory=list)
    connections: int = 0

    async def follow(self, client: httpx2.AsyncClient) -> None:
        while not self.is_over:
            self.connections += 1
            with contextlib.suppress(httpx2.TransportError):
                await self._read(client)

    @property
    def is_over(self) -> bool:
        return bool(self.seen) and self.seen[-1][1] == "t2v.task.completed"

    async def _read(self, client: httpx2.AsyncClient) -> None:
        headers = {"Last-Event-ID": self.seen[-1][0]} if self.seen else {}
        path = f"/v1/t2v/tasks/{self.task_id}/events"
        async with client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
            event: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                event[name] = value
                if not line and "data" in event:
                    self.seen.append((event["id"], event["event"]))
                    event = {}


def test_streams_of_a_killed_replica_go_on_at_the_other_and_miss_no_end(farm: Farm) -> None:
    rows = {"items": [{"prompt": f"ball {n}", "cache": False} for n in range(STREAMS)]}
    made = farm.call("POST", "/batches?confirm=true", json=rows)
    assert made.status_code < 300, made.text
    running = [farm.claim() for _ in range(STREAMS)]
    followers = [Follower(job.public_id) for job in running]
    asyncio.run(asyncio.wait_for(kill_one_under(farm, running, followers), 2 * WAIT_S))
    assert [follower.seen[-1][1] for follower in followers] == ["t2v.task.completed"] * STREAMS
    resumed = sum(follower.connections > 1 for follower in followers)
    assert STREAMS // 4 < resumed <= STREAMS // 2
    for follower in followers:
        ids = [tuple(int(part) for part in name.split(".")) for name, _ in follower.seen]
        assert all(earlier < later for earlier, later in itertools.pairwise(ids))


async def kill_one_under(farm: Farm, running: list[Job], followers: list[Follower]) -> None:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(
        base_url=farm.way.url, headers=headers, limits=limits, timeout=WAIT_S
    ) as client:
        reading = [asyncio.create_task(follower.follow(client)) for follower in followers]
        is_everyone_there = await asyncio.to_thread(
            wait_until, lambda: all(one.seen for one in followers), timeout_s=WAIT_S
        )
        assert is_everyone_there
        completing = asyncio.create_task(asyncio.to_thread(complete_all, farm, running))
        await asyncio.to_thread(
            wait_until, lambda: any(one.is_over for one in followers), timeout_s=WAIT_S
        )
        farm.replicas[0].kill()  # while ends are being told
        await completing
        await asyncio.gather(*reading)


def complete_all(farm: Farm, running: list[Job]) -> None:
    for job in running:
        farm.complete(job)
